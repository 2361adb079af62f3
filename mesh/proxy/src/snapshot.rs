//! The configuration as the data path reads it: compiled, immutable, swapped as a whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;
use meshlab_proxy_config as config;
use meshlab_proxy_config::{CertificateSource, Discovery, ProxyConfig, UpstreamTls};

use crate::cluster::stats::ClusterStats;
use crate::cluster::{Cluster, ClusterContext};
use crate::listener::chain::Listener;
use crate::proxy::Shared;
use crate::route::RouteTable;
use crate::telemetry::Telemetry;

/// All that is known at one time.
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    /// What is in effect: the last good state of each resource.
    pub(crate) config: Arc<ProxyConfig>,
    pub(crate) listeners: AHashMap<Arc<str>, Arc<Listener>>,
    /// Listeners with a socket, by its address.
    pub(crate) bound: AHashMap<SocketAddr, Arc<Listener>>,
    /// Listeners that take over connections by their original destination.
    virtual_exact: AHashMap<SocketAddr, Arc<Listener>>,
    virtual_wildcard: AHashMap<u16, Arc<Listener>>,
    pub(crate) routes: AHashMap<String, Arc<RouteTable>>,
    pub(crate) clusters: AHashMap<String, Arc<Cluster>>,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Why resources were not taken over, by their name with its kind (`listener/0.0.0.0_80`). The others took effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.summary())]
pub struct ApplyErrors(pub BTreeMap<String, String>);

impl ApplyErrors {
    fn summary(&self) -> String {
        let lines: Vec<String> = self.0.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        lines.join("; ")
    }

    fn add(&mut self, kind: &str, name: &str, reason: impl ToString) {
        self.0.insert(format!("{kind}/{name}"), reason.to_string());
    }
}

impl Snapshot {
    /// Nothing configured yet.
    pub(crate) fn empty(proxy_node: &str, metrics: &crate::telemetry::metrics::Metrics) -> Self {
        let (telemetry, _) = Telemetry::new(Arc::default(), proxy_node, &metrics.peers);
        Self {
            version: 0,
            config: Arc::default(),
            listeners: AHashMap::new(),
            bound: AHashMap::new(),
            virtual_exact: AHashMap::new(),
            virtual_wildcard: AHashMap::new(),
            routes: AHashMap::new(),
            clusters: AHashMap::new(),
            telemetry: Arc::new(telemetry),
        }
    }

    /// The listener for connections that wanted to go to `destination`.
    pub(crate) fn listener_for(&self, destination: SocketAddr) -> Option<Arc<Listener>> {
        self.virtual_exact.get(&destination).or_else(|| self.virtual_wildcard.get(&destination.port())).cloned()
    }

    /// Compiles `wanted`, resource by resource, keeping what has not changed, and the last good state of what is bad.
    pub(crate) fn next(&self, wanted: &ProxyConfig, proxy: &Shared) -> (Self, ApplyErrors) {
        let mut errors = ApplyErrors::default();
        let mut effective = wanted.clone();
        let changed_secrets = changed_secrets(&self.config, wanted);
        let clusters = self.compile_clusters(wanted, &mut effective, &changed_secrets, proxy, &mut errors);
        let routes = self.compile_routes(wanted, &mut effective, &mut errors);
        let listeners = self.compile_listeners(wanted, &mut effective, &changed_secrets, proxy, &mut errors);
        let telemetry = if same(&self.config.telemetry, &wanted.telemetry) && self.version > 0 {
            self.telemetry.clone()
        } else {
            let (mut telemetry, problems) =
                Telemetry::new(wanted.telemetry.clone(), &proxy.options.node_id, &proxy.metrics.peers);
            telemetry.environment = proxy.options.environment.clone();
            if !problems.is_empty() {
                errors.add("telemetry", "telemetry", problems.join("; "));
            }
            Arc::new(telemetry)
        };
        let mut next = Self {
            version: self.version + 1,
            config: Arc::new(effective),
            bound: AHashMap::new(),
            virtual_exact: AHashMap::new(),
            virtual_wildcard: AHashMap::new(),
            listeners,
            routes,
            clusters,
            telemetry,
        };
        next.index_listeners();
        (next, errors)
    }

    fn index_listeners(&mut self) {
        for listener in self.listeners.values() {
            let address = listener.config.address;
            if listener.config.bind {
                self.bound.insert(address, listener.clone());
            } else if address.ip().is_unspecified() {
                self.virtual_wildcard.insert(address.port(), listener.clone());
            } else {
                self.virtual_exact.insert(address, listener.clone());
            }
        }
    }

