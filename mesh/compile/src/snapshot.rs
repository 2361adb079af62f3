//! One consistent view of all objects, with the indexes that compiling needs. Built once, shared by all proxies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use meshlab_istio_api::{Gateway, Object, Sidecar};

use crate::destination_rule::DestinationRules;
use crate::kubernetes::{Labels, Pod};
use crate::proxy::{ClassKey, ProxyIdentity};
use crate::registry::{self, MeshService, Registry};
use crate::security::peer::PeerPolicies;
use crate::security::selection::is_attached;
use crate::sources::Sources;
use crate::virtual_service::{self, ResolvedVirtualService};
use crate::{Problem, host};

/// What is compiled from.
#[derive(Debug)]
pub struct Snapshot {
    sources: Sources,
    services: Vec<Arc<MeshService>>,
    services_by_host: HashMap<String, Vec<usize>>,
    virtual_services: Vec<Arc<ResolvedVirtualService>>,
    virtual_services_by_gateway: BTreeMap<String, Vec<usize>>,
    destination_rules: DestinationRules,
    gateways: Vec<Arc<Object<Gateway>>>,
    sidecars: BTreeMap<String, Vec<Arc<Object<Sidecar>>>>,
    peer_policies: PeerPolicies,
    pods_by_ip: HashMap<IpAddr, Arc<Pod>>,
    outbound_labels: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Snapshot {
    /// Builds the indexes.
    pub fn new(sources: Sources) -> Self {
        let mut problems = Vec::new();
        without_effect(&sources, &mut problems);
        let services = registry::services(&sources);
        let mut services_by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, service) in services.iter().enumerate() {
            services_by_host.entry(service.host.clone()).or_default().push(index);
        }
        let virtual_services = virtual_service::resolve_all(&sources, &mut problems);
        let mut virtual_services_by_gateway: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, virtual_service) in virtual_services.iter().enumerate() {
            for gateway in &virtual_service.gateways {
                let list = virtual_services_by_gateway.entry(gateway.clone()).or_default();
                if list.last() != Some(&index) {
                    list.push(index);
                }
            }
        }
        let mut gateways: Vec<_> = sources.gateways.values().cloned().collect();
        gateways.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let mut sidecars: BTreeMap<String, Vec<Arc<Object<Sidecar>>>> = BTreeMap::new();
        for sidecar in sources.sidecars.values() {
            sidecars.entry(sidecar.meta.namespace.clone()).or_default().push(sidecar.clone());
        }
        for list in sidecars.values_mut() {
            list.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        }
        let running = |pod: &&Arc<Pod>| !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") && !pod.spec.host_network;
        let pods_by_ip = sources.pods.values().filter(running).filter_map(|pod| Some((pod.address()?, pod.clone()))).collect();
        Self {
            outbound_labels: outbound_labels(&sources),
            destination_rules: DestinationRules::new(&sources),
            peer_policies: PeerPolicies::new(&sources),
            services,
            services_by_host,
            virtual_services,
            virtual_services_by_gateway,
            gateways,
            sidecars,
            pods_by_ip,
            problems,
            sources,
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

    /// The labels of a client that what it sends depends on.
    pub(crate) fn outbound_labels(&self, labels: &Labels) -> Labels {
        labels
            .iter()
            .filter(|(key, _)| self.outbound_labels.contains(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Every service, oldest first.
    pub fn services(&self) -> &[Arc<MeshService>] {
        &self.services
    }

    /// Every VirtualService that has hosts, oldest first.
    pub fn virtual_services(&self) -> &[Arc<ResolvedVirtualService>] {
        &self.virtual_services
    }

    /// The VirtualServices that name a gateway (`namespace/name`) or `mesh` and that `namespace` sees: first those that only it
    /// sees, then those exported to it, then the public ones, each oldest first.
    pub fn virtual_services_for(&self, gateway: &str, namespace: &str) -> Vec<&Arc<ResolvedVirtualService>> {
        use crate::visibility::Visibility;
        let mut list: Vec<_> = self
            .virtual_services_by_gateway
            .get(gateway)
            .into_iter()
            .flatten()
            .map(|index| &self.virtual_services[*index])
            .filter(|vs| vs.visibility.visible_in(namespace))
            .collect();
        list.sort_by_key(|vs| match &vs.visibility {
            Visibility::Namespaces(_) if vs.namespace == namespace => 0,
            Visibility::Namespaces(_) | Visibility::None => 1,
            Visibility::Public => 2,
        });
        list
    }

    /// The destination rules.
    pub fn destination_rules(&self) -> &DestinationRules {
        &self.destination_rules
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
        &self.peer_policies
    }

    /// The pod that has an address.
    pub fn pod_by_ip(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.pods_by_ip.get(&address)
    }

    /// The service that clients in `namespace` mean by a host: one of their own namespace before others, a Service before a
    /// ServiceEntry, an older one before a newer.
    pub fn service(&self, host: &str, namespace: &str) -> Option<&Arc<MeshService>> {
        self.services_by_host
            .get(host)?
            .iter()
            .map(|index| &self.services[*index])
            .filter(|service| service.visibility.visible_in(namespace))
            .min_by_key(|service| (service.namespace != namespace, service.registry == Registry::External))
    }

    /// The service for a host that may only be known by a wildcard ServiceEntry.
    pub fn service_or_wildcard(&self, host: &str, namespace: &str) -> Option<&Arc<MeshService>> {
        self.service(host, namespace).or_else(|| {
            self.services
                .iter()
                .filter(|service| {
                    host::is_wildcard(&service.host)
                        && host::is_subset(host, &service.host)
                        && service.visibility.visible_in(namespace)
                })
                .min_by(|a, b| host::specificity(&a.host, &b.host))
        })
    }
}

/// The label keys that VirtualServices, DestinationRules and failing over look at in clients.
fn outbound_labels(sources: &Sources) -> BTreeSet<String> {
    let virtual_services = sources.virtual_services.values().flat_map(|object| {
        let spec = &object.spec;
        let http = spec.http.iter().flat_map(|rule| &rule.r#match).map(|entry| &entry.source_labels);
        let tls = spec.tls.iter().flat_map(|rule| &rule.r#match).map(|entry| &entry.source_labels);
        let tcp = spec.tcp.iter().flat_map(|rule| &rule.r#match).map(|entry| &entry.source_labels);
        http.chain(tls).chain(tcp).flat_map(|labels| labels.keys())
    });
    let rules = || sources.destination_rules.values().map(|object| &object.spec);
    let selectors = rules().filter_map(|spec| spec.workload_selector.as_ref()).flat_map(|selector| selector.match_labels.keys());
    let policies = rules().flat_map(|spec| {
        spec.traffic_policy.iter().chain(spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref()))
    });
    let balancers = policies.flat_map(|policy| {
        policy.load_balancer.iter().chain(policy.port_level_settings.iter().filter_map(|own| own.load_balancer.as_ref()))
    });
    let settings =
        balancers.filter_map(|balancer| balancer.locality_lb_setting.as_ref()).chain(&sources.mesh.locality_lb_setting);
    let failover = settings.flat_map(|setting| &setting.failover_priority).filter(|entry| !entry.contains('='));
    virtual_services.chain(selectors).chain(failover).cloned().collect()
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
    let attached = "is attached to Gateway API resources, which the mesh here does not serve, so it has no effect";
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
