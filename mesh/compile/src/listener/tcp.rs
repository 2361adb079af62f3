//! Where connections go: `tcp` and `tls` rules of VirtualServices, or the service itself.

use std::sync::Arc;

use ipnet::IpNet;
use meshlab_istio_api::{L4MatchAttributes, RouteDestination, TlsMatchAttributes};
use meshlab_proxy_config::{ChainProtocol, FilterChain, FilterChainMatch, TcpAccess, TcpProxy, WeightedTcpCluster};

use super::{TCP_IDLE_TIMEOUT_MS, tcp_chain};
use crate::cluster::cluster_name;
use crate::destination_rule::policy_for_port;
use crate::host;
use crate::kubernetes::Labels;
use crate::proxy::RouteClient;
use crate::registry::{MeshService, origin, selects};
use crate::route::Lookup;
use crate::traffic::Traffic;
use crate::virtual_service::ResolvedVirtualService;

/// For whom connections are routed.
pub(super) struct TcpContext<'a, 'b> {
    /// All there is.
    pub traffic: &'a Traffic,
    /// Who sends.
    pub client: &'b RouteClient,
    /// `mesh`, or the gateway.
    pub gateway: &'b str,
    /// The port that connections are addressed to.
    pub port: u16,
    /// Finds services.
    pub lookup: &'b Lookup<'a>,
}

impl TcpContext<'_, '_> {
    /// Whether the parts of a match that are known now hold.
    pub(super) fn applies(&self, gateways: &[String], labels: &Labels, port: u32, namespace: &str) -> bool {
        (gateways.is_empty() || gateways.iter().any(|gateway| gateway == self.gateway))
            && selects(labels, &self.client.labels)
            && (port == 0 || port == u32::from(self.port))
            && (namespace.is_empty() || namespace == self.client.namespace)
    }

    pub(super) fn applies_tcp(&self, m: &L4MatchAttributes) -> bool {
        self.applies(&m.gateways, &m.source_labels, m.port, &m.source_namespace)
    }

    pub(super) fn applies_tls(&self, m: &TlsMatchAttributes) -> bool {
        self.applies(&m.gateways, &m.source_labels, m.port, &m.source_namespace)
    }

    /// How long connections to a service may be idle: what its DestinationRule says, else an hour.
    fn idle_timeout_ms(&self, service: &MeshService, port: u16) -> u64 {
        let rule = self.traffic.rule(service, self.client);
        let pool = rule.and_then(|rule| policy_for_port(rule.traffic_policy.as_ref(), port).connection_pool);
        let timeout = pool.and_then(|pool| pool.tcp).and_then(|tcp| tcp.idle_timeout);
        timeout.map_or(TCP_IDLE_TIMEOUT_MS, |timeout| timeout.0.millis())
    }

    /// A proxy for a rule's destinations.
    pub(super) fn proxy(&self, vs: &ResolvedVirtualService, path: &str, routes: &[RouteDestination]) -> TcpProxy {
        let single = routes.len() == 1;
        let mut idle_timeout_ms = TCP_IDLE_TIMEOUT_MS;
        let clusters: Vec<WeightedTcpCluster> = routes
            .iter()
            .filter(|route| single || route.weight > 0)
            .map(|route| {
                let service = (self.lookup)(&route.destination.host);
                let ports = service.map(|service| service.ports.as_slice());
                let port = crate::route::destination_port(&route.destination, ports, self.port);
                if let Some(service) = service.filter(|_| single) {
                    idle_timeout_ms = self.idle_timeout_ms(service, port);
                }
                let weight = if single { 1 } else { u32::try_from(route.weight).unwrap_or(0) };
                WeightedTcpCluster { cluster: cluster_name(port, &route.destination.subset, &route.destination.host), weight }
            })
            .collect();
        let stat_prefix = match clusters.as_slice() {
            [only] => only.cluster.clone(),
            _ => format!("{}.{}", vs.name, vs.namespace),
        };
        TcpProxy {
            stat_prefix,
            clusters,
            access: TcpAccess::default(),
            idle_timeout_ms,
            origin: Some(origin("VirtualService", &vs.namespace, &vs.name, path)),
        }
    }
}

/// The chains for connections to a service's port, the more specific first. `ranges` are the service's own address blocks.
pub(super) fn service_chains(
    service: &MeshService,
    virtual_services: &[&Arc<ResolvedVirtualService>],
    ranges: &[IpNet],
    by_name: bool,
    tls: bool,
    context: &TcpContext<'_, '_>,
) -> Vec<FilterChain> {
    let relevant = virtual_services
        .iter()
        .filter(|vs| !(vs.tls.is_empty() && vs.tcp.is_empty()))
        .filter(|vs| vs.hosts.iter().any(|name| host::matches(name, &service.host)));
    if tls { tls_chains(service, relevant, ranges, by_name, context) } else { tcp_chains(service, relevant, ranges, context) }
}

