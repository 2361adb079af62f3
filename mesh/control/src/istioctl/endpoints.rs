//! `proxy-config endpoint`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use meshlab_proxy_config::{Discovery, ProxyConfig};

use super::table::table;

/// Which endpoints to show; an unset field shows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointFilter {
    /// `--address`
    pub address: Option<String>,
    /// `--port`
    pub port: Option<u16>,
    /// `--cluster`, the full name.
    pub cluster: Option<String>,
}

/// Members of clusters, sorted by address. `ejected` holds what the proxy's outlier detection has taken out, by cluster and address.
pub fn endpoints(config: &ProxyConfig, ejected: &BTreeSet<(String, SocketAddr)>, filter: &EndpointFilter) -> String {
    let mut rows = Vec::new();
    for cluster in config.clusters.values() {
        let members = match &cluster.discovery {
            Discovery::Eds => config.endpoints.get(&cluster.name).map(|members| &**members),
            Discovery::Static(members) => Some(members),
            _ => None,
        };
        for endpoint in members.iter().flat_map(|members| &members.endpoints) {
            let address = endpoint.address;
            let wanted = filter.address.as_ref().is_none_or(|wanted| address.ip().to_string() == *wanted)
                && filter.port.is_none_or(|port| address.port() == port)
                && filter.cluster.as_ref().is_none_or(|wanted| cluster.name == *wanted);
            if wanted {
                rows.push((address, cluster.name.clone()));
            }
        }
    }
    rows.sort();
    let rows = rows.into_iter().map(|(address, cluster)| {
        let check = if ejected.contains(&(cluster.clone(), address)) { "FAILED" } else { "OK" };
        [address.to_string(), "HEALTHY".to_owned(), check.to_owned(), cluster]
    });
    table(["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"], rows)
}