    fn compile_clusters(
        &self,
        wanted: &ProxyConfig,
        effective: &mut ProxyConfig,
        changed_secrets: &[String],
        proxy: &Shared,
        errors: &mut ApplyErrors,
    ) -> AHashMap<String, Arc<Cluster>> {
        let context = ClusterContext { shared: &proxy.upstreams, secrets: &wanted.secrets };
        let mut clusters = AHashMap::with_capacity(wanted.clusters.len());
        for (name, config) in &wanted.clusters {
            let before = self.clusters.get(name);
            let unchanged =
                before.filter(|cluster| same(&cluster.config, config) && !uses_secret(cluster_secrets(config), changed_secrets));
            let cluster = match unchanged {
                Some(cluster) => cluster.clone(),
                None => {
                    let stats = before.map_or_else(|| Arc::new(ClusterStats::default()), |cluster| cluster.stats.clone());
                    let (cluster, problem) = Cluster::new(config.clone(), stats, &context);
                    match (problem, before) {
                        (None, _) => cluster,
                        (Some(problem), Some(before)) => {
                            errors.add("cluster", name, problem);
                            effective.clusters.insert(name.clone(), before.config.clone());
                            before.clone()
                        }
                        (Some(problem), None) => {
                            errors.add("cluster", name, problem);
                            cluster
                        }
                    }
                }
            };
            if config.discovery == Discovery::Eds {
                let empty = Arc::default();
                let endpoints = wanted.endpoints.get(name).unwrap_or(&empty);
                let known = self.config.endpoints.get(name).is_some_and(|before| same(before, endpoints));
                if !known || unchanged.is_none() {
                    cluster.set_endpoints(&endpoints.endpoints);
                }
            }
            clusters.insert(name.clone(), cluster);
        }
        clusters
    }

    fn compile_routes(
        &self,
        wanted: &ProxyConfig,
        effective: &mut ProxyConfig,
        errors: &mut ApplyErrors,
    ) -> AHashMap<String, Arc<RouteTable>> {
        let mut routes = AHashMap::with_capacity(wanted.routes.len());
        for (name, config) in &wanted.routes {
            let before = self.routes.get(name).zip(self.config.routes.get(name));
            if let Some((table, _)) = before.filter(|(_, before)| same(before, config)) {
                routes.insert(name.clone(), table.clone());
                continue;
            }
            match RouteTable::new(config, before.map(|(table, _)| &**table)) {
                Ok(table) => drop(routes.insert(name.clone(), Arc::new(table))),
                Err(error) => {
                    errors.add("route", name, error);
                    match before {
                        Some((table, config)) => {
                            routes.insert(name.clone(), table.clone());
                            effective.routes.insert(name.clone(), config.clone());
                        }
                        None => drop(effective.routes.remove(name)),
                    }
                }
            }
        }
        routes
    }

    fn compile_listeners(
        &self,
        wanted: &ProxyConfig,
        effective: &mut ProxyConfig,
        changed_secrets: &[String],
        proxy: &Shared,
        errors: &mut ApplyErrors,
    ) -> AHashMap<Arc<str>, Arc<Listener>> {
        let mut listeners = AHashMap::with_capacity(wanted.listeners.len());
        for (name, config) in &wanted.listeners {
            let before = self.listeners.get(name.as_str());
            if let Some(listener) = before
                .filter(|listener| same(&listener.config, config) && !uses_secret(listener_secrets(config), changed_secrets))
            {
                listeners.insert(listener.name.clone(), listener.clone());
                continue;
            }
            match Listener::new(config.clone(), &wanted.secrets, &proxy.identity) {
                Ok((listener, problems)) => {
                    if !problems.is_empty() {
                        errors.add("listener", name, problems.join("; "));
                    }
                    listeners.insert(name.as_str().into(), Arc::new(listener));
                }
                Err(error) => {
                    errors.add("listener", name, error);
                    match before {
                        Some(listener) => {
                            listeners.insert(listener.name.clone(), listener.clone());
                            effective.listeners.insert(name.clone(), listener.config.clone());
                        }
                        None => drop(effective.listeners.remove(name)),
                    }
                }
            }
        }
        listeners
    }
}

fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn changed_secrets(before: &ProxyConfig, after: &ProxyConfig) -> Vec<String> {
    let names = before.secrets.keys().chain(after.secrets.keys());
    names.filter(|name| before.secrets.get(*name) != after.secrets.get(*name)).cloned().collect()
}

fn uses_secret<'a>(mut used: impl Iterator<Item = &'a CertificateSource>, changed: &[String]) -> bool {
    !changed.is_empty() && used.any(|source| matches!(source, CertificateSource::Secret(name) if changed.contains(name)))
}

fn cluster_secrets(config: &config::Cluster) -> impl Iterator<Item = &CertificateSource> {
    let sources = match &config.tls {
        UpstreamTls::Custom { client_certificate, ca, .. } => [client_certificate.as_ref(), ca.as_ref()],
        _ => [None, None],
    };
    sources.into_iter().flatten()
}

fn listener_secrets(config: &config::Listener) -> impl Iterator<Item = &CertificateSource> {
    config
        .filter_chains
        .iter()
        .chain(&config.default_filter_chain)
        .filter_map(|chain| chain.tls.as_ref())
        .map(|tls| &tls.certificate)
}
