//! `proxy-config cluster`.

use meshlab_proxy_config::{Cluster, Discovery, Origin, ProxyConfig};

use super::table::{or_dash, table};

/// Which clusters to show; an unset field shows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterFilter {
    /// `--fqdn`: part of the host name.
    pub fqdn: Option<String>,
    /// `--port`
    pub port: Option<u16>,
    /// `--subset`
    pub subset: Option<String>,
    /// `--direction`: inbound or outbound.
    pub direction: Option<String>,
}

/// The parts of `outbound|80|v1|reviews.default.svc.cluster.local`.
struct Name<'a> {
    direction: &'a str,
    port: &'a str,
    subset: &'a str,
    host: &'a str,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Self {
        let parts: Vec<_> = name.split('|').collect();
        match parts.as_slice() {
            [direction, port, subset, host] => Self { direction, port, subset, host },
            _ => Self { direction: "", port: "", subset: "", host: name },
        }
    }
}

/// Clusters, sorted by host, subset and port.
pub fn clusters(config: &ProxyConfig, filter: &ClusterFilter) -> String {
    let mut shown: Vec<_> = config.clusters.values().map(|cluster| (Name::parse(&cluster.name), &**cluster)).collect();
    shown.retain(|(name, _)| {
        filter.fqdn.as_ref().is_none_or(|fqdn| name.host.contains(fqdn.as_str()))
            && filter.port.is_none_or(|port| name.port == port.to_string())
            && filter.subset.as_ref().is_none_or(|subset| name.subset == subset)
            && filter.direction.as_ref().is_none_or(|direction| name.direction == direction)
    });
    shown.sort_by_key(|(name, _)| (name.host, name.subset, name.port.parse::<u16>().unwrap_or(0), name.direction));
    let rows = shown.into_iter().map(|(name, cluster)| {
        let (port, subset, direction) = (or_dash(name.port), or_dash(name.subset), or_dash(name.direction));
        [name.host.to_owned(), port, subset, direction, discovery(cluster).to_owned(), rule(cluster)]
    });
    table(["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"], rows)
}

fn discovery(cluster: &Cluster) -> &'static str {
    match cluster.discovery {
        Discovery::Eds => "EDS",
        Discovery::Static(_) => "STATIC",
        Discovery::StrictDns(_) => "STRICT_DNS",
        Discovery::LogicalDns(_) => "LOGICAL_DNS",
        Discovery::OriginalDestination => "ORIGINAL_DST",
    }
}

fn rule(cluster: &Cluster) -> String {
    let origin = cluster.origins.iter().find(|origin| origin.kind == "DestinationRule");
    origin.map(|Origin { name, namespace, .. }| format!("{name}.{namespace}")).unwrap_or_default()
}
