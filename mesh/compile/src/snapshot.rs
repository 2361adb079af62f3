//! One consistent view of all objects, with the indexes that compiling needs. Built once, shared by all proxies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use meshlab_istio_api::{DestinationRule, Gateway, Object, Sidecar, VirtualService};

use crate::Problem;
use crate::destination_rule::DestinationRules;
use crate::kubernetes::Pod;
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::proxy::{ClassKey, Client, ClusterClient, ProxyIdentity, RouteClient};
use crate::registry::{self, MeshService};
use crate::security::peer::PeerPolicies;
use crate::security::selection::is_attached;
use crate::sources::{Sources, Store};
use crate::traffic::Traffic;
use crate::virtual_service::ResolvedVirtualService;

/// What is compiled from.
#[derive(Debug)]
pub struct Snapshot {
    sources: Sources,
    traffic: Traffic,
    gateways: Vec<Arc<Object<Gateway>>>,
    sidecars: BTreeMap<String, Vec<Arc<Object<Sidecar>>>>,
    pods_by_ip: Arc<PodsByIp>,
    label_keys: Arc<LabelKeys>,
    problems: Vec<Problem>,
    memos: Arc<Memos>,
}

/// Pods by the address that they have alone.
pub(crate) type PodsByIp = HashMap<IpAddr, Arc<Pod>>;
/// What they are found in.
pub(crate) type PodsInputs = Same<Store<Pod>>;

/// The keys of client labels that what a client sends depends on.
#[derive(Debug)]
pub(crate) struct LabelKeys {
    /// VirtualServices and DestinationRules look at these.
    routing: BTreeSet<String>,
    /// Failing over looks at these.
    failover: BTreeSet<String>,
}

/// What they are found in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LabelKeysInputs {
    mesh: Same<MeshConfig>,
    virtual_services: Same<Store<Object<VirtualService>>>,
    destination_rules: Same<Store<Object<DestinationRule>>>,
}

impl Snapshot {
    /// A first state of the cluster.
    pub fn new(sources: Sources) -> Self {
        Self::with(sources, Arc::default())
    }

    /// A state of the cluster after this one. Compiles to the same as [`Snapshot::new`], and does again only what depends on what has
    /// changed.
    #[must_use]
    pub fn next(&self, sources: Sources) -> Self {
        self.memos.forget();
        Self::with(sources, self.memos.clone())
    }

    fn with(sources: Sources, memos: Arc<Memos>) -> Self {
        let traffic = Traffic::of(&sources, &memos);
        let mut problems = Vec::new();
        without_effect(&sources, &mut problems);
        problems.extend(traffic.virtual_services.problems.iter().cloned());
        let mut gateways: Vec<_> = sources.gateways.values().cloned().collect();
        gateways.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let mut sidecars: BTreeMap<String, Vec<Arc<Object<Sidecar>>>> = BTreeMap::new();
        for sidecar in sources.sidecars.values() {
            sidecars.entry(sidecar.meta.namespace.clone()).or_default().push(sidecar.clone());
        }
        for list in sidecars.values_mut() {
            list.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        }
        let label_keys = LabelKeysInputs {
            mesh: Same::of(&sources.mesh),
            virtual_services: Same::of(&sources.virtual_services),
            destination_rules: Same::of(&sources.destination_rules),
        };
        Self {
            traffic,
            gateways,
            sidecars,
            pods_by_ip: memos.pods_by_ip.get(Same::of(&sources.pods), &memos, pods_by_ip),
            label_keys: memos.label_keys.get(label_keys, &memos, LabelKeys::new),
            problems,
            sources,
            memos,
        }
    }

    /// The objects.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What is wrong with resources whatever the proxy.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The class of a proxy: proxies of one class get the same configuration.
    pub fn class(&self, proxy: &ProxyIdentity) -> ClassKey {
        ClassKey::of(proxy)
    }

    /// What the way of traffic depends on.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What is remembered of states of the cluster.
    pub(crate) fn memos(&self) -> &Memos {
        &self.memos
    }

