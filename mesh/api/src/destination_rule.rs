//! DestinationRule: what happens to traffic once its destination is chosen.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::schema::at_most_one;
use crate::{Duration, DurationOrZero, LabelSelector, PortSelector};

/// Policies and subsets of a service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["host"]))]
pub struct DestinationRule {
    /// The service; a name without dots is looked up in the resource's own namespace.
    pub host: String,
    /// Policies for the whole service.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named groups of its endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it: `.`, `*`, names.
    pub export_to: Vec<String>,
    /// The clients it applies to; all of the namespace if unset.
    pub workload_selector: Option<LabelSelector>,
}

/// A named group of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// The labels its endpoints have.
    pub labels: BTreeMap<String, String>,
    /// Policies laid over those of the service.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// Policies.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicy {
    /// Load balancing.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTlsSettings>,
    /// Policies of single ports, which replace the above as a whole.
    #[schemars(length(max = 4096))]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnelling through a proxy.
    pub tunnel: Option<TunnelSettings>,
    /// PROXY protocol towards the endpoints.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Share of requests that may be retries.
    pub retry_budget: Option<RetryBudget>,
}

/// Policies of one port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PortTrafficPolicy {
    /// The service's port.
    pub port: Option<PortSelector>,
    /// Load balancing.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTlsSettings>,
}

/// Load balancing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["simple", "consistentHash"])))]
pub struct LoadBalancerSettings {
    /// By name.
    pub simple: Option<SimpleLb>,
    /// By hash.
    pub consistent_hash: Option<ConsistentHashLb>,
    /// By locality.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Deprecated form of warmup.
    pub warmup_duration_secs: Option<Duration>,
    /// Slow start of new endpoints.
    pub warmup: Option<WarmupConfiguration>,
    /// By zone.
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
}

/// Named load balancers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// As LEAST_REQUEST.
    #[default]
    Unspecified,
    /// Deprecated name of LEAST_REQUEST.
    LeastConn,
    /// At random.
    Random,
    /// The address that the client chose.
    Passthrough,
    /// In turn.
    RoundRobin,
    /// The less loaded of two picked at random.
    LeastRequest,
}

/// Load balancing by hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = [
    serde_json::json!({ "oneOf": at_most_one(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"]) }),
    serde_json::json!({ "oneOf": at_most_one(&["ringHash", "maglev"]) }),
]))]
pub struct ConsistentHashLb {
    /// Hash a header.
    pub http_header_name: Option<String>,
    /// Hash a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// Hash the client's address.
    #[schemars(extend("nullable" = false))]
    pub use_source_ip: Option<bool>,
    /// Hash a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// On a ring.
    pub ring_hash: Option<RingHash>,
    /// With a Maglev table.
    pub maglev: Option<Maglev>,
    /// Deprecated form of ringHash.
    pub minimum_ring_size: u64,
}

/// A cookie to hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct HttpCookie {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Its lifetime; 0 is a session cookie, unset makes none.
    pub ttl: Option<DurationOrZero>,
    /// Attributes of a cookie made here.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Ring hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RingHash {
    /// Least number of entries.
    pub minimum_ring_size: u64,
}

/// Maglev.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Maglev {
    /// Table size, a prime.
    pub table_size: u64,
}

/// Slow start.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["duration"]))]
pub struct WarmupConfiguration {
    /// How long.
    pub duration: Option<Duration>,
    /// Least share at the start.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub minimum_percent: Option<f64>,
    /// How fast it rises.
    #[schemars(range(min = 0.0))]
    pub aggression: Option<f64>,
}

/// Preference by locality.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalityLbSetting {
    /// Shares by locality.
    pub distribute: Vec<LocalityDistribute>,
    /// Where to go when a region fails.
    pub failover: Vec<LocalityFailover>,
    /// Labels that decide the priority.
    pub failover_priority: Vec<String>,
    /// On or off.
    pub enabled: Option<bool>,
}

/// Shares of one locality's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LocalityDistribute {
    /// `region/zone/*`.
    pub from: String,
    /// Locality to percent.
    pub to: BTreeMap<String, u32>,
}

