//! A sidecar's outbound route tables: one for each port, and one for each address whose protocol is found out.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use meshlab_istio_api::OutboundMode;
use meshlab_proxy_config::{Forward, HeaderOperations, Route, RouteAction, RouteConfiguration, VirtualHost};

use super::{RouteContext, Routes, default_retry, default_route, everything, plain_forward, whole};
use crate::cluster::{PASSTHROUGH, cluster_name};
use crate::host;
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::proxy::RouteClient;
use crate::registry::{MeshService, Registry, Resolution};
use crate::scope::{Egress, Scope};
use crate::traffic::{Target, Traffic};
use crate::virtual_service::ResolvedVirtualService;

/// The route tables that one group of listeners uses.
pub(crate) struct SidecarRoutes<'a> {
    pub(crate) traffic: &'a Traffic,
    pub(crate) client: &'a Arc<RouteClient>,
    pub(crate) scope: &'a Scope<'a>,
    pub(crate) egress: &'a Egress<'a>,
    pub(crate) memos: &'a Memos,
}

/// What a virtual host is built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VirtualHostInputs {
    mesh: Same<MeshConfig>,
    client: Arc<RouteClient>,
    whose: Whose,
    port: u16,
    routes: Routes,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Service(Same<MeshService>),
    /// A name that is no service's.
    Name(String),
}

/// A virtual host with every domain that it would take.
#[derive(Debug)]
pub(crate) struct Named {
    host: Arc<VirtualHost>,
    /// The shortened forms among its domains. One that is another service's full name is not taken from it.
    short: Vec<String>,
}

/// What the route of a service that no VirtualService speaks of is built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServiceRouteInputs {
    mesh: Same<MeshConfig>,
    target: Target,
    port: u16,
}

/// What the route table of one service's address is built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SniffedInputs {
    name: String,
    /// The service's virtual host on its port.
    own: Option<Same<VirtualHost>>,
}

impl<'a> SidecarRoutes<'a> {
    /// The route table of a port.
    pub(crate) fn of_port(&self, port: u16) -> RouteConfiguration {
        let mut virtual_hosts = self.virtual_hosts(port);
        // A VirtualService for every host is refused by validation; where there is none, it has what the mesh would have.
        if !virtual_hosts.iter().any(|virtual_host| virtual_host.domains.iter().any(|domain| domain == "*")) {
            virtual_hosts.push(Arc::new(catch_all(self.scope)));
        }
        RouteConfiguration::new(port.to_string(), virtual_hosts, true)
    }

    /// The route table of one service's address, from its port's virtual hosts: its own takes every name.
    pub(crate) fn sniffed(&self, name: &str, port_hosts: &HashMap<String, Arc<VirtualHost>>) -> Arc<RouteConfiguration> {
        let inputs = SniffedInputs { name: name.to_owned(), own: port_hosts.get(name).map(Same::of) };
        self.memos.sniffed.get(inputs, self.memos, |SniffedInputs { name, own }, _| {
            let own = own.iter().map(|own| Arc::new(VirtualHost { domains: vec!["*".into()], ..VirtualHost::clone(own) }));
            Arc::new(RouteConfiguration::new(name.clone(), own.collect(), true))
        })
    }

    /// The virtual hosts of a port.
    pub(crate) fn virtual_hosts(&self, port: u16) -> Vec<Arc<VirtualHost>> {
        let Self { traffic, client, egress, memos, .. } = self;
        let on_port: Vec<&Arc<MeshService>> =
            egress.services.iter().filter(|service| service.port(port).is_some()).copied().collect();
        let by_host: HashMap<&str, &Arc<MeshService>> = on_port.iter().map(|service| (service.host.as_str(), *service)).collect();
        let lookup = |name: &str| egress.by_host.get(name).copied().or_else(|| traffic.services.service(name, &client.namespace));
        let context = RouteContext { traffic, client, gateway: "mesh", port, tls: false, lookup: &lookup, memos };

        let groups: Vec<Group<'_>> = egress
            .virtual_services
            .iter()
            .filter_map(|vs| {
                let (hosts, services) = hosts_and_services(vs, &on_port, &by_host, egress);
                let http = services.iter().any(|service| is_http(service, port));
                // A VirtualService for hosts outside the registry has an effect on port 80 only.
                (http || port == 80).then_some((*vs, hosts, services))
            })
            .collect();

        let mut claims: Vec<Arc<Named>> = Vec::with_capacity(on_port.len());
        let mut routed: HashSet<&str> = HashSet::new();
        for (vs, hosts, services) in groups {
            let routes = context.routes(vs);
            if routes.is_empty() {
                continue;
            }
            for name in hosts {
                claims.push(self.virtual_host(Whose::Name(name.to_owned()), port, &routes));
            }
            for service in services.iter().filter(|service| is_http(service, port)) {
                routed.insert(&service.host);
                claims.push(self.virtual_host(Whose::Service(Same::of(service)), port, &routes));
            }
        }
        for service in on_port.iter().filter(|service| is_http(service, port) && !routed.contains(service.host.as_str())) {
            let inputs = ServiceRouteInputs { mesh: traffic.mesh.clone(), target: traffic.target(service, client), port };
            let routes = memos.service_routes.get(inputs, memos, service_route);
            claims.push(self.virtual_host(Whose::Service(Same::of(service)), port, &routes));
        }
        without_overlaps(&claims, &by_host)
    }