    /// A proxy as a client.
    pub(crate) fn client(&self, proxy: &ProxyIdentity) -> Client {
        let labels = |keys: &BTreeSet<String>| {
            let looked_at = proxy.labels.iter().filter(|(key, _)| keys.contains(*key));
            looked_at.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let clusters = ClusterClient {
            role: proxy.role,
            namespace: proxy.namespace.clone(),
            locality: proxy.locality.clone(),
            labels: labels(&self.label_keys.failover),
        };
        let routes = RouteClient { namespace: proxy.namespace.clone(), labels: labels(&self.label_keys.routing) };
        Client { clusters: Arc::new(clusters), routes: Arc::new(routes) }
    }

    /// Every service, oldest first.
    pub fn services(&self) -> &[Arc<MeshService>] {
        &self.traffic.services.list
    }

    /// Every VirtualService that has hosts, oldest first.
    pub fn virtual_services(&self) -> &[Arc<ResolvedVirtualService>] {
        &self.traffic.virtual_services.list
    }

    /// The destination rules.
    pub fn destination_rules(&self) -> &DestinationRules {
        &self.traffic.destination_rules
    }

    /// Gateways, oldest first.
    pub fn gateways(&self) -> &[Arc<Object<Gateway>>] {
        &self.gateways
    }

    /// Sidecars of a namespace, oldest first.
    pub fn sidecars(&self, namespace: &str) -> &[Arc<Object<Sidecar>>] {
        self.sidecars.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// PeerAuthentications.
    pub fn peer_policies(&self) -> &PeerPolicies {
        &self.traffic.peers
    }

    /// The pod that has an address.
    pub fn pod_by_ip(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.pods_by_ip.get(&address)
    }

    /// The service that clients in `namespace` mean by a host: one of their own namespace before others, a Service before a
    /// ServiceEntry, an older one before a newer.
    pub fn service(&self, host: &str, namespace: &str) -> Option<&Arc<MeshService>> {
        self.traffic.services.service(host, namespace)
    }

    /// The service for a host that may only be known by a wildcard ServiceEntry.
    pub fn service_or_wildcard(&self, host: &str, namespace: &str) -> Option<&Arc<MeshService>> {
        self.traffic.services.service_or_wildcard(host, namespace)
    }
}

fn pods_by_ip(pods: &PodsInputs, _: &Memos) -> Arc<PodsByIp> {
    let running = |pod: &&Arc<Pod>| !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") && !pod.spec.host_network;
    Arc::new(pods.values().filter(running).filter_map(|pod| Some((pod.address()?, pod.clone()))).collect())
}

impl LabelKeys {
    fn new(inputs: &LabelKeysInputs, _: &Memos) -> Arc<Self> {
        let virtual_services = inputs.virtual_services.values().flat_map(|object| {
            let spec = &object.spec;
            let http = spec.http.iter().flat_map(|rule| &rule.r#match).map(|entry| &entry.source_labels);
            let tls = spec.tls.iter().flat_map(|rule| &rule.r#match).map(|entry| &entry.source_labels);
            let tcp = spec.tcp.iter().flat_map(|rule| &rule.r#match).map(|entry| &entry.source_labels);
            http.chain(tls).chain(tcp).flat_map(|labels| labels.keys())
        });
        let rules = || inputs.destination_rules.values().map(|object| &object.spec);
        let selectors =
            rules().filter_map(|spec| spec.workload_selector.as_ref()).flat_map(|selector| selector.match_labels.keys());
        let policies = rules().flat_map(|spec| {
            spec.traffic_policy.iter().chain(spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref()))
        });
        let balancers = policies.flat_map(|policy| {
            policy.load_balancer.iter().chain(policy.port_level_settings.iter().filter_map(|own| own.load_balancer.as_ref()))
        });
        let settings =
            balancers.filter_map(|balancer| balancer.locality_lb_setting.as_ref()).chain(&inputs.mesh.locality_lb_setting);
        let failover = settings.flat_map(|setting| &setting.failover_priority).filter(|entry| !entry.contains('='));
        Arc::new(Self { routing: virtual_services.chain(selectors).cloned().collect(), failover: failover.cloned().collect() })
    }
}

/// Resources that are kept and have no effect here.
fn without_effect(sources: &Sources, problems: &mut Vec<Problem>) {
    let mut push = |kind: &str, meta: &meshlab_istio_api::Metadata, message: &str| {
        problems.push(Problem::new(registry::origin(kind, &meta.namespace, &meta.name, ""), message.to_owned()));
    };
    for object in sources.envoy_filters.values() {
        push("EnvoyFilter", &object.meta, "patches Envoy's configuration; the proxy here is not Envoy, so it has no effect");
    }
    for object in sources.wasm_plugins.values() {
        push("WasmPlugin", &object.meta, "extends Envoy; the proxy here is not Envoy, so it has no effect");
    }
    // Istio's sidecars, and gateways that no Gateway of the Gateway API has deployed, pass over them as well.
    let attached = "targetRefs attach it to gateways of the Gateway API (kind Gateway) or to waypoints (kind Service), neither of which \
                    there are here, so it has no effect; spec.selector selects workloads and gateways by their labels";
    for object in sources.authorization_policies.values().filter(|object| is_attached(&object.spec)) {
        push("AuthorizationPolicy", &object.meta, attached);
    }
    for object in sources.request_authentications.values().filter(|object| is_attached(&object.spec)) {
        push("RequestAuthentication", &object.meta, attached);
    }
    for object in sources.telemetries.values().filter(|object| is_attached(&object.spec)) {
        push("Telemetry", &object.meta, attached);
    }
}
