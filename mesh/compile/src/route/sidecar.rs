//! A sidecar's outbound route tables: one for each port, and one for each address whose protocol is found out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use meshlab_istio_api::OutboundMode;
use meshlab_proxy_config::{Forward, HeaderOperations, Route, RouteAction, RouteConfiguration, VirtualHost};

use super::{RouteContext, default_retry, default_route, everything, http_routes, plain_forward, whole};
use crate::cluster::{PASSTHROUGH, cluster_name};
use crate::host;
use crate::proxy::ProxyIdentity;
use crate::registry::{MeshService, Registry, Resolution};
use crate::scope::{Egress, Scope};
use crate::snapshot::Snapshot;
use crate::virtual_service::ResolvedVirtualService;

/// The route table of a port.
pub(crate) fn sidecar_route(
    snapshot: &Snapshot,
    proxy: &ProxyIdentity,
    scope: &Scope<'_>,
    egress: &Egress<'_>,
    port: u16,
) -> RouteConfiguration {
    let mut virtual_hosts = port_virtual_hosts(snapshot, proxy, egress, port);
    virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
    // A VirtualService for every host is refused by validation; where there is none, it has what the mesh would have.
    if !virtual_hosts.iter().any(|virtual_host| virtual_host.domains.iter().any(|domain| domain == "*")) {
        virtual_hosts.push(catch_all(scope));
    }
    RouteConfiguration::new(port.to_string(), virtual_hosts.into_iter().map(Arc::new).collect(), true)
}

/// The route table of one service's address, from its port's virtual hosts: its own takes every name.
pub(crate) fn sniffed_route(port_hosts: &[VirtualHost], service: &MeshService, port: u16) -> RouteConfiguration {
    let name = format!("{}:{port}", service.host);
    let own = port_hosts.iter().find(|virtual_host| virtual_host.name == name).cloned();
    let virtual_hosts = own.map(|own| Arc::new(VirtualHost { domains: vec!["*".into()], ..own })).into_iter().collect();
    RouteConfiguration::new(name, virtual_hosts, true)
}

/// The virtual hosts of a port.
pub(crate) fn port_virtual_hosts(snapshot: &Snapshot, proxy: &ProxyIdentity, egress: &Egress<'_>, port: u16) -> Vec<VirtualHost> {
    let on_port: Vec<&Arc<MeshService>> =
        egress.services.iter().filter(|service| service.port(port).is_some()).copied().collect();
    let by_host: HashMap<&str, &Arc<MeshService>> = on_port.iter().map(|service| (service.host.as_str(), *service)).collect();
    let lookup = |name: &str| egress.by_host.get(name).copied().or_else(|| snapshot.service(name, &proxy.namespace));
    let context = RouteContext {
        snapshot,
        namespace: &proxy.namespace,
        labels: &proxy.labels,
        gateway: "mesh",
        port,
        tls: false,
        lookup: &lookup,
    };

    let groups: Vec<Group<'_>> = egress
        .virtual_services
        .iter()
        .filter_map(|vs| {
            let (hosts, services) = hosts_and_services(vs, &on_port, &by_host, egress);
            let http = services.iter().any(|service| is_http(service, port));
            // A VirtualService for hosts outside the registry has an effect on port 80 only.
            (http || port == 80).then_some((vs.as_ref(), hosts, services))
        })
        .collect();

    let mut out = Output::new(on_port.iter().map(|service| service.host.as_str()));
    let mut routed: HashSet<&str> = HashSet::new();
    for (vs, hosts, services) in &groups {
        let routes = http_routes(vs, &context);
        if routes.is_empty() {
            continue;
        }
        for name in hosts {
            out.push(name, port, vec![(*name).to_owned()], &[], routes.clone());
        }
        for service in services.iter().filter(|service| is_http(service, port)) {
            routed.insert(&service.host);
            let (domains, short) = domains(service, &proxy.namespace, &snapshot.sources().mesh.domain_suffix);
            out.push(&service.host, port, domains, &short, routes.clone());
        }
    }
    for service in on_port.iter().filter(|service| is_http(service, port) && !routed.contains(service.host.as_str())) {
        let (domains, short) = domains(service, &proxy.namespace, &snapshot.sources().mesh.domain_suffix);
        out.push(&service.host, port, domains, &short, vec![service_route(service, port, &context)]);
    }
    out.virtual_hosts
}

/// A VirtualService with its names outside the registry and its services.
type Group<'a> = (&'a ResolvedVirtualService, Vec<&'a str>, Vec<&'a Arc<MeshService>>);

fn is_http(service: &MeshService, port: u16) -> bool {
    service.port(port).is_some_and(|port| port.protocol.is_http_or_sniffed())
}

/// The route of a service that no VirtualService speaks of.
fn service_route(service: &MeshService, port: u16, context: &RouteContext<'_, '_>) -> Route {
    let hash = context.hash_policy(service, "", port);
    let retry = match &context.snapshot.sources().mesh.default_http_retry_policy {
        Some(policy) => super::policy::retry(Some(policy), false),
        None => Some(default_retry(false)),
    };
    let forward = Forward { retry, hash_policy: hash.into_iter().collect(), ..plain_forward() };
    default_route(cluster_name(port, "", &service.host), format!("{}:{port}/*", service.host), forward)
}

