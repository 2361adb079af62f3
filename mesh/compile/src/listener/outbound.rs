//! A sidecar's outbound listeners: one for all addresses of a port with HTTP, one for each address with anything else.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use meshlab_istio_api::{CaptureMode, OutboundMode};
use meshlab_proxy_config::{
    ChainProtocol, Direction, EdgePolicy, FilterChain, FilterChainMatch, HttpAccess, Listener, RouteConfiguration, TcpAccess,
    Transport, VirtualHost,
};

use super::tcp::{TcpContext, service_chains};
use super::{PLAINTEXT_HTTP, http_connection, strings, tcp_chain};
use crate::cluster::{BLACK_HOLE, PASSTHROUGH, cluster_name};
use crate::memo::Memos;
use crate::protocol::Protocol;
use crate::proxy::RouteClient;
use crate::registry::{MeshPort, MeshService, Registry, Resolution};
use crate::route::SidecarRoutes;
use crate::scope::{Egress, Scope};
use crate::traffic::Traffic;

/// Where redirected outbound connections arrive.
const OUTBOUND_PORT: u16 = 15001;
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Outbound listeners and the route tables that they use.
pub(crate) fn build(
    traffic: &Traffic,
    client: &Arc<RouteClient>,
    scope: &Scope<'_>,
    memos: &Memos,
) -> (Vec<Listener>, Vec<Arc<RouteConfiguration>>) {
    let mut out = Outbound {
        traffic,
        client,
        scope,
        memos,
        ports: BTreeMap::new(),
        listeners: BTreeMap::new(),
        routes: Vec::new(),
        names: HashSet::new(),
        sniffed: BTreeMap::new(),
    };
    let claimed: BTreeSet<u16> = scope
        .egress
        .iter()
        .filter_map(|egress| egress.listener?.port.as_ref())
        .filter_map(|port| u16::try_from(port.number).ok())
        .collect();
    for egress in &scope.egress {
        match egress.listener {
            Some(_) => out.single_port(egress),
            None => out.every_port(egress, &claimed),
        }
    }
    out.finish()
}

struct Outbound<'a> {
    traffic: &'a Traffic,
    client: &'a Arc<RouteClient>,
    scope: &'a Scope<'a>,
    memos: &'a Memos,
    /// Listeners for all addresses, by port.
    ports: BTreeMap<u16, AnyAddress>,
    /// Listeners for single addresses.
    listeners: BTreeMap<(IpAddr, u16), Listener>,
    routes: Vec<Arc<RouteConfiguration>>,
    /// The names of the route tables of single services.
    names: HashSet<String>,
    /// The virtual hosts of a port by name, by which sniffed services are told apart.
    sniffed: BTreeMap<u16, HashMap<String, Arc<VirtualHost>>>,
}

/// A listener for all addresses of a port.
#[derive(Default)]
struct AnyAddress {
    http: bool,
    /// Chains for some addresses or server names.
    narrow: Vec<FilterChain>,
    /// The chain of a service without an address.
    rest: Option<FilterChain>,
    bind: bool,
}

