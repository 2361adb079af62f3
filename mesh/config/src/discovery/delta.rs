//! What changes from one configuration to the next.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Cluster, Endpoints, Listener, ProxyConfig, RouteConfiguration, Secret, TelemetryConfig, VirtualHost};

/// A change of configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// Number of the configuration this leads to; it increases on a stream.
    pub version: u64,
    /// Start from nothing instead of from what the proxy has.
    #[serde(skip_serializing_if = "is_false")]
    pub complete: bool,
    /// Listeners.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub listeners: Delta<Listener>,
    /// Route tables, as a whole.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub routes: Delta<RouteConfiguration>,
    /// Virtual hosts of tables that the proxy has already, by table. A port's table has a virtual host for every service of the mesh.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub virtual_hosts: BTreeMap<String, Delta<VirtualHost>>,
    /// Clusters.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub clusters: Delta<Cluster>,
    /// Members of clusters.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub endpoints: Delta<Endpoints>,
    /// Certificates of gateways.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub secrets: Delta<Secret>,
    /// Telemetry, when it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Arc<TelemetryConfig>>,
}

/// Resources of one type that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
pub struct Delta<T> {
    /// New or changed, by name.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Arc<T>>,
    /// Gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

impl<T> Default for Delta<T> {
    fn default() -> Self {
        Self { set: BTreeMap::new(), removed: Vec::new() }
    }
}

/// Which resources have been found equal. Proxies share most of what they have and get, so a pair is compared once, and not once for
/// each proxy. What is compared lives as long as this, so that an address means one resource.
#[derive(Debug, Default)]
pub struct Comparisons<'a> {
    known: HashMap<(usize, usize), bool>,
    compared: PhantomData<&'a ()>,
}

impl<'a> Comparisons<'a> {
    fn equal<T: PartialEq>(&mut self, old: &'a Arc<T>, new: &'a Arc<T>) -> bool {
        let addresses = (Arc::as_ptr(old).addr(), Arc::as_ptr(new).addr());
        Arc::ptr_eq(old, new) || *self.known.entry(addresses).or_insert_with(|| old == new)
    }
}

impl<T: PartialEq> Delta<T> {
    fn all(new: &BTreeMap<String, Arc<T>>) -> Self {
        Self { set: new.clone(), removed: Vec::new() }
    }

    fn between<'a>(
        old: &'a BTreeMap<String, Arc<T>>,
        new: &'a BTreeMap<String, Arc<T>>,
        comparisons: &mut Comparisons<'a>,
    ) -> Self {
        let named = |resources: &'a BTreeMap<String, Arc<T>>| {
            resources.iter().map(|(name, resource)| (name.as_str(), name.as_str(), resource))
        };
        Self::walk(named(old), named(new), comparisons)
    }

    /// Both come in the order of their keys, so one walk through both is enough. Each is a key, a name and a resource.
    fn walk<'a, K: Ord>(
        old: impl Iterator<Item = (K, &'a str, &'a Arc<T>)>,
        new: impl Iterator<Item = (K, &'a str, &'a Arc<T>)>,
        comparisons: &mut Comparisons<'a>,
    ) -> Self
    where
        T: 'a,
    {
        let mut delta = Self::default();
        let mut had = old.peekable();
        for (key, name, value) in new {
            while let Some((_, gone, _)) = had.next_if(|(had, _, _)| *had < key) {
                delta.removed.push(gone.to_owned());
            }
            let before = had.next_if(|(had, _, _)| *had == key);
            if before.is_none_or(|(_, _, before)| !comparisons.equal(before, value)) {
                delta.set.insert(name.to_owned(), value.clone());
            }
        }
        delta.removed.extend(had.map(|(_, gone, _)| gone.to_owned()));
        // A virtual host may have changed its place.
        delta.removed.retain(|gone| !delta.set.contains_key(gone));
        delta
    }
}

impl Delta<VirtualHost> {
    /// What leads from one table to the other, unless it can only be told as a whole.
    fn within<'a>(old: &'a RouteConfiguration, new: &'a RouteConfiguration, comparisons: &mut Comparisons<'a>) -> Option<Self> {
        let alike = old.name == new.name && old.ignore_port_in_host == new.ignore_port_in_host;
        if !alike || !old.is_ordered() || !new.is_ordered() {
            return None;
        }
        let ordered =
            |table: &'a RouteConfiguration| table.virtual_hosts.iter().map(|host| (host.order(), host.name.as_str(), host));
        Some(Self::walk(ordered(old), ordered(new), comparisons))
    }

    fn change(self, table: &RouteConfiguration) -> RouteConfiguration {
        let stays = |host: &&Arc<VirtualHost>| !self.set.contains_key(&host.name) && !self.removed.contains(&host.name);
        let mut virtual_hosts: Vec<_> = table.virtual_hosts.iter().filter(stays).cloned().collect();
        virtual_hosts.extend(self.set.into_values());
        RouteConfiguration::new(table.name.clone(), virtual_hosts, table.ignore_port_in_host)
    }
}

