//! Listeners: sockets, filter chains, and what each chain does with a connection.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{HttpAccess, Origin, TcpAccess};

/// A listening socket, or a virtual one that `virtualOutbound` hands connections to by original destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name, unique in the proxy (`0.0.0.0_80`, `10.96.3.1_443`, `virtualOutbound`, `virtualInbound`).
    pub name: String,
    /// The address matched against the original destination (`0.0.0.0` matches every address), or really bound if `bind`.
    pub address: SocketAddr,
    /// Whether a socket is bound. Otherwise connections only come from a listener with `use_original_destination`.
    pub bind: bool,
    /// Hand an accepted connection to the listener that has its original destination; keep it if there is none.
    pub use_original_destination: bool,
    /// Which side of the mesh the traffic is on.
    pub direction: Direction,
    /// The chains; the most specific match wins, by destination port, then address, server name, transport and application protocols.
    pub filter_chains: Vec<FilterChain>,
    /// Used when no chain matches. Without one the connection is closed.
    pub default_filter_chain: Option<FilterChain>,
}

/// The side of the mesh that traffic is on, from the proxy's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To this proxy's workload.
    Inbound,
    /// From this proxy's workload.
    Outbound,
    /// Through a gateway.
    Gateway,
}

/// One way of treating a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterChain {
    /// Its name in configuration dumps and decision trails.
    pub name: String,
    /// Which connections it takes.
    #[serde(default)]
    pub matches: FilterChainMatch,
    /// TLS to terminate first. `None`: the connection is taken as it is.
    pub tls: Option<DownstreamTls>,
    /// What is spoken inside.
    pub protocol: ChainProtocol,
}

/// Which connections a chain takes. An empty field matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterChainMatch {
    /// The original destination port.
    pub destination_port: Option<u16>,
    /// The original destination address is in one of these.
    pub prefix_ranges: Vec<IpNet>,
    /// The TLS server name is one of these; `*.example.com` matches by suffix.
    pub server_names: Vec<String>,
    /// Raw or TLS, as its first bytes tell.
    pub transport: Option<Transport>,
    /// One of these is offered: ALPN names inside TLS (`istio`, `istio-peer-exchange`, `h2`), or what plaintext was seen to be
    /// (`http/1.1`, `h2c`).
    pub application_protocols: Vec<String>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Not a TLS ClientHello.
    Raw,
    /// A TLS ClientHello.
    Tls,
}

/// TLS that the proxy terminates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownstreamTls {
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// Whether and how the client's certificate is asked for.
    pub client_certificate: ClientCertificate,
    /// Lowest version accepted.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Highest version accepted.
    #[serde(default = "TlsVersion::newest")]
    pub max_version: TlsVersion,
    /// Offered by ALPN, in order of preference.
    #[serde(default)]
    pub alpn: Vec<String>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CertificateSource {
    /// The workload's own SPIFFE certificate, issued by the mesh's CA.
    Workload,
    /// A key of [`crate::ProxyConfig::secrets`].
    Secret(String),
    /// Files in the container (`serverCertificate`, `privateKey`, `caCertificates`).
    Files {
        /// PEM chain.
        certificate: String,
        /// PEM key.
        private_key: String,
        /// PEM bundle to verify the peer, if any.
        ca: Option<String>,
    },
}

/// What is asked of a TLS client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientCertificate {
    /// Nothing.
    None,
    /// A certificate of this mesh's CA and trust domains.
    Mesh {
        /// Accepted trust domains.
        trust_domains: Vec<String>,
    },
    /// A certificate signed by the CA of the [`CertificateSource`], with one of these subject alternative names if there are any.
    Required {
        /// Accepted names.
        subject_alt_names: Vec<String>,
    },
    /// The same, but the client may present none.
    Optional,
}

/// TLS protocol versions that rustls speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

impl TlsVersion {
    /// The newest version there is.
    pub fn newest() -> Self {
        Self::V1_3
    }
}

/// What a chain speaks after TLS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ChainProtocol {
    /// HTTP/1.1 and HTTP/2.
    Http(HttpConnection),
    /// Bytes.
    Tcp(TcpProxy),
}

/// An HTTP connection manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConnection {
    /// A key of [`crate::ProxyConfig::routes`].
    pub route_config: String,
    /// Prefix of its statistics (`inbound_0.0.0.0_8080`, `outbound_0.0.0.0_80`).
    pub stat_prefix: String,
    /// What to do with `x-forwarded-for` and `x-forwarded-client-cert` of the client.
    pub edge: EdgePolicy,
    /// Request-level authentication and authorization.
    #[serde(default)]
    pub access: HttpAccess,
    /// A stream that is idle for so long is closed. 0: never.
    #[serde(default)]
    pub stream_idle_timeout_ms: u64,
    /// Path normalization before matching (`meshConfig.pathNormalization`).
    #[serde(default)]
    pub path_normalization: PathNormalization,
}

/// How much of what the client claims is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgePolicy {
    /// A sidecar's outbound side: forwarding headers are left as the application set them, XFCC is dropped.
    SidecarOutbound,
    /// A sidecar's inbound side: the peer is appended to `x-forwarded-client-cert`, `x-forwarded-for` is left.
    SidecarInbound,
    /// A gateway: the peer is appended to `x-forwarded-for`; so many proxies before it are trusted.
    Gateway {
        /// `numTrustedProxies`.
        trusted_proxies: u8,
    },
}

/// How a path is cleaned before it is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathNormalization {
    /// As it came.
    None,
    /// RFC 3986 dot segments.
    #[default]
    Base,
    /// And runs of slashes to one.
    MergeSlashes,
    /// And `%2F`, `%5C` decoded first.
    DecodeAndMergeSlashes,
}

/// A TCP proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// Where connections go, by weight; one entry takes all. `PassthroughCluster` and `BlackHoleCluster` are clusters too.
    pub clusters: Vec<WeightedTcpCluster>,
    /// Connection-level authorization.
    #[serde(default)]
    pub access: TcpAccess,
    /// Idle time after which both sides are closed. 0: never. Istio's default is one hour.
    #[serde(default)]
    pub idle_timeout_ms: u64,
    /// The route that said so.
    pub origin: Option<Origin>,
}

/// A share of TCP connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedTcpCluster {
    /// A key of [`crate::ProxyConfig::clusters`].
    pub cluster: String,
    /// Relative to the sum of all.
    pub weight: u32,
}
