//! A sidecar's inbound listener: chains for each of the workload's ports, by what its policies take, and for all others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshlab_istio_api::{ConnectionPoolSettings, IstioIngressListener, Object, Sidecar};
use meshlab_proxy_config::{
    CertificateSource, ChainProtocol, ClientCertificate, Cluster, Direction, Discovery, DownstreamTls, EdgePolicy, Endpoint,
    Endpoints, FilterChain, FilterChainMatch, Forward, HttpAccess, Listener, LoadBalancer, Origin, RouteConfiguration,
    ServiceIdentity, TcpAccess, TcpProxy, TlsVersion, Transport, VirtualHost,
};

use super::{PLAINTEXT_HTTP, http_connection, strings, tcp_chain, tcp_proxy};
use crate::Problem;
use crate::cluster::{BLACK_HOLE, INBOUND_PASSTHROUGH, inbound_cluster, inbound_cluster_name};
use crate::destination_rule::policy_for_port;
use crate::kubernetes::TargetPort;
use crate::protocol::Protocol;
use crate::proxy::ProxyIdentity;
use crate::registry::{MeshService, selects};
use crate::route::{default_route, inbound_retry, plain_forward};
use crate::security::authorization;
use crate::security::peer::Mode;
use crate::snapshot::Snapshot;

/// Where redirected inbound connections arrive.
const INBOUND_PORT: u16 = 15006;
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
const MESH_ALL: [&str; 5] = ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What one of the workload's ports is.
struct InboundPort {
    /// The service's number, which names the virtual host.
    service_port: u16,
    protocol: Protocol,
    service: ServiceIdentity,
    pool: Option<ConnectionPoolSettings>,
    /// Where connections go, if not where they were meant to go.
    endpoint: Option<SocketAddr>,
    origin: Option<Origin>,
}

/// The inbound side of a sidecar.
pub(crate) struct Inbound {
    pub listeners: Vec<Listener>,
    pub routes: Vec<RouteConfiguration>,
    pub clusters: Vec<Cluster>,
}

/// Builds the inbound side.
pub(crate) fn build(
    snapshot: &Snapshot,
    proxy: &ProxyIdentity,
    sidecar: Option<&Arc<Object<Sidecar>>>,
    problems: &mut Vec<Problem>,
) -> Inbound {
    let peer = snapshot.peer_policies().of_workload(&proxy.namespace, &proxy.labels);
    let (http_access, tcp_access) = authorization::access(snapshot, proxy, problems);
    let ports = ports(snapshot, proxy, sidecar, problems);
    let builder = Builder { snapshot, http_access, tcp_access };
    let guard = FilterChainMatch { destination_port: Some(INBOUND_PORT), ..Default::default() };
    let mut filter_chains = vec![tcp_chain("virtualInbound-blackhole", guard, BLACK_HOLE, TcpAccess::default())];
    let mut routes = Vec::new();
    let mut clusters = Vec::new();
    for (number, port) in &ports {
        let name = inbound_cluster_name(*number);
        filter_chains.extend(builder.chains(&name, Some(*number), port.protocol, peer.of_port(*number)));
        routes.push(route(&name, port));
        clusters.push(cluster(*number, port));
    }
    // Ports that no service has: those with a mode of their own, then all others.
    for (number, mode) in peer.ports.iter().filter(|(number, _)| !ports.contains_key(number)) {
        filter_chains.extend(builder.chains(INBOUND_PASSTHROUGH, Some(*number), Protocol::Sniffed, *mode));
    }
    filter_chains.extend(builder.chains(INBOUND_PASSTHROUGH, None, Protocol::Sniffed, peer.mode));
    let other = InboundPort {
        service_port: 0,
        protocol: Protocol::Sniffed,
        service: ServiceIdentity::default(),
        pool: None,
        endpoint: None,
        origin: None,
    };
    routes.push(route(INBOUND_PASSTHROUGH, &other));
    let listener = Listener {
        name: "virtualInbound".into(),
        address: SocketAddr::new(ANY, INBOUND_PORT),
        bind: true,
        use_original_destination: false,
        direction: Direction::Inbound,
        filter_chains,
        default_filter_chain: None,
    };
    Inbound { listeners: vec![listener], routes, clusters }
}

