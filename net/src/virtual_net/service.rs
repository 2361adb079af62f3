//! Service addresses and how connections are spread over endpoints, as kube-proxy's iptables mode does it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::seq::IndexedRandom;

/// A client's choice is forgotten when so many others were made since; far more than a lab has clients.
const MAX_REMEMBERED: usize = 16 * 1024;

/// One port of a service, at one of its cluster addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Cluster address and port.
    pub address: SocketAddr,
    /// Ready endpoints: pod address and target port. None: connections are refused.
    pub endpoints: Vec<SocketAddr>,
    /// `sessionAffinity: ClientIP`: a client keeps its endpoint for this long after its last connection.
    pub affinity: Option<Duration>,
}

impl ServicePort {
    /// A port without session affinity.
    pub fn new(address: SocketAddr, endpoints: Vec<SocketAddr>) -> Self {
        Self { address, endpoints, affinity: None }
    }
}

/// What a service address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Balanced {
    /// It is no service address.
    NotAService,
    /// The service has no such port, or no ready endpoint.
    Refused,
    /// This endpoint.
    Endpoint(SocketAddr),
}

#[derive(Default)]
pub(super) struct Services {
    /// Which addresses each service has, by its key.
    owned: HashMap<String, Vec<SocketAddr>>,
    ports: HashMap<SocketAddr, Port>,
    /// How many ports each address has.
    addresses: HashMap<IpAddr, usize>,
}

struct Port {
    endpoints: Vec<SocketAddr>,
    affinity: Option<Affinity>,
}

struct Affinity {
    timeout: Duration,
    chosen: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

impl Services {
    pub(super) fn upsert(&mut self, key: &str, ports: Vec<ServicePort>) {
        let mut before = self.remove(key);
        let mut owned = Vec::with_capacity(ports.len());
        for port in ports {
            let remembered = before.remove(&port.address).and_then(|old| old.affinity);
            let affinity = port
                .affinity
                .map(|timeout| Affinity { timeout, chosen: remembered.map(|affinity| affinity.chosen).unwrap_or_default() });
            let new = Port { endpoints: port.endpoints, affinity };
            if self.ports.insert(port.address, new).is_none() {
                *self.addresses.entry(port.address.ip()).or_default() += 1;
            }
            owned.push(port.address);
        }
        self.owned.insert(key.to_owned(), owned);
    }

    pub(super) fn remove_service(&mut self, key: &str) {
        self.remove(key);
    }

    fn remove(&mut self, key: &str) -> HashMap<SocketAddr, Port> {
        let mut removed = HashMap::new();
        for address in self.owned.remove(key).unwrap_or_default() {
            let Some(port) = self.ports.remove(&address) else { continue };
            removed.insert(address, port);
            if let Some(count) = self.addresses.get_mut(&address.ip()) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&address.ip());
                }
            }
        }
        removed
    }

    pub(super) fn balance(&self, client: IpAddr, address: SocketAddr) -> Balanced {
        match self.ports.get(&address) {
            Some(port) => port.choose(client).map_or(Balanced::Refused, Balanced::Endpoint),
            None if self.addresses.contains_key(&address.ip()) => Balanced::Refused,
            None => Balanced::NotAService,
        }
    }
}

impl Port {
    fn choose(&self, client: IpAddr) -> Option<SocketAddr> {
        let random = || self.endpoints.choose(&mut rand::rng()).copied();
        let Some(affinity) = &self.affinity else { return random() };
        let mut chosen = affinity.chosen.lock();
        let now = Instant::now();
        let kept = chosen
            .get(&client)
            .filter(|(endpoint, last)| now.duration_since(*last) < affinity.timeout && self.endpoints.contains(endpoint));
        let endpoint = kept.map(|(endpoint, _)| *endpoint).or_else(random)?;
        if chosen.len() >= MAX_REMEMBERED {
            chosen.clear();
        }
        chosen.insert(client, (endpoint, now));
        Some(endpoint)
    }
}
