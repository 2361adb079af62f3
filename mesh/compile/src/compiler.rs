//! Puts a proxy's configuration together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use meshlab_istio_api::{Object, Sidecar};
use meshlab_proxy_config::{ChainProtocol, Cluster, Endpoints, Listener, ProxyConfig, RouteConfiguration};

use crate::kubernetes::Labels;
use crate::proxy::{ClassKey, ProxyIdentity, Role};
use crate::scope::{Scope, find_sidecar};
use crate::snapshot::Snapshot;
use crate::sources::Key;
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
    outbound: HashMap<OutboundKey, Arc<Outbound>>,
    clusters: HashMap<Arc<str>, cluster::Compiled>,
}

/// What the outbound side of a sidecar depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OutboundKey {
    namespace: String,
    sidecar: Option<Key>,
    locality: String,
    labels: Labels,
}

/// The outbound side of a sidecar.
#[derive(Default)]
struct Outbound {
    listeners: BTreeMap<String, Arc<Listener>>,
    routes: BTreeMap<String, Arc<RouteConfiguration>>,
    clusters: BTreeMap<String, Arc<Cluster>>,
    endpoints: BTreeMap<String, Arc<Endpoints>>,
}

impl<'a> Compiler<'a> {
    /// For one snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, classes: HashMap::new(), outbound: HashMap::new(), clusters: HashMap::new() }
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
        let sidecar = find_sidecar(self.snapshot, proxy);
        let outbound = self.outbound(proxy, sidecar);
        let mut config = ProxyConfig {
            listeners: outbound.listeners.clone(),
            routes: outbound.routes.clone(),
            clusters: outbound.clusters.clone(),
            endpoints: outbound.endpoints.clone(),
            secrets: BTreeMap::new(),
            telemetry: Arc::new(telemetry::telemetry(self.snapshot, proxy)),
        };
        let inbound = listener::inbound::build(self.snapshot, proxy, sidecar, problems);
        config.clusters.extend(inbound.clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster))));
        config.listeners.extend(by_name(inbound.listeners, |listener| &listener.name));
        config.routes.extend(by_name(inbound.routes, |route| &route.name));
        self.add_providers(&mut config, proxy);
        config
    }

    fn outbound(&mut self, proxy: &ProxyIdentity, sidecar: Option<&'a Arc<Object<Sidecar>>>) -> Arc<Outbound> {
        let key = OutboundKey {
            namespace: proxy.namespace.clone(),
            sidecar: sidecar.map(|sidecar| (sidecar.meta.namespace.clone(), sidecar.meta.name.clone())),
            locality: proxy.locality.clone(),
            labels: self.snapshot.outbound_labels(&proxy.labels),
        };
        if let Some(outbound) = self.outbound.get(&key) {
            return outbound.clone();
        }
        let scope = Scope::new(self.snapshot, proxy, sidecar);
        let mut clusters = Vec::new();
        for service in scope.services() {
            cluster::service_clusters(self.snapshot, proxy, service, &mut clusters);
        }
        let mut out = Outbound { clusters: fixed_clusters(Role::Sidecar), ..Default::default() };
        self.share_clusters(clusters, &mut out.clusters, &mut out.endpoints);
        let (listeners, routes) = listener::outbound::build(self.snapshot, proxy, &scope);
        out.listeners = by_name(listeners, |listener| &listener.name);
        out.routes = by_name(routes, |route| &route.name);
        let out = Arc::new(out);
        self.outbound.insert(key, out.clone());
        out
    }

    fn gateway(&mut self, proxy: &ProxyIdentity, problems: &mut Vec<Problem>) -> ProxyConfig {
        let mut clusters = Vec::new();
        let mut seen = HashSet::new();
        for service in self.snapshot.services().iter().filter(|service| service.visibility.visible_in(&proxy.namespace)) {
            if seen.insert(service.host.as_str()) {
                let service = self.snapshot.service(&service.host, &proxy.namespace).unwrap_or(service);
                cluster::service_clusters(self.snapshot, proxy, service, &mut clusters);
            }
        }
        let gateway = listener::gateway::build(self.snapshot, proxy, problems);
        let mut config = ProxyConfig {
            listeners: by_name(gateway.listeners, |listener| &listener.name),
            routes: by_name(gateway.routes, |route| &route.name),
            clusters: fixed_clusters(Role::Gateway),
            endpoints: BTreeMap::new(),
            secrets: gateway.secrets,
            telemetry: Arc::new(telemetry::telemetry(self.snapshot, proxy)),
        };
        self.share_clusters(clusters, &mut config.clusters, &mut config.endpoints);
        self.add_upstream_secrets(&mut config);
        self.add_providers(&mut config, proxy);
        config
    }

    /// The Secrets that DestinationRules name, which gateways alone are given.
    fn add_upstream_secrets(&self, config: &mut ProxyConfig) {
        use meshlab_proxy_config::{CertificateSource, UpstreamTls};
        for cluster in config.clusters.values() {
            let UpstreamTls::Custom { client_certificate, ca, .. } = &cluster.tls else { continue };
            let needs_certificate = matches!(client_certificate, Some(CertificateSource::Secret(_)));
            for source in client_certificate.iter().chain(ca) {
                if let CertificateSource::Secret(key) = source
                    && !config.secrets.contains_key(key)
                {
                    let secret = crate::secret::load(self.snapshot.sources(), key, needs_certificate, true, "");
                    config.secrets.insert(key.clone(), Arc::new(secret));
                }
            }
        }
    }

    /// The clusters of authorizers and of the receiver of spans, also where a Sidecar does not import them.
    fn add_providers(&mut self, config: &mut ProxyConfig, proxy: &ProxyIdentity) {
        let mut wanted: Vec<String> = config.telemetry.tracing.iter().map(|tracing| tracing.cluster.clone()).collect();
        for chain in config.listeners.values().flat_map(|listener| &listener.filter_chains) {
            if let ChainProtocol::Http(http) = &chain.protocol {
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
                self.share_clusters(clusters, &mut config.clusters, &mut config.endpoints);
            }
        }
    }

    /// Adds clusters; one that another proxy has got already in the same form is shared.
    fn share_clusters(
        &mut self,
        new: Vec<cluster::Compiled>,
        clusters: &mut BTreeMap<String, Arc<Cluster>>,
        endpoints: &mut BTreeMap<String, Arc<Endpoints>>,
    ) {
        for (mut cluster, mut members) in new {
            match self.clusters.get(cluster.name.as_str()) {
                Some((known, known_members)) => {
                    if **known == *cluster {
                        cluster = known.clone();
                    }
                    if *known_members == members {
                        members.clone_from(known_members);
                    }
                }
                None => drop(self.clusters.insert(cluster.name.as_str().into(), (cluster.clone(), members.clone()))),
            }
            if let Some(members) = members {
                endpoints.insert(cluster.name.clone(), members);
            }
            clusters.insert(cluster.name.clone(), cluster);
        }
    }
}

fn fixed_clusters(role: Role) -> BTreeMap<String, Arc<Cluster>> {
    cluster::fixed_clusters(role).into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect()
}

/// Of two with one name the first is kept.
fn by_name<T>(list: Vec<T>, name: impl Fn(&T) -> &String) -> BTreeMap<String, Arc<T>> {
    let mut out = BTreeMap::new();
    for item in list {
        out.entry(name(&item).clone()).or_insert_with(|| Arc::new(item));
    }
    out
}
