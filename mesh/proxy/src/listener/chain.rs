//! Listeners and their filter chains, compiled, and choosing a chain for a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use meshlab_proxy_config as config;
use meshlab_proxy_config::{ChainProtocol, Transport};

use crate::access::{AccessError, HttpAccess, TcpAccess};
use crate::identity::CurrentIdentity;
use crate::tls::server::ServerTls;
use crate::tls::{Secrets, TlsError};

/// A compiled listener.
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) config: Arc<config::Listener>,
    chains: Vec<Arc<Chain>>,
    default_chain: Option<Arc<Chain>>,
    /// Whether a chain can only be chosen after the first bytes were seen: for TLS, for HTTP.
    pub(crate) inspects_tls: bool,
    pub(crate) inspects_http: bool,
}

/// A compiled filter chain.
pub(crate) struct Chain {
    pub(crate) name: Arc<str>,
    matches: config::FilterChainMatch,
    pub(crate) tls: Option<ChainTls>,
    pub(crate) kind: ChainKind,
}

/// TLS of a chain.
pub(crate) enum ChainTls {
    Ready(ServerTls),
    /// Its certificate cannot be used: connections are refused, other chains go on.
    Broken(String),
}

/// What a chain speaks.
pub(crate) enum ChainKind {
    Http(Arc<HttpChain>),
    Tcp(Arc<TcpChain>),
}

/// A compiled HTTP connection manager.
pub(crate) struct HttpChain {
    pub(crate) config: config::HttpConnection,
    pub(crate) access: HttpAccess,
}

/// A compiled TCP proxy.
pub(crate) struct TcpChain {
    pub(crate) config: config::TcpProxy,
    pub(crate) access: TcpAccess,
    pub(crate) total_weight: u64,
}

/// Why a listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenerError {
    #[error("filter chain {chain}: {source}")]
    Access { chain: String, source: AccessError },
    #[error("filter chain {0}: a TCP proxy needs a cluster with a weight")]
    NoCluster(String),
}

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Default)]
pub(crate) struct Candidate<'a> {
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) transport: Option<Transport>,
    pub(crate) server_name: Option<&'a str>,
    pub(crate) application_protocols: Vec<&'a str>,
}

impl Listener {
    /// Compiles a listener. The second value names the chains whose TLS cannot be used.
    pub(crate) fn new(
        config: Arc<config::Listener>,
        secrets: Secrets<'_>,
        identity: &CurrentIdentity,
    ) -> Result<(Self, Vec<String>), ListenerError> {
        let mut problems = Vec::new();
        let mut compile = |chain: &config::FilterChain| Chain::new(chain, secrets, identity, &mut problems).map(Arc::new);
        let chains: Vec<Arc<Chain>> = config.filter_chains.iter().map(&mut compile).collect::<Result<_, _>>()?;
        let default_chain = config.default_filter_chain.as_ref().map(&mut compile).transpose()?;
        let any = |test: &dyn Fn(&config::FilterChainMatch) -> bool| chains.iter().any(|chain| test(&chain.matches));
        let plaintext_protocol = |name: &String| matches!(name.as_str(), "http/1.0" | "http/1.1" | "h2c");
        let listener = Self {
            name: config.name.as_str().into(),
            inspects_tls: any(&|matches| {
                matches.transport.is_some() || !matches.server_names.is_empty() || !matches.application_protocols.is_empty()
            }),
            inspects_http: any(&|matches| {
                matches.transport != Some(Transport::Tls) && matches.application_protocols.iter().any(plaintext_protocol)
            }),
            chains,
            default_chain,
            config,
        };
        Ok((listener, problems))
    }