/// The workload's ports by its own numbers: what the Sidecar says, else what the services that select it say.
fn ports(
    snapshot: &Snapshot,
    proxy: &ProxyIdentity,
    sidecar: Option<&Arc<Object<Sidecar>>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<u16, InboundPort> {
    let pool = sidecar.and_then(|sidecar| sidecar.spec.inbound_connection_pool.as_ref());
    let targets = service_targets(snapshot, proxy);
    let mut out: BTreeMap<u16, InboundPort> = BTreeMap::new();
    if let Some(sidecar) = sidecar.filter(|sidecar| !sidecar.spec.ingress.is_empty()) {
        for (index, ingress) in sidecar.spec.ingress.iter().enumerate() {
            let origin = crate::registry::origin(
                "Sidecar",
                &sidecar.meta.namespace,
                &sidecar.meta.name,
                &format!("spec.ingress[{index}]"),
            );
            match ingress_port(ingress, &targets, &origin) {
                Ok((number, port)) => {
                    out.entry(number).or_insert(InboundPort { pool: ingress.connection_pool.as_ref().or(pool).cloned(), ..port });
                }
                Err(message) => problems.push(Problem::new(origin, message)),
            }
        }
        return out;
    }
    for (service, number, target) in targets {
        let Some(port) = service.port(number) else { continue };
        if let Some(known) = out.get(&target) {
            if known.protocol != port.protocol {
                let message = format!(
                    "workload port {target} is already {:?} by service {}; the older service decides",
                    known.protocol, known.service.host
                );
                problems.push(Problem::new(service.origin.clone(), message));
            }
            continue;
        }
        let inbound = InboundPort {
            service_port: number,
            protocol: port.protocol,
            service: identity(service),
            pool: pool.cloned().or_else(|| own_limits(snapshot, proxy, service, number)),
            endpoint: None,
            origin: Some(service.origin.clone()),
        };
        out.insert(target, inbound);
    }
    out
}

/// The limits that a DestinationRule sets for a service's clients hold for its servers too, so that neither side chokes the other.
fn own_limits(snapshot: &Snapshot, proxy: &ProxyIdentity, service: &MeshService, port: u16) -> Option<ConnectionPoolSettings> {
    let root = &snapshot.sources().mesh.root_namespace;
    let rule = snapshot.destination_rules().lookup(service, &proxy.namespace, &proxy.labels, root)?;
    policy_for_port(rule.traffic_policy.as_ref(), port).connection_pool
}

fn identity(service: &MeshService) -> ServiceIdentity {
    ServiceIdentity { host: service.host.clone(), name: service.name.clone(), namespace: service.namespace.clone() }
}

/// The services that select the workload, with their ports and the workload's, oldest first.
pub(crate) fn service_targets<'a>(snapshot: &'a Snapshot, proxy: &ProxyIdentity) -> Vec<(&'a MeshService, u16, u16)> {
    let pod = snapshot.sources().pods.get(&(proxy.namespace.clone(), proxy.pod.clone()));
    snapshot
        .services()
        .iter()
        .filter(|service| {
            service.namespace == proxy.namespace && !service.selector.is_empty() && selects(&service.selector, &proxy.labels)
        })
        .flat_map(|service| service.ports.iter().map(move |port| (service.as_ref(), port)))
        .filter(|(_, port)| port.protocol != Protocol::Udp)
        .filter_map(|(service, port)| {
            let target = match &port.target {
                TargetPort::Number(0) => port.number,
                TargetPort::Number(number) => *number,
                TargetPort::Name(name) => pod?.named_port(name)?,
            };
            Some((service, port.number, target))
        })
        .collect()
}

fn ingress_port(
    ingress: &IstioIngressListener,
    targets: &[(&MeshService, u16, u16)],
    origin: &Origin,
) -> Result<(u16, InboundPort), String> {
    let number = u16::try_from(ingress.port.number).map_err(|_| format!("port {} is out of range", ingress.port.number))?;
    let endpoint = match ingress.default_endpoint.as_str() {
        "" => None,
        text if text.starts_with("unix://") => return Err(format!("defaultEndpoint {text}: Unix sockets are not supported")),
        text => {
            let address: SocketAddr = text.parse().map_err(|_| format!("defaultEndpoint {text} is not an address and a port"))?;
            // The workload's own address and its loopback lead to the same process.
            let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
            Some(SocketAddr::new(ip, address.port()))
        }
    };
    let service = targets.iter().find(|(_, _, target)| *target == number).or(targets.first());
    let port = InboundPort {
        service_port: number,
        protocol: Protocol::parse(&ingress.port.protocol),
        service: service.map(|(service, _, _)| identity(service)).unwrap_or_default(),
        pool: None,
        endpoint,
        origin: Some(origin.clone()),
    };
    Ok((number, port))
}

fn route(name: &str, port: &InboundPort) -> RouteConfiguration {
    // A gRPC stream cannot be started again, so gRPC ports have no retries.
    let retry = (!port.protocol.is_grpc() && name != INBOUND_PASSTHROUGH).then(inbound_retry);
    let operation = if name == INBOUND_PASSTHROUGH {
        INBOUND_PASSTHROUGH.to_owned()
    } else {
        format!("{}:{}/*", port.service.host, port.service_port)
    };
    let route = default_route(name.to_owned(), operation, Forward { retry, ..plain_forward() });
    let virtual_host = VirtualHost {
        name: format!("inbound|http|{}", port.service_port),
        domains: vec!["*".into()],
        routes: vec![route],
        require_tls: false,
    };
    RouteConfiguration::new(name.to_owned(), vec![Arc::new(virtual_host)], false)
}