impl<T> Delta<T> {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    /// How many resources changed.
    pub fn len(&self) -> usize {
        self.set.len() + self.removed.len()
    }

    fn apply(self, resources: &mut BTreeMap<String, Arc<T>>) {
        for name in &self.removed {
            resources.remove(name);
        }
        resources.extend(self.set);
    }
}

impl Update {
    /// What leads from `old` to `new`; without `old`, all of `new`.
    pub fn between(version: u64, old: Option<&ProxyConfig>, new: &ProxyConfig) -> Self {
        match old {
            Some(old) => Self::from_old(version, old, new, &mut Comparisons::default()),
            None => Self {
                version,
                complete: true,
                listeners: Delta::all(&new.listeners),
                routes: Delta::all(&new.routes),
                virtual_hosts: BTreeMap::new(),
                clusters: Delta::all(&new.clusters),
                endpoints: Delta::all(&new.endpoints),
                secrets: Delta::all(&new.secrets),
                telemetry: Some(new.telemetry.clone()),
            },
        }
    }

    /// What leads from `old` to `new`, for one of many proxies.
    pub fn from_old<'a>(version: u64, old: &'a ProxyConfig, new: &'a ProxyConfig, comparisons: &mut Comparisons<'a>) -> Self {
        let mut routes = Delta::between(&old.routes, &new.routes, comparisons);
        let mut virtual_hosts = BTreeMap::new();
        routes.set.retain(|name, _| {
            let tables = old.routes.get(name).zip(new.routes.get(name));
            let delta = tables.and_then(|(old, new)| Delta::within(old, new, comparisons));
            delta.map(|delta| virtual_hosts.insert(name.clone(), delta)).is_none()
        });
        Self {
            version,
            complete: false,
            listeners: Delta::between(&old.listeners, &new.listeners, comparisons),
            routes,
            virtual_hosts,
            clusters: Delta::between(&old.clusters, &new.clusters, comparisons),
            endpoints: Delta::between(&old.endpoints, &new.endpoints, comparisons),
            secrets: Delta::between(&old.secrets, &new.secrets, comparisons),
            telemetry: (old.telemetry != new.telemetry).then(|| new.telemetry.clone()),
        }
    }

    /// Whether a proxy would notice it.
    pub fn is_empty(&self) -> bool {
        !self.complete && self.telemetry.is_none() && self.counts().iter().all(|(_, count)| *count == 0)
    }

    /// How many resources of each type changed, by Envoy's short names.
    pub fn counts(&self) -> [(&'static str, usize); 5] {
        [
            ("CDS", self.clusters.len()),
            ("LDS", self.listeners.len()),
            ("EDS", self.endpoints.len()),
            ("RDS", self.routes.len() + self.virtual_hosts.len()),
            ("SDS", self.secrets.len()),
        ]
    }

    /// The configuration that `config` becomes.
    #[must_use]
    pub fn apply(self, config: &ProxyConfig) -> ProxyConfig {
        let mut config = if self.complete { ProxyConfig::default() } else { config.clone() };
        self.listeners.apply(&mut config.listeners);
        self.routes.apply(&mut config.routes);
        for (name, delta) in self.virtual_hosts {
            // The control plane knows what the proxy has: a table that is not there cannot have been meant.
            if let Some(table) = config.routes.get_mut(&name) {
                *table = Arc::new(delta.change(table));
            }
        }
        self.clusters.apply(&mut config.clusters);
        self.endpoints.apply(&mut config.endpoints);
        self.secrets.apply(&mut config.secrets);
        if let Some(telemetry) = self.telemetry {
            config.telemetry = telemetry;
        }
        config
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(address: &str) -> Arc<Endpoints> {
        let address = address.parse().unwrap();
        let endpoint = crate::Endpoint { address, weight: 1, priority: 0, metadata: crate::EndpointMetadata::default() };
        Arc::new(Endpoints { endpoints: vec![endpoint] })
    }

    fn config(members: &[(&str, &str)]) -> ProxyConfig {
        let endpoints = members.iter().map(|(name, address)| ((*name).to_owned(), endpoints(address))).collect();
        ProxyConfig { endpoints, ..ProxyConfig::default() }
    }

    #[test]
    fn a_delta_leads_from_one_configuration_to_the_next() {
        let old = config(&[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]);
        let new = config(&[("b", "10.0.0.3:80"), ("c", "10.0.0.4:80")]);
        let update = Update::between(2, Some(&old), &new);
        assert_eq!(update.endpoints.set.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(update.endpoints.removed, ["a"]);
        assert!(update.telemetry.is_none() && !update.complete);
        assert_eq!(update.apply(&old), new);
    }

    #[test]
    fn equal_content_is_no_change_even_in_another_allocation() {
        let update = Update::between(2, Some(&config(&[("a", "10.0.0.1:80")])), &config(&[("a", "10.0.0.1:80")]));
        assert!(update.is_empty());
    }

    #[test]
    fn a_complete_update_forgets_what_was_there() {
        let new = config(&[("a", "10.0.0.1:80")]);
        let update = Update::between(1, None, &new);
        assert!(!update.is_empty());
        assert_eq!(update.apply(&config(&[("z", "10.0.0.9:80")])), new);
    }

    #[test]
    fn one_walk_finds_what_came_what_went_and_what_changed() {
        let old = config(&[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80"), ("d", "10.0.0.4:80"), ("f", "10.0.0.6:80")]);
        let new = config(&[("b", "10.0.0.2:80"), ("c", "10.0.0.3:80"), ("d", "10.0.0.5:80"), ("e", "10.0.0.1:80")]);
        let mut comparisons = Comparisons::default();
        for _ in 0..2 {
            let delta = Update::from_old(2, &old, &new, &mut comparisons).endpoints;
            assert_eq!(delta.set.keys().collect::<Vec<_>>(), ["c", "d", "e"]);
            assert_eq!(delta.removed, ["a", "f"]);
        }
    }

    fn virtual_host(name: &str, domain: &str, answer: u16) -> Arc<VirtualHost> {
        let matches = crate::RouteMatch {
            path: crate::PathMatch::Prefix("/".into()),
            ignore_path_case: false,
            headers: Vec::new(),
            query: Vec::new(),
            claims: Vec::new(),
        };
        let route = crate::Route {
            name: "default".into(),
            matches,
            action: crate::RouteAction::DirectResponse { status: answer, body: String::new() },
            request_headers: crate::HeaderOperations::default(),
            response_headers: crate::HeaderOperations::default(),
            fault: None,
            cors: None,
            operation: String::new(),
            origin: None,
        };
        Arc::new(VirtualHost { name: name.into(), domains: vec![domain.into()], routes: vec![route], require_tls: false })
    }

    fn with_table(virtual_hosts: Vec<Arc<VirtualHost>>) -> ProxyConfig {
        let table = RouteConfiguration::new("80".into(), virtual_hosts, true);
        ProxyConfig { routes: [("80".to_owned(), Arc::new(table))].into(), ..ProxyConfig::default() }
    }

    #[test]
    fn of_a_route_table_only_the_virtual_hosts_that_changed_are_told() {
        let shared = virtual_host("s:80", "s", 200);
        let catch_all = virtual_host("allow_any", "*", 200);
        let old =
            with_table(vec![virtual_host("a:80", "a", 200), shared.clone(), virtual_host("z:80", "z", 200), catch_all.clone()]);
        let new = with_table(vec![virtual_host("a:80", "a", 503), virtual_host("b:80", "b", 200), shared.clone(), catch_all]);
        let update = Update::between(2, Some(&old), &new);
        assert!(update.routes.is_empty() && !update.is_empty());
        let delta = &update.virtual_hosts["80"];
        assert_eq!(delta.set.keys().collect::<Vec<_>>(), ["a:80", "b:80"]);
        assert_eq!(delta.removed, ["z:80"]);
        let applied = update.apply(&old);
        assert_eq!(applied, new);
        assert!(Arc::ptr_eq(&applied.routes["80"].virtual_hosts[2], &shared), "what stays is not made again");
        assert_eq!(applied.routes["80"].virtual_hosts[3].name, "allow_any");
    }

    #[test]
    fn a_virtual_host_that_comes_to_take_all_names_changes_its_place() {
        let old = with_table(vec![virtual_host("a:80", "a", 200), virtual_host("b:80", "b", 200)]);
        let new = with_table(vec![virtual_host("a:80", "*", 200), virtual_host("b:80", "b", 200)]);
        for (from, to) in [(&old, &new), (&new, &old)] {
            let update = Update::between(2, Some(from), to);
            assert_eq!(update.apply(from), *to);
        }
    }

    #[test]
    fn a_table_in_an_order_of_its_own_is_told_as_a_whole() {
        let table = |hosts: [Arc<VirtualHost>; 2]| RouteConfiguration {
            name: "80".into(),
            virtual_hosts: hosts.into(),
            ignore_port_in_host: true,
        };
        let config = |table| ProxyConfig { routes: [("80".to_owned(), Arc::new(table))].into(), ..ProxyConfig::default() };
        let old = config(table([virtual_host("b:80", "b", 200), virtual_host("a:80", "a", 200)]));
        let new = config(table([virtual_host("a:80", "a", 200), virtual_host("b:80", "b", 200)]));
        let update = Update::between(2, Some(&old), &new);
        assert!(update.virtual_hosts.is_empty());
        assert_eq!(update.apply(&old), new);
    }
}
