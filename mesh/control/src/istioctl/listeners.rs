//! `proxy-config listener`.

use meshlab_proxy_config::{ChainProtocol, FilterChain, FilterChainMatch, Listener, ProxyConfig, RouteAction, Transport};

use super::table::table;

/// Which listeners to show; an unset field shows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerFilter {
    /// `--address`
    pub address: Option<String>,
    /// `--port`
    pub port: Option<u16>,
}

/// Filter chains of the listeners, sorted by port and address.
pub fn listeners(config: &ProxyConfig, filter: &ListenerFilter) -> String {
    let mut shown: Vec<_> = config.listeners.values().collect();
    shown.retain(|listener| {
        filter.address.as_ref().is_none_or(|address| listener.address.ip().to_string() == *address)
            && filter.port.is_none_or(|port| listener.address.port() == port)
    });
    shown.sort_by_key(|listener| (listener.address.port(), listener.address.ip()));
    let rows = shown.into_iter().flat_map(|listener| chains(config, listener));
    table(["ADDRESSES", "PORT", "MATCH", "DESTINATION"], rows)
}

fn chains(config: &ProxyConfig, listener: &Listener) -> Vec<[String; 4]> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let mut rows: Vec<_> = chains.map(|chain| (matches(&chain.matches), destination(config, chain))).collect();
    rows.sort_by(|(_, a), (_, b)| b.cmp(a));
    let (address, port) = (listener.address.ip().to_string(), listener.address.port().to_string());
    rows.into_iter().map(|(matches, destination)| [address.clone(), port.clone(), matches, destination]).collect()
}

/// Istio's short names for the sets of protocols that its own configuration uses.
const PROTOCOLS: [(&str, &[&str]); 4] = [
    ("App: HTTP TLS", &["http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: Istio HTTP Plain", &["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: TCP TLS", &["istio-peer-exchange", "istio"]),
    ("App: HTTP", &["http/1.0", "http/1.1", "h2c"]),
];

fn matches(matches: &FilterChainMatch) -> String {
    let mut parts = Vec::new();
    if !matches.server_names.is_empty() {
        parts.push(format!("SNI: {}", matches.server_names.join(",")));
    }
    match matches.transport {
        Some(Transport::Tls) => parts.push("Trans: tls".into()),
        Some(Transport::Raw) => parts.push("Trans: raw_buffer".into()),
        None => {}
    }
    if !matches.application_protocols.is_empty() {
        let known = PROTOCOLS.iter().find(|(_, protocols)| matches.application_protocols == *protocols);
        parts.push(
            known.map_or_else(|| format!("App: {}", matches.application_protocols.join(",")), |(name, _)| (*name).to_owned()),
        );
    }
    let port = matches.destination_port.map(|port| format!(":{port}")).unwrap_or_default();
    if !matches.prefix_ranges.is_empty() {
        let ranges: Vec<_> = matches.prefix_ranges.iter().map(ToString::to_string).collect();
        parts.push(format!("Addr: {}{port}", ranges.join(",")));
    } else if !port.is_empty() {
        parts.push(format!("Addr: *{port}"));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

fn destination(config: &ProxyConfig, chain: &FilterChain) -> String {
    match &chain.protocol {
        ChainProtocol::Http(http) => {
            only_cluster(config, &http.route_config).unwrap_or_else(|| format!("Route: {}", http.route_config))
        }
        ChainProtocol::Tcp(tcp) => match tcp.clusters.as_slice() {
            [one] if one.cluster.contains("Cluster") => one.cluster.clone(),
            clusters => {
                let names: Vec<_> = clusters.iter().map(|cluster| cluster.cluster.as_str()).collect();
                format!("Cluster: {}", names.join(","))
            }
        },
    }
}

/// A route table with one route for everything is shown as the cluster that it leads to, as the inbound ones are.
fn only_cluster(config: &ProxyConfig, routes: &str) -> Option<String> {
    let [host] = config.routes.get(routes)?.virtual_hosts.as_slice() else { return None };
    let ([domain], [route]) = (host.domains.as_slice(), host.routes.as_slice()) else { return None };
    let RouteAction::Forward(forward) = &route.action else { return None };
    let [destination] = forward.destinations.as_slice() else { return None };
    (domain == "*").then(|| match destination.cluster.as_str() {
        name if name.contains("Cluster") => name.to_owned(),
        name => format!("Cluster: {name}"),
    })
}
