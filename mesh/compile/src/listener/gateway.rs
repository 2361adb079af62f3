//! A gateway's listeners and route tables: the servers of all Gateways that select it, merged by port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshlab_istio_api::{Gateway, Object, Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use meshlab_proxy_config::{
    CertificateSource, ChainProtocol, ClientCertificate, Direction, DownstreamTls, EdgePolicy, FilterChain, FilterChainMatch,
    HttpAccess, Listener, Origin, Route, RouteConfiguration, Secret, TcpAccess, TlsVersion, VirtualHost,
};

use super::inbound::{mesh_tls, service_targets};
use super::tcp::{TcpContext, subnets};
use super::{http_connection, strings};
use crate::cluster::secret_key;
use crate::protocol::Protocol;
use crate::proxy::{ProxyIdentity, RouteClient};
use crate::registry::{origin, selects};
use crate::route::{RouteContext, is_catch_all};
use crate::security::authorization;
use crate::snapshot::Snapshot;
use crate::virtual_service::ResolvedVirtualService;
use crate::{Problem, host};

/// What a gateway is given beside clusters.
pub(crate) struct GatewayConfig {
    pub listeners: Vec<Listener>,
    pub routes: Vec<RouteConfiguration>,
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

/// A server of a Gateway, on the port that it is bound to.
struct BoundServer<'a> {
    server: &'a Server,
    /// Hosts with `.` replaced by the Gateway's namespace.
    hosts: Vec<String>,
    gateway: &'a Object<Gateway>,
    /// `namespace/name`
    gateway_name: String,
    port: u16,
    origin: Origin,
}

/// Builds a gateway's configuration.
pub(crate) fn build(snapshot: &Snapshot, proxy: &ProxyIdentity, problems: &mut Vec<Problem>) -> GatewayConfig {
    let (http_access, tcp_access) = authorization::access(snapshot, proxy, problems);
    let client = snapshot.client(proxy).routes;
    let mut builder = Builder { snapshot, proxy, client, http_access, tcp_access, secrets: BTreeMap::new(), problems };
    let mut listeners = Vec::new();
    let mut routes = Vec::new();
    let servers = bound_servers(snapshot, proxy);
    for ((port, bind), servers) in merge(servers, builder.problems) {
        let address = bind.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let name = format!("{address}_{port}");
        let mut filter_chains = Vec::new();
        let mut server_names = BTreeSet::new();
        if is_plain_http(servers[0].server) {
            let route = if bind.is_empty() { format!("http.{port}") } else { format!("http.{port}.{bind}") };
            filter_chains.push(builder.http_chain(&name, &route, FilterChainMatch::default(), None));
            routes.push(builder.route_configuration(route, &servers));
        } else {
            for server in &servers {
                builder.server_chains(server, &name, &mut server_names, &mut filter_chains, &mut routes);
            }
        }
        if filter_chains.is_empty() {
            continue;
        }
        listeners.push(Listener {
            name,
            address: SocketAddr::new(address, port),
            bind: true,
            use_original_destination: false,
            direction: Direction::Gateway,
            filter_chains,
            default_filter_chain: None,
        });
    }
    let secrets = builder.secrets;
    GatewayConfig { listeners, routes, secrets }
}

/// The servers of all Gateways that select the proxy, oldest Gateway first. A port that the gateway's Service has is bound where
/// the Service sends it.
fn bound_servers<'a>(snapshot: &'a Snapshot, proxy: &ProxyIdentity) -> Vec<BoundServer<'a>> {
    let targets = service_targets(snapshot, proxy);
    let mut out = Vec::new();
    for gateway in snapshot.gateways().iter().filter(|gateway| selects(&gateway.spec.selector, &proxy.labels)) {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Ok(number) = u16::try_from(server.port.number) else { continue };
            let mut ports: BTreeSet<u16> =
                targets.iter().filter(|(_, port, _)| *port == number).map(|(_, _, target)| *target).collect();
            if ports.is_empty() {
                ports.insert(number);
            }
            let hosts: Vec<String> = server
                .hosts
                .iter()
                .map(|entry| match entry.strip_prefix("./") {
                    Some(name) => format!("{}/{name}", gateway.meta.namespace),
                    None => entry.clone(),
                })
                .collect();
            for port in ports {
                out.push(BoundServer {
                    server,
                    hosts: hosts.clone(),
                    gateway,
                    gateway_name: format!("{}/{}", gateway.meta.namespace, gateway.meta.name),
                    port,
                    origin: origin("Gateway", &gateway.meta.namespace, &gateway.meta.name, &format!("spec.servers[{index}]")),
                });
            }
        }
    }
    out
}