    /// Whether any chain for `destination` needs the first bytes to be seen: server-first protocols do not wait for nothing.
    pub(crate) fn inspects(&self, destination: SocketAddr) -> (bool, bool) {
        if !self.inspects_tls && !self.inspects_http {
            return (false, false);
        }
        let relevant = |chain: &&Arc<Chain>| chain.matches.destination_port.is_none_or(|port| port == destination.port());
        let specific = self.chains.iter().any(|chain| chain.matches.destination_port == Some(destination.port()));
        let mut tls = false;
        let mut http = false;
        for chain in self.chains.iter().filter(relevant) {
            if specific && chain.matches.destination_port.is_none() {
                continue;
            }
            let matches = &chain.matches;
            tls |= matches.transport.is_some() || !matches.server_names.is_empty() || !matches.application_protocols.is_empty();
            http |= matches.transport != Some(Transport::Tls)
                && matches.application_protocols.iter().any(|name| matches!(name.as_str(), "http/1.0" | "http/1.1" | "h2c"));
        }
        (tls, http)
    }

    pub(crate) fn chain(&self, name: &str) -> Option<Arc<Chain>> {
        self.all().find(|chain| &*chain.name == name).cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// Envoy's order: port, address, server name, transport, application protocol; each step keeps the most specific and never
    /// goes back.
    pub(crate) fn choose(&self, candidate: &Candidate<'_>) -> Option<Arc<Chain>> {
        let mut chains: Vec<&Arc<Chain>> = self.chains.iter().collect();
        keep_best(&mut chains, |matches| match (matches.destination_port, candidate.destination) {
            (None, _) => Some(0),
            (Some(port), Some(destination)) => (port == destination.port()).then_some(1),
            (Some(_), None) => None,
        });
        keep_best(&mut chains, |matches| {
            if matches.prefix_ranges.is_empty() {
                return Some(0);
            }
            let ip = candidate.destination?.ip();
            matches
                .prefix_ranges
                .iter()
                .filter(|range| range.contains(&ip))
                .map(|range| 1 + usize::from(range.prefix_len()))
                .max()
        });
        keep_best(&mut chains, |matches| {
            if matches.server_names.is_empty() {
                return Some(0);
            }
            let name = candidate.server_name?;
            matches.server_names.iter().filter_map(|pattern| server_name_rank(pattern, name)).max()
        });
        keep_best(&mut chains, |matches| match (matches.transport, candidate.transport) {
            (None, _) => Some(0),
            (wanted, seen) => (wanted == seen).then_some(1),
        });
        keep_best(&mut chains, |matches| {
            if matches.application_protocols.is_empty() {
                return Some(0);
            }
            // What the client prefers counts most.
            let position = candidate
                .application_protocols
                .iter()
                .position(|offered| matches.application_protocols.iter().any(|wanted| wanted == offered))?;
            Some(usize::MAX - position)
        });
        chains.first().copied().or(self.default_chain.as_ref()).cloned()
    }
}

fn keep_best(chains: &mut Vec<&Arc<Chain>>, rank: impl Fn(&config::FilterChainMatch) -> Option<usize>) {
    let best = chains.iter().filter_map(|chain| rank(&chain.matches)).max();
    match best {
        None => chains.clear(),
        Some(best) => chains.retain(|chain| rank(&chain.matches) == Some(best)),
    }
}

fn server_name_rank(pattern: &str, name: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        Some("") => Some(1),
        Some(suffix) => {
            let end = name.len().checked_sub(suffix.len()).filter(|at| *at > 0)?;
            name.get(end..)?.eq_ignore_ascii_case(suffix).then_some(1 + suffix.len())
        }
        None => pattern.eq_ignore_ascii_case(name).then_some(usize::MAX),
    }
}

impl Chain {
    fn new(
        config: &config::FilterChain,
        secrets: Secrets<'_>,
        identity: &CurrentIdentity,
        problems: &mut Vec<String>,
    ) -> Result<Self, ListenerError> {
        let tls = config.tls.as_ref().map(|tls| match ServerTls::new(tls, secrets, identity) {
            Ok(tls) => ChainTls::Ready(tls),
            Err(error) => {
                problems.push(format!("filter chain {}: {error}", config.name));
                ChainTls::Broken(TlsError::to_string(&error))
            }
        });
        let access = |source| ListenerError::Access { chain: config.name.clone(), source };
        let kind = match &config.protocol {
            ChainProtocol::Http(http) => ChainKind::Http(Arc::new(HttpChain {
                access: HttpAccess::new(&http.access).map_err(access)?,
                config: http.clone(),
            })),
            ChainProtocol::Tcp(tcp) => {
                let total_weight = tcp.clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
                if tcp.clusters.is_empty() || (tcp.clusters.len() > 1 && total_weight == 0) {
                    return Err(ListenerError::NoCluster(config.name.clone()));
                }
                let access = TcpAccess::new(&tcp.access).map_err(access)?;
                ChainKind::Tcp(Arc::new(TcpChain { access, config: tcp.clone(), total_weight }))
            }
        };
        Ok(Self { name: config.name.as_str().into(), matches: config.matches.clone(), tls, kind })
    }
}

