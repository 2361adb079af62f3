//! Puts a proxy's configuration together.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use meshlab_istio_api::{Object, Sidecar};
use meshlab_proxy_config::{
    CertificateSource, ChainProtocol, Cluster, Endpoints, Listener, ProxyConfig, RouteConfiguration, UpstreamTls,
};

use crate::memo::{Memos, Same};
use crate::proxy::{Client, ProxyIdentity, Role};
use crate::scope::{Scope, find_sidecar};
use crate::snapshot::Snapshot;
use crate::traffic::Traffic;
use crate::{Problem, cluster, listener, telemetry};

/// A proxy's configuration, and what is wrong with resources that concern it.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The configuration; parts that did not change share memory with other proxies'.
    pub config: Arc<ProxyConfig>,
    /// Sorted, without repetition.
    pub problems: Arc<[Problem]>,
}

/// Compiles the configuration of a proxy.
pub fn compile(snapshot: &Snapshot, proxy: &ProxyIdentity) -> Compiled {
    let compiler = Compiler { snapshot, proxy, client: snapshot.client(proxy) };
    let mut problems = snapshot.problems().to_vec();
    let config = match proxy.role {
        Role::Sidecar => compiler.sidecar(&mut problems),
        Role::Gateway => compiler.gateway(&mut problems),
    };
    problems.sort();
    problems.dedup();
    Compiled { config: Arc::new(config), problems: problems.into() }
}

struct Compiler<'a> {
    snapshot: &'a Snapshot,
    proxy: &'a ProxyIdentity,
    client: Client,
}

/// What the outbound side of a sidecar is built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OutboundInputs {
    traffic: Traffic,
    client: Client,
    sidecar: Option<Same<Object<Sidecar>>>,
}

/// The outbound side of a sidecar.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    listeners: BTreeMap<String, Arc<Listener>>,
    routes: BTreeMap<String, Arc<RouteConfiguration>>,
    clusters: BTreeMap<String, Arc<Cluster>>,
    endpoints: BTreeMap<String, Arc<Endpoints>>,
}

fn outbound(inputs: &OutboundInputs, memos: &Memos) -> Arc<Outbound> {
    let OutboundInputs { traffic, client, sidecar } = inputs;
    let scope = Scope::new(traffic, &client.routes.namespace, sidecar.as_ref().map(|sidecar| &***sidecar));
    let mut out = Outbound { clusters: fixed_clusters(Role::Sidecar), ..Default::default() };
    for service in scope.services() {
        add_clusters(&traffic.clusters(service, client, memos), &mut out.clusters, &mut out.endpoints);
    }
    let (listeners, routes) = listener::outbound::build(traffic, &client.routes, &scope, memos);
    out.listeners = by_name(listeners.into_iter().map(Arc::new), |listener| &listener.name);
    out.routes = by_name(routes, |route| &route.name);
    Arc::new(out)
}