/// A VirtualService's hosts, parted into services on this port and other names. A service belongs to the VirtualService that names
/// it, else to the one with the most specific wildcard.
fn hosts_and_services<'a>(
    vs: &'a Arc<ResolvedVirtualService>,
    on_port: &[&'a Arc<MeshService>],
    by_host: &HashMap<&str, &'a Arc<MeshService>>,
    egress: &Egress<'_>,
) -> (Vec<&'a str>, Vec<&'a Arc<MeshService>>) {
    let mut hosts = Vec::new();
    let mut services: Vec<&Arc<MeshService>> = Vec::new();
    for name in &vs.hosts {
        if !host::is_wildcard(name) {
            match by_host.get(name.as_str()) {
                Some(service) => services.push(service),
                None => hosts.push(name.as_str()),
            }
            continue;
        }
        let mut found = false;
        for service in on_port.iter().filter(|service| host::matches(&service.host, name)) {
            found = true;
            if most_specific(egress, &service.host).is_some_and(|owner| Arc::ptr_eq(owner, vs))
                && !services.iter().any(|s| s.host == service.host)
            {
                services.push(service);
            }
        }
        if !found {
            hosts.push(name.as_str());
        }
    }
    (hosts, services)
}

/// The VirtualService that a service belongs to.
fn most_specific<'a>(egress: &Egress<'a>, service_host: &str) -> Option<&'a Arc<ResolvedVirtualService>> {
    let mut best: Option<(&str, &Arc<ResolvedVirtualService>)> = None;
    for vs in &egress.virtual_services {
        for name in vs.hosts.iter().filter(|name| host::is_subset(service_host, name)) {
            if best.is_none_or(|(known, _)| host::specificity(name, known).is_lt()) {
                best = Some((name, vs));
            }
        }
    }
    best.map(|(_, vs)| vs)
}

/// Collects virtual hosts; a name or domain that an earlier one has is left out of a later one.
struct Output<'a> {
    virtual_hosts: Vec<VirtualHost>,
    names: HashSet<String>,
    domains: HashSet<String>,
    full_names: HashSet<&'a str>,
}

impl<'a> Output<'a> {
    fn new(full_names: impl Iterator<Item = &'a str>) -> Self {
        Self { virtual_hosts: Vec::new(), names: HashSet::new(), domains: HashSet::new(), full_names: full_names.collect() }
    }

    /// `short` are the shortened forms among `domains`; one that is another service's full name is not taken from it.
    fn push(&mut self, host: &str, port: u16, mut domains: Vec<String>, short: &[String], routes: Vec<Route>) {
        let name = format!("{host}:{port}");
        if !self.names.insert(name.clone()) {
            return;
        }
        domains.retain(|domain| {
            let taken = short.contains(domain) && self.full_names.contains(domain.as_str());
            !taken && self.domains.insert(domain.to_ascii_lowercase())
        });
        if !domains.is_empty() {
            self.virtual_hosts.push(VirtualHost { name, domains, routes, require_tls: false });
        }
    }
}

/// Every name that reaches a service, and which of them are shortened. Ports need no names of their own: they are ignored.
pub(super) fn domains(service: &MeshService, namespace: &str, domain_suffix: &str) -> (Vec<String>, Vec<String>) {
    let full = &service.host;
    let mut short = Vec::new();
    if full.parse::<std::net::IpAddr>().is_err() {
        short.push(format!("{full}."));
    }
    let suffix = format!(".svc.{domain_suffix}");
    if let Some(base) = full.strip_suffix(&suffix)
        && let Some((name, owner)) = base.split_once('.')
    {
        if owner == namespace {
            short.push(name.to_owned());
        }
        short.push(base.to_owned());
        short.push(format!("{base}.svc"));
    }
    let mut domains = vec![full.clone()];
    domains.extend(short.iter().cloned());
    if service.resolution == Resolution::Passthrough && service.registry == Registry::Kubernetes {
        let pods: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
        domains.extend(pods);
    }
    domains.extend(service.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len()).map(|net| match net.addr() {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }));
    (domains, short)
}

/// The virtual host for names that nothing else takes.
fn catch_all(scope: &Scope<'_>) -> VirtualHost {
    let (name, action) = match scope.outbound_mode {
        OutboundMode::AllowAny => {
            let cluster = match scope.egress_proxy {
                Some(proxy) => {
                    cluster_name(proxy.port.map_or(0, |port| u16::try_from(port.number).unwrap_or(0)), &proxy.subset, &proxy.host)
                }
                None => PASSTHROUGH.to_owned(),
            };
            ("allow_any", RouteAction::Forward(Box::new(Forward { destinations: vec![whole(cluster)], ..plain_forward() })))
        }
        OutboundMode::RegistryOnly => ("block_all", RouteAction::DirectResponse { status: 502, body: String::new() }),
    };
    let route = Route {
        name: name.into(),
        matches: everything(),
        action,
        request_headers: HeaderOperations::default(),
        response_headers: HeaderOperations::default(),
        fault: None,
        cors: None,
        operation: String::new(),
        origin: None,
    };
    VirtualHost { name: name.into(), domains: vec!["*".into()], routes: vec![route], require_tls: false }
}
