//! Puts a proxy's configuration together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meshlab_proxy_config::{Cluster, Listener, ProxyConfig, RouteConfiguration};

use crate::proxy::{ClassKey, ProxyIdentity, Role};
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::{Problem, cluster, listener, telemetry};

/// A proxy's configuration, and what is wrong with resources that concern it.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The configuration; parts that did not change share memory with other proxies'.
    pub config: Arc<ProxyConfig>,
    /// Sorted, without repetition.
    pub problems: Arc<[Problem]>,
}

/// Compiles one proxy.
pub fn compile(snapshot: &Snapshot, proxy: &ProxyIdentity) -> Compiled {
    Compiler::new(snapshot).compile(proxy)
}

/// Compiles many proxies of one snapshot; what they have in common is compiled once and shared.
pub struct Compiler<'a> {
    snapshot: &'a Snapshot,
    classes: HashMap<ClassKey, Compiled>,
    clusters: HashMap<Arc<str>, Arc<Cluster>>,
}

impl<'a> Compiler<'a> {
    /// For one snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, classes: HashMap::new(), clusters: HashMap::new() }
    }

    /// The configuration of a proxy.
    pub fn compile(&mut self, proxy: &ProxyIdentity) -> Compiled {
        let class = self.snapshot.class(proxy);
        if let Some(compiled) = self.classes.get(&class) {
            return compiled.clone();
        }
        let mut problems = self.snapshot.problems().to_vec();
        let config = match proxy.role {
            Role::Sidecar => self.sidecar(proxy, &mut problems),
            Role::Gateway => self.gateway(proxy, &mut problems),
        };
        problems.sort();
        problems.dedup();
        let compiled = Compiled { config: Arc::new(config), problems: problems.into() };
        self.classes.insert(class, compiled.clone());
        compiled
    }

    fn sidecar(&mut self, proxy: &ProxyIdentity, problems: &mut Vec<Problem>) -> ProxyConfig {
        let scope = Scope::new(self.snapshot, proxy);
        let mut config = self.common(proxy);
        let mut clusters = Vec::new();
        for service in scope.services() {
            cluster::service_clusters(self.snapshot, proxy, service, &mut clusters);
        }
        self.add_clusters(&mut config, clusters);
        let (listeners, routes) = listener::outbound::build(self.snapshot, proxy, &scope);
        add(&mut config, listeners, routes);
        let inbound = listener::inbound::build(self.snapshot, proxy, &scope, problems);
        config.clusters.extend(inbound.clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster))));
        add(&mut config, inbound.listeners, inbound.routes);
        self.add_providers(&mut config, proxy);
        config
    }

    fn gateway(&mut self, proxy: &ProxyIdentity, problems: &mut Vec<Problem>) -> ProxyConfig {
        let mut config = self.common(proxy);
        let mut clusters = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for service in self.snapshot.services().iter().filter(|service| service.visibility.visible_in(&proxy.namespace)) {
            if seen.insert(service.host.as_str()) {
                let service = self.snapshot.service(&service.host, &proxy.namespace).unwrap_or(service);
                cluster::service_clusters(self.snapshot, proxy, service, &mut clusters);
            }
        }
        self.add_clusters(&mut config, clusters);
        let gateway = listener::gateway::build(self.snapshot, proxy, problems);
        add(&mut config, gateway.listeners, gateway.routes);
        config.secrets = gateway.secrets;
        self.add_providers(&mut config, proxy);
        config
    }

    fn common(&self, proxy: &ProxyIdentity) -> ProxyConfig {
        ProxyConfig {
            clusters: cluster::fixed_clusters(proxy.role).into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect(),
            telemetry: Arc::new(telemetry::telemetry(self.snapshot, proxy)),
            ..Default::default()
        }
    }

    /// The clusters of authorizers and of the receiver of spans, also where a Sidecar does not import them.
    fn add_providers(&mut self, config: &mut ProxyConfig, proxy: &ProxyIdentity) {
        let mut wanted: Vec<String> = config.telemetry.tracing.iter().map(|tracing| tracing.cluster.clone()).collect();
        for chain in config.listeners.values().flat_map(|listener| &listener.filter_chains) {
            if let meshlab_proxy_config::ChainProtocol::Http(http) = &chain.protocol {
                wanted.extend(http.access.custom.iter().map(|custom| custom.provider.cluster.clone()));
            }
        }
        wanted.retain(|name| !config.clusters.contains_key(name));
        wanted.sort();
        wanted.dedup();
        for name in wanted {
            let host = name.rsplit('|').next().unwrap_or_default();
            if let Some(service) = self.snapshot.service_or_wildcard(host, &proxy.namespace) {
                let mut clusters = Vec::new();
                cluster::service_clusters(self.snapshot, proxy, service, &mut clusters);
                clusters.retain(|(cluster, _)| cluster.name == name);
                self.add_clusters(config, clusters);
            }
        }
    }

    /// Adds clusters; one that another proxy has got already in the same form is shared.
    fn add_clusters(&mut self, config: &mut ProxyConfig, clusters: Vec<cluster::Compiled>) {
        for (cluster, endpoints) in clusters {
            if let Some(endpoints) = endpoints {
                config.endpoints.insert(cluster.name.clone(), endpoints);
            }
            let shared = match self.clusters.get(cluster.name.as_str()) {
                Some(known) if **known == *cluster => known.clone(),
                _ => {
                    self.clusters.insert(cluster.name.as_str().into(), cluster.clone());
                    cluster
                }
            };
            config.clusters.insert(shared.name.clone(), shared);
        }
    }
}

fn add(config: &mut ProxyConfig, listeners: Vec<Listener>, routes: Vec<RouteConfiguration>) {
    let listeners: BTreeMap<_, _> = listeners.into_iter().map(|listener| (listener.name.clone(), Arc::new(listener))).collect();
    config.listeners.extend(listeners);
    for route in routes {
        config.routes.entry(route.name.clone()).or_insert_with(|| Arc::new(route));
    }
}