impl Compiler<'_> {
    fn sidecar(&self, problems: &mut Vec<Problem>) -> ProxyConfig {
        let Self { snapshot, proxy, client } = self;
        let sidecar = find_sidecar(snapshot, proxy);
        let inputs =
            OutboundInputs { traffic: snapshot.traffic().clone(), client: client.clone(), sidecar: sidecar.map(Same::of) };
        let outbound = snapshot.memos().outbound.get(inputs, snapshot.memos(), outbound);
        let mut config = ProxyConfig {
            listeners: outbound.listeners.clone(),
            routes: outbound.routes.clone(),
            clusters: outbound.clusters.clone(),
            endpoints: outbound.endpoints.clone(),
            secrets: BTreeMap::new(),
            telemetry: Arc::new(telemetry::telemetry(snapshot, proxy)),
        };
        let inbound = listener::inbound::build(snapshot, proxy, sidecar, problems);
        config.clusters.extend(inbound.clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster))));
        config.listeners.extend(by_name(inbound.listeners.into_iter().map(Arc::new), |listener| &listener.name));
        config.routes.extend(by_name(inbound.routes.into_iter().map(Arc::new), |route| &route.name));
        self.add_upstream_secrets(&mut config, |cluster, key| self.is_for_sidecars(cluster, key));
        self.add_providers(&mut config);
        config
    }

    fn gateway(&self, problems: &mut Vec<Problem>) -> ProxyConfig {
        let Self { snapshot, proxy, client } = self;
        let gateway = listener::gateway::build(snapshot, proxy, problems);
        let mut config = ProxyConfig {
            listeners: by_name(gateway.listeners.into_iter().map(Arc::new), |listener| &listener.name),
            routes: by_name(gateway.routes.into_iter().map(Arc::new), |route| &route.name),
            clusters: fixed_clusters(Role::Gateway),
            endpoints: BTreeMap::new(),
            secrets: gateway.secrets,
            telemetry: Arc::new(telemetry::telemetry(snapshot, proxy)),
        };
        let mut seen = HashSet::new();
        for service in snapshot.services().iter().filter(|service| service.visibility.visible_in(&proxy.namespace)) {
            if seen.insert(service.host.as_str()) {
                let service = snapshot.service(&service.host, &proxy.namespace).unwrap_or(service);
                let clusters = snapshot.traffic().clusters(service, client, snapshot.memos());
                add_clusters(&clusters, &mut config.clusters, &mut config.endpoints);
            }
        }
        self.add_upstream_secrets(&mut config, |_, _| true);
        self.add_providers(&mut config);
        config
    }

    /// The Secrets that DestinationRules name, where `may_have` says that this proxy may have one for a cluster.
    fn add_upstream_secrets(&self, config: &mut ProxyConfig, may_have: impl Fn(&Cluster, &str) -> bool) {
        // Of one Secret, some clusters may need the certificate and others only the authority.
        let mut wanted: BTreeMap<&str, bool> = BTreeMap::new();
        for cluster in config.clusters.values() {
            let UpstreamTls::Custom { client_certificate, ca, .. } = &cluster.tls else { continue };
            let needs_certificate = matches!(client_certificate, Some(CertificateSource::Secret(_)));
            for source in client_certificate.iter().chain(ca) {
                if let CertificateSource::Secret(key) = source
                    && may_have(cluster, key)
                {
                    *wanted.entry(key).or_default() |= needs_certificate;
                }
            }
        }
        let load = |(key, needs_certificate): (&str, bool)| {
            (key.to_owned(), Arc::new(crate::secret::load(self.snapshot.sources(), key, needs_certificate, true, "")))
        };
        let loaded: Vec<_> = wanted.into_iter().map(load).collect();
        for (key, secret) in loaded {
            config.secrets.entry(key).or_insert(secret);
        }
    }

    /// Sidecars are given Secrets of their own namespace, for rules that name their workloads.
    fn is_for_sidecars(&self, cluster: &Cluster, key: &str) -> bool {
        let rules = &self.snapshot.sources().destination_rules;
        let own = key.strip_prefix("kubernetes://").and_then(|path| path.split_once('/'));
        own.is_some_and(|(namespace, _)| namespace == self.proxy.namespace)
            && cluster.origins.iter().filter(|origin| origin.kind == "DestinationRule").any(|origin| {
                let rule = rules.get(&(origin.namespace.clone(), origin.name.clone()));
                rule.is_some_and(|rule| rule.spec.workload_selector.is_some())
            })
    }

    /// The clusters of authorizers and of the receiver of spans, also where a Sidecar does not import them.
    fn add_providers(&self, config: &mut ProxyConfig) {
        let Self { snapshot, proxy, client } = self;
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
            if let Some(service) = snapshot.service_or_wildcard(host, &proxy.namespace) {
                let clusters = snapshot.traffic().clusters(service, client, snapshot.memos());
                let wanted: Vec<_> = clusters.iter().filter(|(cluster, _)| cluster.name == name).cloned().collect();
                add_clusters(&wanted, &mut config.clusters, &mut config.endpoints);
            }
        }
    }
}

fn add_clusters(
    new: &[cluster::Compiled],
    clusters: &mut BTreeMap<String, Arc<Cluster>>,
    endpoints: &mut BTreeMap<String, Arc<Endpoints>>,
) {
    for (cluster, members) in new {
        if let Some(members) = members {
            endpoints.insert(cluster.name.clone(), members.clone());
        }
        clusters.insert(cluster.name.clone(), cluster.clone());
    }
}

fn fixed_clusters(role: Role) -> BTreeMap<String, Arc<Cluster>> {
    cluster::fixed_clusters(role).into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect()
}

/// Of two with one name the first is kept.
fn by_name<T>(list: impl IntoIterator<Item = Arc<T>>, name: impl Fn(&T) -> &String) -> BTreeMap<String, Arc<T>> {
    let mut out = BTreeMap::new();
    for item in list {
        out.entry(name(&item).clone()).or_insert(item);
    }
    out
}
