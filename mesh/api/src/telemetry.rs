//! Telemetry: metrics, traces and access logs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::common::one_target_rule;
use crate::schema::{at_most_one, rules};
use crate::{Duration, LabelSelector, TargetRef};

/// What the selected workloads report.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = one_target_rule()))]
pub struct Telemetry {
    /// The workloads; all of the namespace if unset.
    pub selector: Option<LabelSelector>,
    /// A resource it is attached to.
    pub target_ref: Option<TargetRef>,
    /// Resources it is attached to.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Traces.
    pub tracing: Vec<Tracing>,
    /// Metrics.
    pub metrics: Vec<Metrics>,
    /// Access logs.
    pub access_logging: Vec<AccessLogging>,
}

/// A provider of `meshConfig.extensionProviders`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct ProviderRef {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// Which side of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    /// Both.
    #[default]
    ClientAndServer,
    /// Outbound.
    Client,
    /// Inbound.
    Server,
}

/// Selects a side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModeSelector {
    /// The side.
    pub mode: WorkloadMode,
}

/// Traces.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// The side this holds for.
    pub r#match: Option<ModeSelector>,
    /// Where spans go.
    pub providers: Vec<ProviderRef>,
    /// Share of requests traced, when nobody decided before.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub random_sampling_percentage: Option<f64>,
    /// Send no spans.
    pub disable_span_reporting: Option<bool>,
    /// Pass no trace headers on.
    pub disable_context_propagation: Option<bool>,
    /// Tags added to spans.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Let x-request-id decide on sampling.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Add Istio's own tags.
    pub enable_istio_tags: Option<bool>,
}

/// A tag added to spans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["literal", "environment", "header", "formatter"])))]
pub struct CustomTag {
    /// A fixed value.
    pub literal: Option<TagValue>,
    /// An environment variable.
    pub environment: Option<TagSource>,
    /// A request header.
    pub header: Option<TagSource>,
    /// A format string.
    pub formatter: Option<TagValue>,
}

/// A value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["value"]))]
pub struct TagValue {
    /// The value.
    #[schemars(length(min = 1))]
    pub value: String,
}

/// Where a value is taken from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct TagSource {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The value when it is not there.
    pub default_value: String,
}

/// Metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// Who gets them.
    pub providers: Vec<ProviderRef>,
    /// Changes.
    pub overrides: Vec<MetricsOverrides>,
    /// How often TCP metrics are reported.
    pub reporting_interval: Option<Duration>,
}

/// A change to metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricsOverrides {
    /// The metrics this holds for.
    pub r#match: Option<MetricSelector>,
    /// Switch them off.
    pub disabled: Option<bool>,
    /// Change labels.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Selects metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["metric", "customMetric"])))]
pub struct MetricSelector {
    /// One of Istio's.
    pub metric: Option<IstioMetric>,
    /// Another, by name.
    #[schemars(length(min = 1))]
    pub custom_metric: Option<String>,
    /// The side.
    pub mode: WorkloadMode,
}

/// Istio's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IstioMetric {
    /// All.
    #[default]
    AllMetrics,
    /// istio_requests_total.
    RequestCount,
    /// istio_request_duration_milliseconds.
    RequestDuration,
    /// istio_request_bytes.
    RequestSize,
    /// istio_response_bytes.
    ResponseSize,
    /// istio_tcp_connections_opened_total.
    TcpOpenedConnections,
    /// istio_tcp_connections_closed_total.
    TcpClosedConnections,
    /// istio_tcp_sent_bytes_total.
    TcpSentBytes,
    /// istio_tcp_received_bytes_total.
    TcpReceivedBytes,
    /// istio_request_messages_total.
    GrpcRequestMessages,
    /// istio_response_messages_total.
    GrpcResponseMessages,
}

impl IstioMetric {
    /// The API's name (`REQUEST_COUNT`).
    pub fn name(self) -> &'static str {
        match self {
            Self::AllMetrics => "ALL_METRICS",
            Self::RequestCount => "REQUEST_COUNT",
            Self::RequestDuration => "REQUEST_DURATION",
            Self::RequestSize => "REQUEST_SIZE",
            Self::ResponseSize => "RESPONSE_SIZE",
            Self::TcpOpenedConnections => "TCP_OPENED_CONNECTIONS",
            Self::TcpClosedConnections => "TCP_CLOSED_CONNECTIONS",
            Self::TcpSentBytes => "TCP_SENT_BYTES",
            Self::TcpReceivedBytes => "TCP_RECEIVED_BYTES",
            Self::GrpcRequestMessages => "GRPC_REQUEST_MESSAGES",
            Self::GrpcResponseMessages => "GRPC_RESPONSE_MESSAGES",
        }
    }
}

/// A change to a label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("UPSERT needs a value", "((has(self.operation) ? self.operation : \"\") == \"UPSERT\") ? (self.value != \"\") : true"),
    ("REMOVE takes no value", "((has(self.operation) ? self.operation : \"\") == \"REMOVE\") ? !has(self.value) : true"),
])))]
pub struct TagOverride {
    /// Add or remove.
    pub operation: TagOperation,
    /// A CEL expression.
    pub value: String,
}

/// What is done with a label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    /// Add or change it.
    #[default]
    Upsert,
    /// Remove it.
    Remove,
}

/// Access logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogging {
    /// The side this holds for.
    pub r#match: Option<ModeSelector>,
    /// Where lines go.
    pub providers: Vec<ProviderRef>,
    /// Write none.
    pub disabled: Option<bool>,
    /// Which requests are logged.
    pub filter: Option<AccessLogFilter>,
}

/// Which requests are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogFilter {
    /// A CEL expression.
    pub expression: String,
}