#[cfg(test)]
mod tests {
    use meshlab_proxy_config::{Direction, FilterChain, FilterChainMatch, TcpProxy, WeightedTcpCluster};

    use super::*;

    fn chain(name: &str, matches: FilterChainMatch) -> FilterChain {
        let protocol = ChainProtocol::Tcp(TcpProxy {
            stat_prefix: String::new(),
            clusters: vec![WeightedTcpCluster { cluster: "c".into(), weight: 1 }],
            access: Default::default(),
            idle_timeout_ms: 0,
            origin: None,
        });
        FilterChain { name: name.into(), matches, tls: None, protocol }
    }

    fn listener(chains: Vec<FilterChain>, default: bool) -> Listener {
        let config = config::Listener {
            name: "l".into(),
            address: "0.0.0.0:0".parse().unwrap(),
            bind: false,
            use_original_destination: false,
            direction: Direction::Inbound,
            filter_chains: chains,
            default_filter_chain: default.then(|| chain("default", FilterChainMatch::default())),
        };
        Listener::new(Arc::new(config), &Default::default(), &Default::default()).unwrap().0
    }

    fn chosen(listener: &Listener, candidate: &Candidate<'_>) -> Option<String> {
        listener.choose(candidate).map(|chain| chain.name.to_string())
    }

    #[test]
    fn the_most_specific_server_name_wins() {
        let named = |name: &str| chain(name, FilterChainMatch { server_names: vec![name.into()], ..FilterChainMatch::default() });
        let listener = listener(vec![named("*.com"), named("a.example.com"), named("*.example.com")], true);
        for (name, wanted) in
            [("a.example.com", "a.example.com"), ("b.example.com", "*.example.com"), ("b.com", "*.com"), ("b.org", "default")]
        {
            let candidate = Candidate { server_name: Some(name), ..Candidate::default() };
            assert_eq!(chosen(&listener, &candidate).as_deref(), Some(wanted), "{name}");
        }
        assert_eq!(chosen(&listener, &Candidate::default()).as_deref(), Some("default"));
    }

    #[test]
    fn fact_32_permissive_takes_mesh_tls_and_plaintext_on_one_port() {
        let tls = FilterChainMatch {
            destination_port: Some(8080),
            transport: Some(Transport::Tls),
            application_protocols: vec!["istio".into(), "istio-http/1.1".into()],
            ..FilterChainMatch::default()
        };
        let raw =
            FilterChainMatch { destination_port: Some(8080), transport: Some(Transport::Raw), ..FilterChainMatch::default() };
        let other_tls = FilterChainMatch { destination_port: Some(8080), ..FilterChainMatch::default() };
        let listener = listener(vec![chain("tls", tls), chain("raw", raw), chain("passthrough", other_tls)], false);
        let destination = Some("10.0.0.1:8080".parse().unwrap());
        let pick = |transport, application_protocols| {
            chosen(&listener, &Candidate { destination, transport: Some(transport), application_protocols, server_name: None })
        };
        assert_eq!(pick(Transport::Tls, vec!["istio-http/1.1", "istio"]).as_deref(), Some("tls"));
        assert_eq!(pick(Transport::Raw, vec!["http/1.1"]).as_deref(), Some("raw"));
        let elsewhere = Candidate { destination: Some("10.0.0.1:9".parse().unwrap()), ..Candidate::default() };
        assert_eq!(chosen(&listener, &elsewhere), None, "the connection is closed");
    }
}
