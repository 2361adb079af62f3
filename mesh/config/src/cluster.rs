//! Upstream clusters and their endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{CertificateSource, Origin, TlsVersion};

/// A group of endpoints that are one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// `outbound|PORT|SUBSET|HOST`, `inbound|PORT||`, `PassthroughCluster`, `BlackHoleCluster`, `InboundPassthroughCluster`.
    pub name: String,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one is chosen.
    pub load_balancer: LoadBalancer,
    /// Limit for the TCP connection and TLS handshake. Istio's default is 10 s.
    pub connect_timeout_ms: u64,
    /// What is spoken to it.
    pub protocol: UpstreamProtocol,
    /// TLS.
    pub tls: UpstreamTls,
    /// Limits; beyond them requests fail at once with 503 and flag UO.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
    /// Ejection of endpoints that fail.
    pub outlier_detection: Option<OutlierDetection>,
    /// Requests after which a connection is closed. 0: no limit.
    #[serde(default)]
    pub max_requests_per_connection: u32,
    /// An upstream connection without requests is closed after this. 0: never. Istio's default is one hour.
    #[serde(default)]
    pub idle_timeout_ms: u64,
    /// TCP keep-alive on upstream connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// PROXY protocol sent to the upstream (`proxyProtocol.version`).
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What telemetry calls it.
    pub service: ServiceIdentity,
    /// The service entry, service or destination rule it comes from.
    #[serde(default)]
    pub origins: Vec<Origin>,
}

/// How telemetry and traces name a cluster's service (`destination_service`, `_name`, `_namespace`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceIdentity {
    /// Full host name.
    pub host: String,
    /// Short name, or `PassthroughCluster` and the like.
    pub name: String,
    /// Namespace; `unknown` outside the mesh.
    pub namespace: String,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Discovery {
    /// From [`crate::ProxyConfig::endpoints`], by the cluster's name.
    Eds,
    /// Fixed.
    Static(Endpoints),
    /// Names resolved again and again; every address is an endpoint (`resolution: DNS`).
    StrictDns(Vec<DnsEndpoint>),
    /// A name resolved when a connection is made, first address used (`DNS_ROUND_ROBIN`).
    LogicalDns(Vec<DnsEndpoint>),
    /// The connection's original destination.
    OriginalDestination,
}

/// A named endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsEndpoint {
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Relative weight.
    pub weight: u32,
    /// What else is known of it.
    #[serde(default)]
    pub metadata: EndpointMetadata,
}

/// The members of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoints {
    /// All that are ready.
    pub endpoints: Vec<Endpoint>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Relative weight.
    pub weight: u32,
    /// Locality priority; a lower number is used first, and the next only as it becomes unhealthy.
    #[serde(default)]
    pub priority: u32,
    /// What else is known of it.
    #[serde(default)]
    pub metadata: EndpointMetadata,
}

/// What is known of an endpoint beyond its address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointMetadata {
    /// It has a sidecar that takes mutual TLS, and its policy does not forbid it (auto-mTLS).
    pub mtls: bool,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Workload name (`reviews-v1`).
    pub workload: String,
    /// Namespace.
    pub namespace: String,
    /// SPIFFE identity expected of it, if known.
    pub identity: Option<String>,
    /// Pod labels, for telemetry (`app`, `version`, canonical service and revision).
    pub labels: BTreeMap<String, String>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LoadBalancer {
    /// The less loaded of two picked at random.
    LeastRequest {
        /// Newcomers are warmed up over this time. 0: no warm-up.
        warmup_ms: u64,
    },
    /// In turn.
    RoundRobin {
        /// As above.
        warmup_ms: u64,
    },
    /// At random.
    Random,
    /// By hash on a ring.
    RingHash {
        /// Least number of ring entries; Istio's default is 1024.
        minimum_ring_size: u64,
    },
    /// By hash with a Maglev table.
    Maglev {
        /// Table size, a prime; Envoy's default is 65537.
        table_size: u64,
    },
    /// None: the original destination.
    Passthrough,
}

/// What is spoken to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, or by ALPN inside TLS.
    Http2,
    /// The protocol that the client used.
    SameAsDownstream,
    /// Bytes.
    Tcp,
}

/// TLS to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UpstreamTls {
    /// Plaintext.
    Disable,
    /// Mesh mutual TLS to the endpoints that take it ([`EndpointMetadata::mtls`]), plaintext to the others.
    Auto(MeshTls),
    /// Mesh mutual TLS to all (`ISTIO_MUTUAL`).
    Mesh(MeshTls),
    /// TLS of one's own (`SIMPLE`, `MUTUAL`).
    Custom {
        /// Server name sent.
        sni: Option<String>,
        /// The client's certificate, for `MUTUAL`.
        client_certificate: Option<CertificateSource>,
        /// What verifies the server. `None` takes the machine's trust store.
        ca: Option<CertificateSource>,
        /// Accepted names of the server; empty: its host name (the SNI) must fit.
        subject_alt_names: Vec<String>,
        /// No verification at all (`insecureSkipVerify`).
        skip_verification: bool,
        /// Lowest version.
        min_version: TlsVersion,
    },
}

/// Mutual TLS inside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshTls {
    /// `outbound_.80_.v1_.reviews.default.svc.cluster.local`.
    pub sni: String,
    /// ALPN offered: `istio-peer-exchange`, `istio`, and `istio-h2` or `istio-http/1.1` for HTTP.
    pub alpn: Vec<String>,
    /// SPIFFE identities the server may have; empty: any of the mesh.
    pub subject_alt_names: Vec<String>,
}

/// Connection and request limits, for the whole proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Connections (`tcp.maxConnections`).
    pub max_connections: u32,
    /// Requests that wait for a connection (`http1MaxPendingRequests`).
    pub max_pending_requests: u32,
    /// Requests under way (`http2MaxRequests`).
    pub max_requests: u32,
    /// Retries under way (`maxRetries`).
    pub max_retries: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { max_connections: u32::MAX, max_pending_requests: u32::MAX, max_requests: u32::MAX, max_retries: u32::MAX }
    }
}

/// Passive health checking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlierDetection {
    /// 5xx in a row that eject; 0: off.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row that eject; 0: off.
    pub consecutive_gateway_errors: u32,
    /// Count failures to connect apart from errors that the upstream answered.
    #[serde(default)]
    pub split_local_errors: bool,
    /// Local errors in a row that eject, if split; 0: off.
    #[serde(default)]
    pub consecutive_local_origin_failures: u32,
    /// Between sweeps.
    pub interval_ms: u64,
    /// An ejection lasts this times the number of ejections.
    pub base_ejection_ms: u64,
    /// At most so many hundredths of the endpoints are ejected.
    pub max_ejection_percent: u32,
    /// Below this share of healthy endpoints all are used; 0: never.
    pub min_health_percent: u32,
}

/// TCP keep-alive; unset fields are the operating system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpKeepalive {
    /// Unanswered probes.
    pub probes: Option<u32>,
    /// Idle seconds before the first.
    pub time_s: Option<u32>,
    /// Seconds between.
    pub interval_s: Option<u32>,
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}