fn cluster(number: u16, port: &InboundPort) -> Cluster {
    let mut cluster = inbound_cluster(number, port.protocol, port.service.clone(), port.pool.as_ref(), port.origin.clone());
    if let Some(address) = port.endpoint {
        let endpoint = Endpoint { address, weight: 1, priority: 0, metadata: Default::default() };
        cluster.discovery = Discovery::Static(Endpoints { endpoints: vec![endpoint] });
        cluster.load_balancer = LoadBalancer::RoundRobin { warmup_ms: 0 };
    }
    cluster
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    http_access: HttpAccess,
    tcp_access: TcpAccess,
}

/// One chain: the application protocols and transport it takes, whether TLS is terminated, and whether HTTP is spoken inside.
type Shape<'a> = (&'a [&'a str], Option<Transport>, bool, bool);

impl Builder<'_> {
    /// The chains of a port, by what it speaks and what mutual TLS it takes.
    fn chains(&self, name: &str, port: Option<u16>, protocol: Protocol, mode: Mode) -> Vec<FilterChain> {
        const TLS: Option<Transport> = Some(Transport::Tls);
        const RAW: Option<Transport> = Some(Transport::Raw);
        let http = protocol.is_http();
        let shapes: &[Shape<'_>] = match (mode, protocol) {
            (Mode::Strict, Protocol::Sniffed) => &[(&MESH_HTTP, TLS, true, true), (&[], TLS, true, false)],
            (Mode::Strict, _) => &[(&[], TLS, true, http)],
            (Mode::Permissive, Protocol::Sniffed) => &[
                (&MESH_HTTP, TLS, true, true),
                (&PLAINTEXT_HTTP, RAW, false, true),
                (&MESH_TCP, TLS, true, false),
                (&[], RAW, false, false),
                (&[], TLS, false, false),
            ],
            (Mode::Permissive, _) if http => &[(&MESH_ALL, TLS, true, true), (&[], RAW, false, true)],
            (Mode::Permissive, _) => &[(&MESH_ALL, TLS, true, false), (&[], TLS, false, false), (&[], RAW, false, false)],
            (Mode::Disable, Protocol::Sniffed) => {
                &[(&PLAINTEXT_HTTP, RAW, false, true), (&[], RAW, false, false), (&[], TLS, false, false)]
            }
            (Mode::Disable, _) if http => &[(&[], RAW, false, true)],
            (Mode::Disable, _) => &[(&[], None, false, false)],
        };
        shapes.iter().map(|shape| self.chain(name, port, *shape)).collect()
    }

    fn chain(
        &self,
        name: &str,
        port: Option<u16>,
        (application_protocols, transport, terminate, http): Shape<'_>,
    ) -> FilterChain {
        let mesh = &self.snapshot.sources().mesh;
        let chain_name = match (port, http) {
            (Some(port), _) => format!("0.0.0.0_{port}"),
            (None, true) => "virtualInbound-catchall-http".to_owned(),
            (None, false) => "virtualInbound".to_owned(),
        };
        let stat_prefix = format!("inbound_0.0.0.0_{}", port.unwrap_or(0));
        let protocol = if http {
            ChainProtocol::Http(http_connection(
                name.to_owned(),
                stat_prefix,
                EdgePolicy::SidecarInbound,
                self.http_access.clone(),
                mesh,
            ))
        } else {
            ChainProtocol::Tcp(TcpProxy { stat_prefix: name.to_owned(), ..tcp_proxy(name, self.tcp_access.clone()) })
        };
        FilterChain {
            name: chain_name,
            matches: FilterChainMatch {
                destination_port: port,
                transport,
                application_protocols: strings(application_protocols),
                ..Default::default()
            },
            tls: terminate.then(|| mesh_tls(self.snapshot, http)),
            protocol,
        }
    }
}

/// The mesh's mutual TLS. The protocols of a client without the mesh's ALPN names are offered too.
pub(crate) fn mesh_tls(snapshot: &Snapshot, http: bool) -> DownstreamTls {
    let mesh = &snapshot.sources().mesh;
    let mut trust_domains = vec![mesh.trust_domain.clone()];
    trust_domains.extend(mesh.trust_domain_aliases.iter().cloned());
    let alpn: &[&str] = if http {
        &["istio-h2", "istio-http/1.1", "istio-http/1.0", "istio", "h2", "http/1.1"]
    } else {
        &["istio-peer-exchange", "istio", "h2", "http/1.1"]
    };
    DownstreamTls {
        certificate: CertificateSource::Workload,
        client_certificate: ClientCertificate::Mesh { trust_domains },
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        alpn: strings(alpn),
    }
}