/// Groups servers by port and address. A port is for plaintext HTTP, plaintext TCP or TLS; what does not fit the first comer is
/// left out.
fn merge<'a>(servers: Vec<BoundServer<'a>>, problems: &mut Vec<Problem>) -> BTreeMap<(u16, String), Vec<BoundServer<'a>>> {
    let mut out: BTreeMap<(u16, String), Vec<BoundServer<'a>>> = BTreeMap::new();
    for server in servers {
        let list = out.entry((server.port, server.server.bind.clone())).or_default();
        if let Some(first) = list.first() {
            let both_http = is_plain_http(first.server) && is_plain_http(server.server);
            let both_tls = is_tls(first.server) && is_tls(server.server);
            if !both_http && !both_tls {
                let message = format!(
                    "port {} is {} in Gateway {} already, so this server ({}) is left out",
                    server.port, first.server.port.protocol, first.gateway_name, server.server.port.protocol
                );
                problems.push(Problem::new(server.origin.clone(), message));
                continue;
            }
        }
        list.push(server);
    }
    out
}

fn is_plain_http(server: &Server) -> bool {
    Protocol::parse(&server.port.protocol).is_http()
}

fn is_tls(server: &Server) -> bool {
    server.tls.as_ref().is_some_and(|tls| !tls.https_redirect) || Protocol::parse(&server.port.protocol).is_tls()
}

fn passes_through(server: &Server) -> bool {
    server.tls.as_ref().is_some_and(|tls| matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough))
}

struct Builder<'a, 'p> {
    snapshot: &'a Snapshot,
    proxy: &'p ProxyIdentity,
    client: Arc<RouteClient>,
    http_access: HttpAccess,
    tcp_access: TcpAccess,
    secrets: BTreeMap<String, Arc<Secret>>,
    problems: &'p mut Vec<Problem>,
}

