//! Names: the cluster's DNS records, and the resolver of a host.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use rand::seq::SliceRandom;

use super::host::HostOptions;

/// A chain of aliases longer than this is taken for a loop.
const MAX_ALIASES: usize = 8;

/// What a DNS name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// These addresses (a ClusterIP, or the pods of a headless service). An empty list is a name that exists and has no address.
    Addresses(Vec<IpAddr>),
    /// Another name (`ExternalName`).
    Cname(String),
}

/// An answer of the resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The full name that had the addresses, search domain and aliases followed.
    pub name: String,
    /// Its addresses, in random order.
    pub addresses: Vec<IpAddr>,
}

#[derive(Default)]
pub(super) struct Records(HashMap<String, Record>);

impl Records {
    pub(super) fn upsert(&mut self, name: &str, record: Record) {
        self.0.insert(normal(name), record);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(&normal(name));
    }

    /// Follows aliases from a full name.
    fn follow(&self, name: String) -> Found {
        let mut name = name;
        for _ in 0..MAX_ALIASES {
            match self.0.get(&name) {
                Some(Record::Addresses(addresses)) => return Found::Here(name, addresses.clone()),
                Some(Record::Cname(target)) => name = normal(target),
                None => return Found::Nothing(name),
            }
        }
        Found::Nothing(name)
    }
}

enum Found {
    Here(String, Vec<IpAddr>),
    /// The name where the trail was lost.
    Nothing(String),
}

/// What resolving a name inside the fabric came to.
pub(super) enum Resolved {
    Known(Lookup),
    /// Unknown here; outside, this name may be known (the target of an `ExternalName`, or the name itself).
    Outside(String),
}

/// Resolves as the host's C library would: literals, `/etc/hosts`, then DNS with search domains.
pub(super) fn resolve(records: &Records, host: &HostOptions, own: IpAddr, name: &str) -> Resolved {
    let known = |name: &str, addresses| Resolved::Known(Lookup { name: name.to_owned(), addresses });
    if let Ok(literal) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return known(name, vec![literal]);
    }
    let wanted = normal(name);
    if wanted == "localhost" || wanted.ends_with(".localhost") {
        return known("localhost", vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    if wanted == normal(&host.hostname) {
        return known(&wanted, vec![own]);
    }
    if let Some((_, address)) = host.aliases.iter().find(|(alias, _)| normal(alias) == wanted) {
        return known(&wanted, vec![*address]);
    }
    let mut outside = None;
    for candidate in candidates(name, &wanted, host) {
        match records.follow(candidate.clone()) {
            Found::Here(name, mut addresses) => {
                addresses.shuffle(&mut rand::rng());
                return Resolved::Known(Lookup { name, addresses });
            }
            Found::Nothing(lost) if lost != candidate => outside = outside.or(Some(lost)),
            Found::Nothing(_) => {}
        }
    }
    Resolved::Outside(outside.unwrap_or(wanted))
}

/// The full names to try, in order.
fn candidates(name: &str, wanted: &str, host: &HostOptions) -> Vec<String> {
    if name.ends_with('.') {
        return vec![wanted.to_owned()];
    }
    let completed = host.search.iter().map(|domain| format!("{wanted}.{}", normal(domain)));
    let as_it_stands = std::iter::once(wanted.to_owned());
    if wanted.matches('.').count() >= host.ndots {
        as_it_stands.chain(completed).collect()
    } else {
        completed.chain(as_it_stands).collect()
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
