//! Listeners: a sidecar's outbound and inbound side, and a gateway's servers.

pub(crate) mod gateway;
pub(crate) mod inbound;
pub(crate) mod outbound;
mod tcp;

use meshlab_proxy_config::{
    ChainProtocol, EdgePolicy, FilterChain, FilterChainMatch, HttpAccess, HttpConnection, PathNormalization, TcpAccess, TcpProxy,
};

use crate::mesh_config::MeshConfig;

/// Istio's idle time of a TCP connection.
const TCP_IDLE_TIMEOUT_MS: u64 = 3_600_000;
/// What plaintext HTTP is seen to be.
const PLAINTEXT_HTTP: [&str; 2] = ["http/1.1", "h2c"];

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// A chain that forwards bytes to one cluster.
fn tcp_chain(name: &str, matches: FilterChainMatch, cluster: &str, access: TcpAccess) -> FilterChain {
    FilterChain { name: name.into(), matches, tls: None, protocol: ChainProtocol::Tcp(tcp_proxy(cluster, access)) }
}

fn tcp_proxy(cluster: &str, access: TcpAccess) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.into(),
        clusters: vec![meshlab_proxy_config::WeightedTcpCluster { cluster: cluster.into(), weight: 1 }],
        access,
        idle_timeout_ms: TCP_IDLE_TIMEOUT_MS,
        origin: None,
    }
}

fn http_connection(
    route_config: String,
    stat_prefix: String,
    edge: EdgePolicy,
    access: HttpAccess,
    mesh: &MeshConfig,
) -> HttpConnection {
    HttpConnection {
        route_config,
        stat_prefix,
        edge,
        access,
        stream_idle_timeout_ms: 0,
        path_normalization: path_normalization(mesh),
    }
}

fn path_normalization(mesh: &MeshConfig) -> PathNormalization {
    match mesh.path_normalization.normalization.as_str() {
        "NONE" => PathNormalization::None,
        "MERGE_SLASHES" => PathNormalization::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => PathNormalization::DecodeAndMergeSlashes,
        _ => PathNormalization::Base,
    }
}