impl<'a> Builder<'a, '_> {
    /// The chains of a server that is not plaintext HTTP.
    fn server_chains(
        &mut self,
        bound: &BoundServer<'a>,
        listener: &str,
        server_names: &mut BTreeSet<String>,
        chains: &mut Vec<FilterChain>,
        routes: &mut Vec<RouteConfiguration>,
    ) {
        let server = bound.server;
        let names = sni_hosts(&bound.hosts);
        if server.tls.is_some() && !passes_through(server) {
            let mine: BTreeSet<String> =
                if names.is_empty() { BTreeSet::from(["*".to_owned()]) } else { names.iter().cloned().collect() };
            if let Some(taken) = mine.iter().find(|name| server_names.contains(*name)) {
                let message =
                    format!("host {taken} on port {} belongs to an older server already; this one is left out", bound.port);
                self.problems.push(Problem::new(bound.origin.clone(), message));
                return;
            }
            server_names.extend(mine);
        }
        let matches = FilterChainMatch { server_names: names, ..Default::default() };
        let https = Protocol::parse(&server.port.protocol) == Protocol::Https;
        match &server.tls {
            Some(_) if passes_through(server) => self.passthrough_chains(bound, server_names, chains),
            Some(settings) if https => {
                let gateway = &bound.gateway.meta;
                let route = format!("https.{}.{}.{}.{}", server.port.number, server.port.name, gateway.name, gateway.namespace);
                if routes.iter().any(|known| known.name == route) {
                    self.problems.push(Problem::new(
                        bound.origin.clone(),
                        format!("port name {} is not unique among HTTPS servers", server.port.name),
                    ));
                    return;
                }
                let tls = self.downstream_tls(settings, bound, true);
                let stat = if server.name.is_empty() { listener } else { &server.name };
                chains.push(self.http_chain(stat, &route, matches, Some(tls)));
                routes.push(self.route_configuration(route, std::slice::from_ref(bound)));
            }
            Some(settings) => {
                let tls = self.downstream_tls(settings, bound, false);
                chains.extend(self.tcp_chain(bound, matches, Some(tls)));
            }
            None => chains.extend(self.tcp_chain(bound, FilterChainMatch::default(), None)),
        }
    }

    fn http_chain(&self, stat: &str, route: &str, matches: FilterChainMatch, tls: Option<DownstreamTls>) -> FilterChain {
        let mesh = &self.snapshot.sources().mesh;
        let edge = EdgePolicy::Gateway { trusted_proxies: mesh.default_config.gateway_topology.num_trusted_proxies };
        FilterChain {
            name: route.into(),
            matches,
            tls,
            protocol: ChainProtocol::Http(http_connection(
                route.into(),
                format!("outbound_{stat}"),
                edge,
                self.http_access.clone(),
                mesh,
            )),
        }
    }

    /// VirtualServices of a gateway whose hosts meet the server's, with the names in common.
    fn bound_virtual_services(&self, bound: &BoundServer<'_>) -> Vec<(&'a Arc<ResolvedVirtualService>, Vec<String>)> {
        let traffic = self.snapshot.traffic();
        traffic
            .virtual_services
            .on_gateway(&bound.gateway_name, &self.proxy.namespace)
            .into_iter()
            .filter_map(|vs| {
                let hosts = hosts_for_namespace(&bound.hosts, &vs.namespace);
                let common = host::intersection(&hosts, &vs.hosts);
                (!common.is_empty()).then_some((vs, common))
            })
            .collect()
    }

    /// The chain of a TCP server: the first rule that applies.
    fn tcp_chain(
        &mut self,
        bound: &BoundServer<'a>,
        matches: FilterChainMatch,
        tls: Option<DownstreamTls>,
    ) -> Option<FilterChain> {
        let lookup = |name: &str| self.snapshot.service(name, &self.proxy.namespace);
        let context = self.tcp_context(bound, &lookup);
        for (vs, _) in self.bound_virtual_services(bound) {
            for (index, rule) in vs.tcp.iter().enumerate().filter(|(_, rule)| !rule.route.is_empty()) {
                if rule.r#match.is_empty() || rule.r#match.iter().any(|m| context.applies_tcp(m)) {
                    let mut proxy = context.proxy(vs, &format!("spec.tcp[{index}]"), &rule.route);
                    proxy.access = self.tcp_access.clone();
                    return Some(FilterChain {
                        name: proxy.stat_prefix.clone(),
                        matches,
                        tls,
                        protocol: ChainProtocol::Tcp(proxy),
                    });
                }
            }
        }
        self.problems.push(Problem::new(
            bound.origin.clone(),
            "no VirtualService has a tcp rule for this server, so its port is not opened".into(),
        ));
        None
    }

    /// One chain for each group of server names that a `tls` rule forwards.
    fn passthrough_chains(
        &mut self,
        bound: &BoundServer<'a>,
        server_names: &mut BTreeSet<String>,
        chains: &mut Vec<FilterChain>,
    ) {
        if bound.server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough) {
            self.problems.push(Problem::new(
                bound.origin.clone(),
                "tls.mode AUTO_PASSTHROUGH joins clusters, of which there is one here".into(),
            ));
            return;
        }
        let mut taken_names = Vec::new();
        let lookup = |name: &str| self.snapshot.service(name, &self.proxy.namespace);
        let context = self.tcp_context(bound, &lookup);
        for (vs, _) in self.bound_virtual_services(bound) {
            for (index, rule) in vs.tls.iter().enumerate().filter(|(_, rule)| !rule.route.is_empty()) {
                for (entry, m) in rule.r#match.iter().enumerate().filter(|(_, m)| context.applies_tls(m)) {
                    let path = format!("spec.tls[{index}].match[{entry}]");
                    if let Some(taken) = m.sni_hosts.iter().find(|name| server_names.contains(*name)) {
                        let place = origin("VirtualService", &vs.namespace, &vs.name, &path);
                        taken_names
                            .push(Problem::new(place, format!("server name {taken} is forwarded by an older rule already")));
                        continue;
                    }
                    server_names.extend(m.sni_hosts.iter().cloned());
                    let mut proxy = context.proxy(vs, &path, &rule.route);
                    proxy.access = self.tcp_access.clone();
                    let matches = FilterChainMatch {
                        server_names: sni_hosts(&m.sni_hosts),
                        prefix_ranges: subnets(&m.destination_subnets),
                        ..Default::default()
                    };
                    chains.push(FilterChain {
                        name: proxy.stat_prefix.clone(),
                        matches,
                        tls: None,
                        protocol: ChainProtocol::Tcp(proxy),
                    });
                }
            }
        }
        self.problems.extend(taken_names);
    }

    fn tcp_context<'b>(&'b self, bound: &'b BoundServer<'_>, lookup: &'b crate::route::Lookup<'a>) -> TcpContext<'a, 'b> {
        TcpContext {
            traffic: self.snapshot.traffic(),
            client: &self.client,
            gateway: &bound.gateway_name,
            port: u16::try_from(bound.server.port.number).unwrap_or(0),
            lookup,
        }
    }

    fn route_configuration(&self, name: String, servers: &[BoundServer<'a>]) -> RouteConfiguration {
        let mut hosts: BTreeMap<String, VirtualHost> = BTreeMap::new();
        let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
        for bound in servers {
            let port = u16::try_from(bound.server.port.number).unwrap_or(0);
            let redirect = bound.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
            for (vs, common) in self.bound_virtual_services(bound) {
                let own = &vs.namespace;
                let lookup = |name: &str| {
                    let mine =
                        self.snapshot.service(name, own).filter(|service| service.visibility.visible_in(&self.proxy.namespace));
                    mine.or_else(|| self.snapshot.service(name, &self.proxy.namespace))
                };
                let context = RouteContext {
                    traffic: self.snapshot.traffic(),
                    client: &self.client,
                    gateway: &bound.gateway_name,
                    port,
                    tls: bound.server.tls.is_some(),
                    lookup: &lookup,
                    memos: self.snapshot.memos(),
                };
                let routes = context.routes(vs);
                if routes.is_empty() {
                    continue;
                }
                for name in common {
                    let virtual_host = hosts.entry(name.clone()).or_insert_with(|| empty_host(&name, port));
                    virtual_host.require_tls |= redirect;
                    // Two servers with one host do not make a VirtualService's routes twice.
                    if seen.insert((format!("{}/{}", vs.namespace, vs.name), name)) {
                        virtual_host.routes.extend(routes.iter().cloned());
                    }
                }
            }
            if redirect {
                for name in hosts_for_namespace(&bound.hosts, "*") {
                    hosts.entry(name.clone()).or_insert_with(|| empty_host(&name, port)).require_tls = true;
                }
            }
        }
        let mut virtual_hosts: Vec<VirtualHost> = hosts
            .into_values()
            .map(|mut virtual_host| {
                sink_catch_alls(&mut virtual_host.routes);
                virtual_host
            })
            .collect();
        if virtual_hosts.is_empty() {
            virtual_hosts.push(VirtualHost {
                domains: vec!["*".into()],
                ..empty_host("blackhole", servers.first().map_or(0, |bound| bound.port))
            });
        }
        RouteConfiguration::new(name, virtual_hosts.into_iter().map(Arc::new).collect(), true)
    }

    fn downstream_tls(&mut self, settings: &ServerTlsSettings, bound: &BoundServer<'_>, http: bool) -> DownstreamTls {
        if settings.mode == ServerTlsMode::IstioMutual {
            return mesh_tls(self.snapshot, http);
        }
        let certificate = self.certificate(settings, bound);
        let client_certificate = match settings.mode {
            ServerTlsMode::Mutual => ClientCertificate::Required { subject_alt_names: settings.subject_alt_names.clone() },
            ServerTlsMode::OptionalMutual => ClientCertificate::Optional,
            _ => ClientCertificate::None,
        };
        DownstreamTls {
            certificate,
            client_certificate,
            min_version: if settings.min_protocol_version == TlsProtocol::V1_3 { TlsVersion::V1_3 } else { TlsVersion::V1_2 },
            max_version: match settings.max_protocol_version {
                TlsProtocol::V1_0 | TlsProtocol::V1_1 | TlsProtocol::V1_2 => TlsVersion::V1_2,
                TlsProtocol::Auto | TlsProtocol::V1_3 => TlsVersion::V1_3,
            },
            alpn: if http { strings(&["h2", "http/1.1"]) } else { Vec::new() },
        }
    }

    fn certificate(&mut self, settings: &ServerTlsSettings, bound: &BoundServer<'_>) -> CertificateSource {
        let name = settings.credential_names.first().unwrap_or(&settings.credential_name);
        if name.is_empty() {
            let files = settings.tls_certificates.first();
            let ca = files.map_or(&settings.ca_certificates, |files| &files.ca_certificates);
            return CertificateSource::Files {
                certificate: files.map_or(&settings.server_certificate, |files| &files.server_certificate).clone(),
                private_key: files.map_or(&settings.private_key, |files| &files.private_key).clone(),
                ca: (!ca.is_empty()).then(|| ca.clone()),
            };
        }
        let key = secret_key(&self.proxy.namespace, name);
        let needs_ca = matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
        let secret = crate::secret::load(self.snapshot.sources(), &key, true, needs_ca, &settings.ca_cert_credential_name);
        if let Some(error) = &secret.error {
            self.problems.push(Problem::new(bound.origin.clone(), format!("credentialName {name}: {error}")));
        }
        self.secrets.insert(key.clone(), Arc::new(secret));
        CertificateSource::Secret(key)
    }
}

fn empty_host(name: &str, port: u16) -> VirtualHost {
    VirtualHost { name: format!("{name}:{port}"), domains: vec![name.to_owned()], routes: Vec::new(), require_tls: false }
}

/// Routes that take every request come after all others; of several the first is tried.
fn sink_catch_alls(routes: &mut [Route]) {
    routes.sort_by_key(is_catch_all);
}

/// The hosts of a server that a VirtualService of `namespace` may use, without their namespaces.
fn hosts_for_namespace(hosts: &[String], namespace: &str) -> Vec<String> {
    hosts
        .iter()
        .filter_map(|entry| match entry.split_once('/') {
            None => Some(entry.as_str()),
            Some((owner, name)) => (owner == "*" || owner == namespace || namespace == "*").then_some(name),
        })
        .map(str::to_lowercase)
        .collect()
}

/// Server names of a chain; `*` takes all and is not told.
fn sni_hosts(hosts: &[String]) -> Vec<String> {
    let names = hosts_for_namespace(hosts, "*");
    if names.iter().any(|name| name == "*") { Vec::new() } else { names }
}