impl<'a> Outbound<'a> {
    /// Every port of every service, but for those that have a listener of their own.
    fn every_port(&mut self, egress: &Egress<'_>, claimed: &BTreeSet<u16>) {
        let mut http_ports = BTreeSet::new();
        self.sniffed.clear();
        for service in &egress.services {
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp && !claimed.contains(&port.number)) {
                if port.protocol.is_http() {
                    http_ports.insert(port.number);
                } else {
                    self.connections(egress, service, port, &mut http_ports);
                }
            }
        }
        for port in http_ports {
            self.ports.entry(port).or_default().http = true;
            self.routes.push(Arc::new(self.tables(egress).of_port(port)));
        }
    }

    /// A port whose protocol is not HTTP, or not known.
    fn connections(&mut self, egress: &Egress<'_>, service: &MeshService, port: &MeshPort, http_ports: &mut BTreeSet<u16>) {
        let sniffed = port.protocol == Protocol::Sniffed;
        let addresses = bound_addresses(service);
        if addresses.is_empty() {
            let ranges: Vec<IpNet> = service.addresses.clone();
            let chains = self.chains(egress, service, port, &ranges, true);
            if sniffed {
                http_ports.insert(port.number);
            }
            let listener = self.ports.entry(port.number).or_default();
            for chain in chains {
                if chain.matches == FilterChainMatch::default() {
                    // Without an address there can only be one; the oldest service has it.
                    listener.rest.get_or_insert(chain);
                } else if listener.narrow.iter().all(|known| known.matches != chain.matches) {
                    listener.narrow.push(chain);
                }
            }
            return;
        }
        let mut filter_chains = Vec::new();
        if sniffed {
            let name = format!("{}:{}", service.host, port.number);
            if self.names.insert(name.clone()) {
                let tables = self.tables(egress);
                let by_name = || tables.virtual_hosts(port.number).into_iter().map(|host| (host.name.clone(), host)).collect();
                let hosts = self.sniffed.entry(port.number).or_insert_with(by_name);
                self.routes.push(tables.sniffed(&name, hosts));
            }
            filter_chains.push(self.http_chain(&name, &format!("outbound_{}_{}", addresses[0], port.number)));
        }
        let mut chains = self.chains(egress, service, port, &[], false);
        // Beside the chain for HTTP, which asks for plaintext, one that asks for nothing would take no plaintext: a chain is chosen by
        // its most specific condition. It is what is left.
        let rest = chains.iter().position(|chain| sniffed && chain.matches == FilterChainMatch::default());
        let default_filter_chain = rest.map(|index| chains.remove(index));
        filter_chains.extend(chains);
        for address in addresses {
            // Two services with one address: the older has it.
            self.listeners.entry((address, port.number)).or_insert_with(|| Listener {
                name: format!("{address}_{}", port.number),
                address: SocketAddr::new(address, port.number),
                bind: false,
                use_original_destination: false,
                direction: Direction::Outbound,
                filter_chains: filter_chains.clone(),
                default_filter_chain: default_filter_chain.clone(),
            });
        }
    }

    fn tables<'e>(&self, egress: &'e Egress<'e>) -> SidecarRoutes<'e>
    where
        'a: 'e,
    {
        let Self { traffic, client, scope, memos, .. } = *self;
        SidecarRoutes { traffic, client, scope, egress, memos }
    }

    fn chains(
        &self,
        egress: &Egress<'_>,
        service: &MeshService,
        port: &MeshPort,
        ranges: &[IpNet],
        by_name: bool,
    ) -> Vec<FilterChain> {
        let lookup = |name: &str| {
            egress.by_host.get(name).copied().or_else(|| self.traffic.services.service(name, &self.client.namespace))
        };
        let context =
            TcpContext { traffic: self.traffic, client: self.client, gateway: "mesh", port: port.number, lookup: &lookup };
        service_chains(service, &egress.virtual_services, ranges, by_name, port.protocol.is_tls(), &context)
    }

    fn http_chain(&self, route: &str, stat_prefix: &str) -> FilterChain {
        let mesh = &self.traffic.mesh;
        FilterChain {
            name: route.into(),
            matches: FilterChainMatch {
                transport: Some(Transport::Raw),
                application_protocols: strings(&PLAINTEXT_HTTP),
                ..Default::default()
            },
            tls: None,
            protocol: ChainProtocol::Http(http_connection(
                route.into(),
                stat_prefix.into(),
                EdgePolicy::SidecarOutbound,
                HttpAccess::default(),
                mesh,
            )),
        }
    }

    /// The listener that a Sidecar describes.
    fn single_port(&mut self, egress: &Egress<'_>) {
        let Some((listener, port)) = egress.listener.and_then(|listener| Some((listener, listener.port.as_ref()?))) else {
            return;
        };
        let Ok(number) = u16::try_from(port.number) else { return };
        let protocol = Protocol::parse(&port.protocol);
        let bind = listener.capture_mode == CaptureMode::None;
        if protocol.is_http() || protocol == Protocol::Sniffed {
            let entry = self.ports.entry(number).or_default();
            entry.http = true;
            entry.bind |= bind;
            self.routes.push(Arc::new(self.tables(egress).of_port(number)));
            return;
        }
        let mut unused = BTreeSet::new();
        for service in &egress.services {
            let own = service.port(number).map(|port| port.number).or(match service.ports.as_slice() {
                [only] => Some(only.number),
                _ => None,
            });
            if own.is_some() {
                let port =
                    MeshPort { name: port.name.clone(), number, protocol, target: crate::kubernetes::TargetPort::Number(number) };
                self.connections(egress, service, &port, &mut unused);
            }
        }
        if let Some(entry) = self.ports.get_mut(&number) {
            entry.bind |= bind;
        }
    }

    /// Where connections to unknown destinations go.
    fn unknown(&self) -> FilterChain {
        let cluster = match (self.scope.outbound_mode, self.scope.egress_proxy) {
            (OutboundMode::RegistryOnly, _) => BLACK_HOLE.to_owned(),
            (OutboundMode::AllowAny, None) => PASSTHROUGH.to_owned(),
            (OutboundMode::AllowAny, Some(proxy)) => {
                cluster_name(proxy.port.map_or(0, |port| u16::try_from(port.number).unwrap_or(0)), &proxy.subset, &proxy.host)
            }
        };
        let name = if self.scope.outbound_mode == OutboundMode::RegistryOnly { "BlackHoleCluster" } else { "PassthroughCluster" };
        tcp_chain(name, FilterChainMatch::default(), &cluster, TcpAccess::default())
    }

    fn finish(self) -> (Vec<Listener>, Vec<Arc<RouteConfiguration>>) {
        let unknown = self.unknown();
        let mut listeners: Vec<Listener> = Vec::new();
        for (port, any) in &self.ports {
            let mut filter_chains = Vec::new();
            if any.http {
                filter_chains.push(self.http_chain(&port.to_string(), &format!("outbound_0.0.0.0_{port}")));
            }
            filter_chains.extend(any.narrow.iter().cloned());
            listeners.push(Listener {
                name: format!("0.0.0.0_{port}"),
                address: SocketAddr::new(ANY, *port),
                bind: any.bind,
                use_original_destination: false,
                direction: Direction::Outbound,
                filter_chains,
                default_filter_chain: Some(any.rest.clone().unwrap_or_else(|| unknown.clone())),
            });
        }
        listeners.extend(self.listeners.into_values());
        // A connection to the port itself would go round in circles.
        let loop_guard = FilterChainMatch { destination_port: Some(OUTBOUND_PORT), ..Default::default() };
        listeners.push(Listener {
            name: "virtualOutbound".into(),
            address: SocketAddr::new(ANY, OUTBOUND_PORT),
            bind: true,
            use_original_destination: true,
            direction: Direction::Outbound,
            filter_chains: vec![tcp_chain("virtualOutbound-blackhole", loop_guard, BLACK_HOLE, TcpAccess::default())],
            default_filter_chain: Some(FilterChain { name: "virtualOutbound-catchall-tcp".into(), ..unknown }),
        });
        (listeners, self.routes)
    }
}

/// The addresses that a service's listeners are for: its own, or its pods' if it is headless.
fn bound_addresses(service: &MeshService) -> Vec<IpAddr> {
    if service.registry == Registry::Kubernetes && service.resolution == Resolution::Passthrough {
        let pods = service.endpoints.values().flatten().filter_map(|instance| instance.address.parse().ok());
        return pods.collect::<BTreeSet<IpAddr>>().into_iter().collect();
    }
    service.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len()).map(IpNet::addr).collect()
}