/// A region's stand-in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LocalityFailover {
    /// The region that fails.
    pub from: String,
    /// The one that steps in.
    pub to: String,
}

/// Preference by zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneAwareLbSetting {
    /// On or off.
    pub enabled: Option<bool>,
    /// Where to go when a region fails.
    pub failover: Vec<LocalityFailover>,
    /// Labels that decide the priority.
    pub failover_priority: Vec<String>,
    /// Least number of endpoints.
    #[schemars(range(min = 1))]
    pub min_cluster_size: Option<u64>,
}

/// Limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionPoolSettings {
    /// For connections.
    pub tcp: Option<TcpSettings>,
    /// For requests.
    pub http: Option<HttpSettings>,
}

/// Limits for connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpSettings {
    /// Connections at once; 0 is no limit.
    pub max_connections: i32,
    /// Limit for connecting; 10s if unset.
    pub connect_timeout: Option<Duration>,
    /// Keep-alive probes.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Idle time after which a connection is closed; 0s is never.
    pub idle_timeout: Option<DurationOrZero>,
}

/// TCP keep-alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TcpKeepalive {
    /// Unanswered probes.
    pub probes: u32,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Limits for requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSettings {
    /// Requests that wait for a connection; 0 is no limit.
    pub http1_max_pending_requests: i32,
    /// Requests under way; 0 is no limit.
    pub http2_max_requests: i32,
    /// Requests after which a connection is closed; 0 is never.
    pub max_requests_per_connection: i32,
    /// Retries under way; 0 is no limit.
    pub max_retries: i32,
    /// Idle time after which a connection is closed.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 is upgraded to HTTP/2.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Keep the client's protocol.
    pub use_client_protocol: bool,
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: i32,
    /// HTTP/2 pings.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// HTTP/2 pings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2KeepAlive {
    /// Between pings.
    pub interval: Option<Duration>,
    /// Limit for the answer.
    pub timeout: Option<Duration>,
}

/// Whether HTTP/1.1 is upgraded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    #[default]
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

/// Ejection of failing endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetection {
    /// Deprecated.
    pub consecutive_errors: i32,
    /// Count failures to connect apart.
    pub split_external_local_origin_errors: bool,
    /// Failures to connect in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row; 0 is off.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 5 if unset, 0 is off.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Between sweeps; 10s if unset.
    pub interval: Option<Duration>,
    /// Shortest ejection; 30s if unset.
    pub base_ejection_time: Option<Duration>,
    /// Largest share ejected; 10 if 0.
    pub max_ejection_percent: i32,
    /// Below this share of healthy endpoints ejections are ignored.
    pub min_health_percent: i32,
    /// Status codes that count as errors.
    #[schemars(inner(range(min = 100, max = 599)))]
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// TLS to the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTlsSettings {
    /// Which kind.
    pub mode: TlsMode,
    /// File of the client certificate.
    pub client_certificate: String,
    /// File of its key.
    pub private_key: String,
    /// File of the CA certificates.
    pub ca_certificates: String,
    /// Secret that has them.
    pub credential_name: String,
    /// Names the server may have.
    pub subject_alt_names: Vec<String>,
    /// Server name sent.
    pub sni: String,
    /// Skip verification.
    pub insecure_skip_verify: Option<bool>,
    /// File of a revocation list.
    pub ca_crl: String,
}

/// Kinds of TLS to the endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// Plaintext.
    #[default]
    Disable,
    /// Server authentication only.
    Simple,
    /// With the certificate given here.
    Mutual,
    /// With the mesh's certificates.
    IstioMutual,
}

/// Tunnelling.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["targetHost", "targetPort"]))]
pub struct TunnelSettings {
    /// CONNECT or POST.
    pub protocol: String,
    /// Where the tunnel ends.
    pub target_host: String,
    /// Its port.
    pub target_port: u32,
}

/// PROXY protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Version.
    pub version: ProxyProtocolVersion,
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProxyProtocolVersion {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// Limit of concurrent retries.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// Share of active requests.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
    /// Retries always allowed.
    pub min_retry_concurrency: u32,
    /// Window of the budget.
    pub budget_interval: Option<DurationOrZero>,
}