    fn virtual_host(&self, whose: Whose, port: u16, routes: &Routes) -> Arc<Named> {
        let (mesh, client, routes) = (self.traffic.mesh.clone(), self.client.clone(), routes.clone());
        let inputs = VirtualHostInputs { mesh, client, whose, port, routes };
        self.memos.virtual_hosts.get(inputs, self.memos, named)
    }
}

fn named(inputs: &VirtualHostInputs, _: &Memos) -> Arc<Named> {
    let (host, domains, short) = match &inputs.whose {
        Whose::Name(name) => (name, vec![name.clone()], Vec::new()),
        Whose::Service(service) => {
            let (domains, short) = domains(service, &inputs.client.namespace, &inputs.mesh.domain_suffix);
            (&service.host, domains, short)
        }
    };
    let name = format!("{host}:{}", inputs.port);
    let host = VirtualHost { name, domains, routes: Vec::clone(&inputs.routes), require_tls: false };
    Arc::new(Named { host: Arc::new(host), short })
}

/// The virtual hosts, each without what an earlier one has taken.
fn without_overlaps(claims: &[Arc<Named>], full_names: &HashMap<&str, &Arc<MeshService>>) -> Vec<Arc<VirtualHost>> {
    let mut out = Vec::with_capacity(claims.len());
    let mut names: HashSet<&str> = HashSet::with_capacity(claims.len());
    let mut taken: HashSet<Cow<'_, str>> = HashSet::with_capacity(6 * claims.len());
    for Named { host, short } in claims.iter().map(AsRef::as_ref) {
        if !names.insert(&host.name) {
            continue;
        }
        let free = host.domains.iter().filter(|&domain| {
            let anothers = short.contains(domain) && full_names.contains_key(domain.as_str());
            !anothers && taken.insert(lower_case(domain))
        });
        let domains: Vec<&String> = free.collect();
        if domains.len() == host.domains.len() {
            out.push(host.clone());
        } else if !domains.is_empty() {
            let domains = domains.into_iter().cloned().collect();
            out.push(Arc::new(VirtualHost { domains, ..VirtualHost::clone(host) }));
        }
    }
    out
}

fn lower_case(domain: &str) -> Cow<'_, str> {
    if domain.bytes().any(|byte| byte.is_ascii_uppercase()) { domain.to_ascii_lowercase().into() } else { domain.into() }
}

/// A VirtualService with its names outside the registry and its services.
type Group<'a> = (&'a Arc<ResolvedVirtualService>, Vec<&'a str>, Vec<&'a Arc<MeshService>>);

fn is_http(service: &MeshService, port: u16) -> bool {
    service.port(port).is_some_and(|port| port.protocol.is_http_or_sniffed())
}

/// The route of a service that no VirtualService speaks of.
fn service_route(inputs: &ServiceRouteInputs, _: &Memos) -> Routes {
    let ServiceRouteInputs { mesh, target, port } = inputs;
    let hash = target.hash_policy("", *port);
    let retry = match &mesh.default_http_retry_policy {
        Some(policy) => super::policy::retry(Some(policy), false),
        None => Some(default_retry(false)),
    };
    let forward = Forward { retry, hash_policy: hash.into_iter().collect(), ..plain_forward() };
    let host = &target.service.host;
    Same::new(vec![default_route(cluster_name(*port, "", host), format!("{host}:{port}/*"), forward)])
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

/// Every name that reaches a service, and which of them are shortened. Ports need no names of their own: they are ignored.
fn domains(service: &MeshService, namespace: &str, domain_suffix: &str) -> (Vec<String>, Vec<String>) {
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
