//! What a proxy measures, traces and logs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Fraction;

/// Telemetry of one proxy, merged from mesh configuration and Telemetry resources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Who this workload is in labels.
    pub workload: WorkloadLabels,
    /// Metrics that are changed or switched off.
    pub metrics: Vec<MetricOverride>,
    /// Tracing; `None`: no spans.
    pub tracing: Option<Tracing>,
    /// Access logs written, in order.
    pub access_logs: Vec<AccessLog>,
}

/// The values of the `source_*` or `destination_*` labels of this workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadLabels {
    /// `reviews-v1`.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// `service.istio.io/canonical-name`.
    pub canonical_service: String,
    /// `service.istio.io/canonical-revision`.
    pub canonical_revision: String,
    /// Cluster id, `Kubernetes`.
    pub cluster: String,
    /// SPIFFE identity.
    pub principal: String,
}

/// A change to one metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricOverride {
    /// Istio's name (`REQUEST_COUNT`), or `ALL_METRICS`.
    pub metric: String,
    /// Side it applies to; `None`: both.
    pub client: Option<bool>,
    /// Switched off.
    pub disabled: bool,
    /// Labels changed to a CEL expression or removed (`None`).
    pub tags: BTreeMap<String, Option<String>>,
}

/// Where and how often spans go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// Share of requests that start a trace here.
    pub sampling: Fraction,
    /// Receiver: a cluster of this proxy.
    pub cluster: String,
    /// What it takes.
    pub exporter: SpanExporter,
    /// `service.name` of the spans.
    pub service_name: String,
    /// Tags added to each span.
    #[serde(default)]
    pub custom_tags: BTreeMap<String, CustomTag>,
}

/// The wire format of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanExporter {
    /// Zipkin JSON v2, B3 headers.
    Zipkin,
    /// OTLP over gRPC, W3C headers.
    OtlpGrpc,
    /// OTLP over HTTP, W3C headers.
    OtlpHttp,
}

/// A tag added to spans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CustomTag {
    /// Always this.
    Literal(String),
    /// An environment variable.
    Environment {
        /// Name.
        name: String,
        /// When it is not set.
        default: String,
    },
    /// A request header.
    Header {
        /// Name.
        name: String,
        /// When it is not there.
        default: String,
    },
}

/// One access log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// How a line looks.
    pub format: LogFormat,
    /// CEL filter, as Telemetry's `filter.expression`.
    pub filter: Option<String>,
    /// Client side, server side or (`None`) both.
    pub client: Option<bool>,
}

/// The form of a log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LogFormat {
    /// Text with Envoy's command operators; ends in a newline.
    Text(String),
    /// JSON: key and operator.
    Json(BTreeMap<String, String>),
}