fn tls_chains<'a>(
    service: &MeshService,
    virtual_services: impl Iterator<Item = &'a &'a Arc<ResolvedVirtualService>>,
    ranges: &[IpNet],
    by_name: bool,
    context: &TcpContext<'_, '_>,
) -> Vec<FilterChain> {
    let mut out: Vec<FilterChain> = Vec::new();
    for vs in virtual_services {
        for (index, rule) in vs.tls.iter().enumerate().filter(|(_, rule)| !rule.route.is_empty()) {
            for (entry, m) in rule.r#match.iter().enumerate().filter(|(_, m)| context.applies_tls(m)) {
                let prefix_ranges =
                    if m.destination_subnets.is_empty() { ranges.to_vec() } else { subnets(&m.destination_subnets) };
                let matches = FilterChainMatch {
                    server_names: m.sni_hosts.iter().map(|name| name.to_lowercase()).collect(),
                    prefix_ranges,
                    ..Default::default()
                };
                // Of two with the same conditions the first is taken.
                if out.iter().any(|chain| chain.matches == matches) {
                    continue;
                }
                let path = format!("spec.tls[{index}].match[{entry}]");
                let proxy = context.proxy(vs, &path, &rule.route);
                out.push(FilterChain {
                    name: proxy.stat_prefix.clone(),
                    matches,
                    tls: None,
                    protocol: ChainProtocol::Tcp(proxy),
                });
            }
        }
    }
    if out.is_empty() {
        let server_names = if by_name && service.host != "*" { vec![service.host.clone()] } else { Vec::new() };
        let matches = FilterChainMatch { server_names, prefix_ranges: ranges.to_vec(), ..Default::default() };
        out.push(own_chain(service, matches, context));
    }
    out
}

fn tcp_chains<'a>(
    service: &MeshService,
    virtual_services: impl Iterator<Item = &'a &'a Arc<ResolvedVirtualService>>,
    ranges: &[IpNet],
    context: &TcpContext<'_, '_>,
) -> Vec<FilterChain> {
    let mut out = Vec::new();
    let chain = |vs: &ResolvedVirtualService, index: usize, prefix_ranges: Vec<IpNet>| {
        let proxy = context.proxy(vs, &format!("spec.tcp[{index}]"), &vs.tcp[index].route);
        let matches = FilterChainMatch { prefix_ranges, ..Default::default() };
        FilterChain { name: proxy.stat_prefix.clone(), matches, tls: None, protocol: ChainProtocol::Tcp(proxy) }
    };
    for vs in virtual_services {
        for (index, rule) in vs.tcp.iter().enumerate().filter(|(_, rule)| !rule.route.is_empty()) {
            let mut narrowed = Vec::new();
            let entries: Vec<_> = rule.r#match.iter().filter(|m| context.applies_tcp(m)).collect();
            // The first rule that takes every address ends the list.
            if rule.r#match.is_empty() || entries.iter().any(|m| m.destination_subnets.is_empty()) {
                out.push(chain(vs, index, ranges.to_vec()));
                return out;
            }
            for m in entries {
                narrowed.extend(subnets(&m.destination_subnets));
            }
            if !narrowed.is_empty() {
                out.push(chain(vs, index, narrowed));
            }
        }
    }
    let matches = FilterChainMatch { prefix_ranges: ranges.to_vec(), ..Default::default() };
    if !out.iter().any(|chain: &FilterChain| chain.matches == matches) {
        out.push(own_chain(service, matches, context));
    }
    out
}

/// The chain to the service itself: on another port than its own (a Sidecar's), to its only port.
fn own_chain(service: &MeshService, matches: FilterChainMatch, context: &TcpContext<'_, '_>) -> FilterChain {
    let port = match service.ports.as_slice() {
        [only] => only.number,
        _ => context.port,
    };
    let cluster = cluster_name(port, "", &service.host);
    let mut chain = tcp_chain(&cluster, matches, &cluster, TcpAccess::default());
    if let ChainProtocol::Tcp(proxy) = &mut chain.protocol {
        proxy.idle_timeout_ms = context.idle_timeout_ms(service, port);
    }
    chain
}

/// Address blocks; a single address is a block of one. What is neither is refused by validation.
pub(super) fn subnets(list: &[String]) -> Vec<IpNet> {
    list.iter()
        .filter_map(|text| text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from)))
        .collect()
}
