//! MeshConfig: what holds for the whole mesh. Fields that are not known are ignored, as Istio ignores them in an older control plane.

use std::collections::BTreeMap;

use meshlab_istio_api::{Duration, HttpRetry, LocalityLbSetting, OutboundMode, TcpKeepalive};
use serde::Deserialize;
use serde_json::Value;

/// The mesh's configuration (`mesh` in ConfigMap `istio`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshConfig {
    /// `/dev/stdout` writes access logs; empty writes none.
    pub access_log_file: String,
    /// A format of one's own.
    pub access_log_format: String,
    /// TEXT or JSON.
    pub access_log_encoding: String,
    /// Whether spans are made for the tracer of `defaultConfig`.
    pub enable_tracing: bool,
    /// Settings of every proxy.
    pub default_config: DefaultConfig,
    /// What is done with unknown destinations.
    pub outbound_traffic_policy: OutboundPolicy,
    /// Mutual TLS without a DestinationRule.
    pub enable_auto_mtls: bool,
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Trust domains that count as the same.
    pub trust_domain_aliases: Vec<String>,
    /// The namespace whose policies hold for the whole mesh.
    pub root_namespace: String,
    /// `exportTo` of services that have none.
    pub default_service_export_to: Vec<String>,
    /// `exportTo` of VirtualServices that have none.
    pub default_virtual_service_export_to: Vec<String>,
    /// `exportTo` of DestinationRules that have none.
    pub default_destination_rule_export_to: Vec<String>,
    /// Preference by locality.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Loggers, tracers and authorizers that policies name.
    pub extension_providers: Vec<ExtensionProvider>,
    /// Providers used when a policy names none.
    pub default_providers: DefaultProviders,
    /// Path clean-up before matching.
    pub path_normalization: PathNormalizationSetting,
    /// Limit for connecting.
    pub connect_timeout: Option<Duration>,
    /// Keep-alive of upstream connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Retries of routes that say nothing.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// UPGRADE makes HTTP/2 the default between proxies.
    pub h2_upgrade_policy: String,
    /// Suffix of service names.
    pub domain_suffix: String,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: "TEXT".into(),
            enable_tracing: true,
            default_config: DefaultConfig::default(),
            outbound_traffic_policy: OutboundPolicy::default(),
            enable_auto_mtls: true,
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            default_service_export_to: vec!["*".into()],
            default_virtual_service_export_to: vec!["*".into()],
            default_destination_rule_export_to: vec!["*".into()],
            locality_lb_setting: Some(LocalityLbSetting { enabled: Some(true), ..Default::default() }),
            extension_providers: Vec::new(),
            default_providers: DefaultProviders::default(),
            path_normalization: PathNormalizationSetting::default(),
            connect_timeout: None,
            tcp_keepalive: None,
            default_http_retry_policy: None,
            h2_upgrade_policy: String::new(),
            domain_suffix: "cluster.local".into(),
        }
    }
}

/// What is done with unknown destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutboundPolicy {
    /// ALLOW_ANY or REGISTRY_ONLY.
    pub mode: OutboundMode,
}

/// The part of `defaultConfig` that the compiler looks at.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultConfig {
    /// Tracing of proxies without a Telemetry resource.
    pub tracing: ProxyTracing,
    /// What is in front of gateways.
    pub gateway_topology: GatewayTopology,
}

/// `defaultConfig.tracing`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyTracing {
    /// Where Zipkin spans go.
    pub zipkin: Option<Address>,
    /// Share of requests traced; 1 if unset.
    pub sampling: Option<f64>,
}

/// `host:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `zipkin.istio-system:9411`
    pub address: String,
}

/// `defaultConfig.gatewayTopology`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayTopology {
    /// Proxies in front of a gateway that are believed.
    pub num_trusted_proxies: u8,
}

/// `meshConfig.pathNormalization`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PathNormalizationSetting {
    /// DEFAULT, NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES.
    pub normalization: String,
}

/// Providers used when a policy names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultProviders {
    /// For traces.
    pub tracing: Vec<String>,
    /// For metrics.
    pub metrics: Vec<String>,
    /// For access logs.
    pub access_logging: Vec<String>,
}

/// A provider.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtensionProvider {
    /// Its name.
    pub name: String,
    /// A Zipkin receiver.
    pub zipkin: Option<TracingProvider>,
    /// An OpenTelemetry receiver.
    pub opentelemetry: Option<TracingProvider>,
    /// An access log file.
    pub envoy_file_access_log: Option<FileAccessLog>,
    /// Prometheus; metrics are always served.
    pub prometheus: Option<Value>,
    /// An external authorizer over HTTP.
    pub envoy_ext_authz_http: Option<ExtAuthz>,
    /// An external authorizer over gRPC.
    pub envoy_ext_authz_grpc: Option<ExtAuthz>,
}

/// A receiver of spans.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TracingProvider {
    /// Its service: `host` or `namespace/host`.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// OTLP over HTTP instead of gRPC.
    pub http: Option<Value>,
}

/// An access log file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FileAccessLog {
    /// Where.
    pub path: String,
    /// How a line looks.
    pub log_format: Option<LogFormat>,
}

/// How an access log line looks.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LogFormat {
    /// As text.
    pub text: Option<String>,
    /// As JSON.
    pub labels: Option<BTreeMap<String, String>>,
}

/// An external authorizer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtAuthz {
    /// Its service: `host` or `namespace/host`.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// Limit of one question; ten minutes if unset.
    pub timeout: Option<Duration>,
    /// Let requests through when it does not answer.
    pub fail_open: bool,
    /// Status when it does not answer.
    pub status_on_error: String,
    /// Put before the path.
    pub path_prefix: String,
    /// Request headers sent along.
    pub include_request_headers_in_check: Vec<String>,
    /// Deprecated form of the same.
    pub include_headers_in_check: Vec<String>,
    /// Headers added to the question.
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// Body sent along.
    pub include_request_body_in_check: Option<RequestBody>,
    /// Headers of an OK answer laid over the request.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of a denial passed to the client.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Headers of an OK answer passed to the client.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// The body sent to an authorizer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestBody {
    /// Bytes at most.
    pub max_request_bytes: u32,
}
