//! The services of the mesh, whether Kubernetes or a ServiceEntry made them known.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use meshlab_istio_api::{Location, Object, Resolution as EntryResolution, ServiceEntry, WorkloadEntry};
use meshlab_proxy_config::Origin;

use crate::host;
use crate::kubernetes::{EndpointSlice, Labelled, Labels, Pod, Service, SliceEndpoint, TargetPort, locality};
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::protocol::Protocol;
use crate::sources::{Sources, Store};
use crate::visibility::Visibility;

/// A service that traffic can be sent to.
#[derive(Debug, Clone)]
pub struct MeshService {
    /// Full host name.
    pub host: String,
    /// Short name.
    pub name: String,
    /// Namespace of the object that made it known.
    pub namespace: String,
    /// Its virtual addresses; none if it is found by name only.
    pub addresses: Vec<IpNet>,
    /// Its ports.
    pub ports: Vec<MeshPort>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Who made it known.
    pub registry: Registry,
    /// Outside the mesh: no automatic mutual TLS.
    pub external: bool,
    /// Who sees it.
    pub visibility: Visibility,
    /// Names its servers may have.
    pub subject_alt_names: Vec<String>,
    /// Its endpoints, by its own port number.
    pub endpoints: BTreeMap<u16, Vec<Arc<Instance>>>,
    /// The object.
    pub origin: Origin,
    /// When that was made.
    pub created: String,
    /// Labels of the object.
    pub labels: Labels,
    /// Pods it selects, for a Kubernetes service.
    pub selector: Labels,
    /// The other name that it stands for (type ExternalName).
    pub external_name: Option<String>,
    /// Traffic stays close (`trafficDistribution`).
    pub prefer_close: bool,
}

/// A port of a service.
#[derive(Debug, Clone)]
pub struct MeshPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// The pods' port; by name it differs from pod to pod.
    pub target: TargetPort,
}

/// How the endpoints of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The control plane tells them.
    Eds,
    /// The client has an address already.
    Passthrough,
    /// By name; every answer is one.
    Dns,
    /// By name; the first answer is taken.
    DnsRoundRobin,
}

/// Who made a service known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registry {
    /// A Service.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// One endpoint of a service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// IP address, or a name to resolve.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// Labels of the workload.
    pub labels: Arc<Labels>,
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the workload.
    pub workload: String,
    /// Service account of the workload.
    pub service_account: String,
    /// It has a sidecar.
    pub sidecar: bool,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Its node.
    pub node: String,
}

impl MeshService {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&MeshPort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The single address that its listeners are bound to, if it has one.
    pub fn single_address(&self) -> Option<IpAddr> {
        self.addresses.iter().find(|net| net.prefix_len() == net.max_prefix_len()).map(IpNet::addr)
    }

    /// Order in which services compete.
    fn age_order(&self) -> (&str, &str, &str) {
        (&self.created, &self.host, &self.namespace)
    }
}

/// All services.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// The oldest first.
    pub(crate) list: Vec<Arc<MeshService>>,
    by_host: HashMap<String, Vec<usize>>,
}

/// What the services are made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServicesInputs {
    mesh: Same<MeshConfig>,
    services: Same<Store<Service>>,
    endpoint_slices: Same<Store<EndpointSlice>>,
    pods: Same<Store<Pod>>,
    nodes: Same<Store<Labelled>>,
    service_entries: Same<Store<Object<ServiceEntry>>>,
    workload_entries: Same<Store<Object<WorkloadEntry>>>,
}

/// What a Service becomes is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServiceInputs {
    mesh: Same<MeshConfig>,
    service: Same<Service>,
    slices: Vec<Same<EndpointSlice>>,
    /// The pods of the slices' members, in their order; `None` for a member that is no pod, or a pod that is not known.
    pods: Vec<Option<Same<Pod>>>,
    nodes: Same<Store<Labelled>>,
}

/// What a ServiceEntry becomes is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EntryInputs {
    mesh: Same<MeshConfig>,
    entry: Same<Object<ServiceEntry>>,
    /// Where it looks for workloads, if it selects any.
    workloads: Option<Workloads>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Workloads {
    workload_entries: Same<Store<Object<WorkloadEntry>>>,
    pods: Same<Store<Pod>>,
    nodes: Same<Store<Labelled>>,
}

impl ServicesInputs {
    pub(crate) fn of(sources: &Sources) -> Self {
        Self {
            mesh: Same::of(&sources.mesh),
            services: Same::of(&sources.services),
            endpoint_slices: Same::of(&sources.endpoint_slices),
            pods: Same::of(&sources.pods),
            nodes: Same::of(&sources.nodes),
            service_entries: Same::of(&sources.service_entries),
            workload_entries: Same::of(&sources.workload_entries),
        }
    }

    fn service(&self, service: &Arc<Service>, slices: &[&Arc<EndpointSlice>]) -> ServiceInputs {
        let pod = |slice: &EndpointSlice, endpoint: &SliceEndpoint| {
            let target = endpoint.pod()?;
            self.pods.get(&(slice.meta.namespace.clone(), target.to_owned())).map(Same::of)
        };
        let members = slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint)));
        ServiceInputs {
            mesh: self.mesh.clone(),
            service: Same::of(service),
            slices: slices.iter().map(|slice| Same::of(slice)).collect(),
            pods: members.map(|(slice, endpoint)| pod(slice, endpoint)).collect(),
            nodes: self.nodes.clone(),
        }
    }

    fn entry(&self, entry: &Arc<Object<ServiceEntry>>) -> EntryInputs {
        let workloads =
            || Workloads { workload_entries: self.workload_entries.clone(), pods: self.pods.clone(), nodes: self.nodes.clone() };
        EntryInputs {
            mesh: self.mesh.clone(),
            entry: Same::of(entry),
            workloads: entry.spec.workload_selector.is_some().then(workloads),
        }
    }
}

impl Services {
    pub(crate) fn new(inputs: &ServicesInputs, memos: &Memos) -> Same<Self> {
        let mut slices: HashMap<(&str, &str), Vec<&Arc<EndpointSlice>>> = HashMap::new();
        for slice in inputs.endpoint_slices.values() {
            if let Some(service) = slice.meta.labels.get("kubernetes.io/service-name") {
                slices.entry((&slice.meta.namespace, service)).or_default().push(slice);
            }
        }
        let mut services = Vec::with_capacity(inputs.services.len());
        for service in inputs.services.values() {
            let slices = slices.get(&(service.meta.namespace.as_str(), service.meta.name.as_str()));
            let inputs = inputs.service(service, slices.map_or(&[], Vec::as_slice));
            services.push(memos.kubernetes_services.get(inputs, memos, from_service));
        }
        for entry in inputs.service_entries.values() {
            services.extend(memos.service_entries.get(inputs.entry(entry), memos, from_entry).iter().cloned());
        }
        services.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let services = join_entries(services);
        let mut by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, service) in services.iter().enumerate() {
            by_host.entry(service.host.clone()).or_default().push(index);
        }
        Same::new(Self { list: services, by_host })
    }

    /// The service that clients in `namespace` mean by a host: one of their own namespace before others, a Service before a
    /// ServiceEntry, an older one before a newer.
    pub(crate) fn service(&self, host: &str, namespace: &str) -> Option<&Arc<MeshService>> {
        self.by_host
            .get(host)?
            .iter()
            .map(|index| &self.list[*index])
            .filter(|service| service.visibility.visible_in(namespace))
            .min_by_key(|service| (service.namespace != namespace, service.registry == Registry::External))
    }

    /// The service for a host that may only be known by a wildcard ServiceEntry.
    pub(crate) fn service_or_wildcard(&self, host: &str, namespace: &str) -> Option<&Arc<MeshService>> {
        self.service(host, namespace).or_else(|| {
            self.list
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

/// Several ServiceEntries may each name some ports of one host: the older takes in the ports that only the younger has.
fn join_entries(services: Vec<Arc<MeshService>>) -> Vec<Arc<MeshService>> {
    let mut out: Vec<Arc<MeshService>> = Vec::with_capacity(services.len());
    let mut first: HashMap<(String, String), usize> = HashMap::new();
    for service in services {
        if service.registry == Registry::Kubernetes {
            out.push(service);
            continue;
        }
        let key = (service.namespace.clone(), service.host.clone());
        let alike = |known: &MeshService| {
            known.resolution == service.resolution
                && known.external == service.external
                && known.addresses == service.addresses
                && known.visibility == service.visibility
        };
        match first.get(&key) {
            Some(&at) if alike(&out[at]) => {
                for port in &service.ports {
                    if out[at].port(port.number).is_none() {
                        let known = Arc::make_mut(&mut out[at]);
                        known.endpoints.insert(port.number, service.endpoints.get(&port.number).cloned().unwrap_or_default());
                        known.ports.push(port.clone());
                    }
                }
            }
            _ => {
                first.entry(key).or_insert(out.len());
                out.push(service);
            }
        }
    }
    out
}

fn from_service(inputs: &ServiceInputs, _: &Memos) -> Arc<MeshService> {
    let ServiceInputs { mesh, service, slices, pods, nodes } = inputs;
    let spec = &service.spec;
    let ports: Vec<MeshPort> = spec
        .ports
        .iter()
        .map(|port| MeshPort {
            name: port.name.clone(),
            number: port.port,
            protocol: Protocol::of_service_port(port.port, &port.name, &port.protocol, port.app_protocol.as_deref()),
            target: port.target_port.clone().unwrap_or(TargetPort::Number(port.port)),
        })
        .collect();
    let addresses: Vec<IpNet> = std::iter::once(&spec.cluster_ip)
        .chain(&spec.cluster_ips)
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(IpNet::from)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let external_name = (spec.r#type == "ExternalName" && !spec.external_name.is_empty()).then(|| spec.external_name.clone());
    let resolution = match (&external_name, spec.cluster_ip.as_str()) {
        (Some(_), _) => Resolution::Dns,
        (None, "None") => Resolution::Passthrough,
        _ => Resolution::Eds,
    };
    let export_to: Vec<String> = service
        .meta
        .annotations
        .get("networking.istio.io/exportTo")
        .map(|list| list.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect())
        .unwrap_or_default();
    let mut endpoints: BTreeMap<u16, Vec<Arc<Instance>>> = ports.iter().map(|port| (port.number, Vec::new())).collect();
    if let Some(name) = &external_name {
        for port in &ports {
            endpoints.insert(port.number, vec![Arc::new(named_instance(name.clone(), port.number, &service.meta.namespace))]);
        }
    }
    let mut pods = pods.iter();
    for slice in slices {
        slice_instances(slice, &ports, &mut pods, nodes, &mut endpoints);
    }
    for list in endpoints.values_mut() {
        list.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        list.dedup_by(|a, b| a.address == b.address && a.port == b.port);
    }
    Arc::new(MeshService {
        host: format!("{}.{}.svc.{}", service.meta.name, service.meta.namespace, mesh.domain_suffix),
        name: service.meta.name.clone(),
        namespace: service.meta.namespace.clone(),
        addresses,
        ports,
        resolution,
        registry: Registry::Kubernetes,
        external: external_name.is_some(),
        visibility: Visibility::parse(&export_to, &mesh.default_service_export_to, &service.meta.namespace),
        subject_alt_names: Vec::new(),
        endpoints,
        origin: origin("Service", &service.meta.namespace, &service.meta.name, ""),
        created: service.meta.creation_timestamp.clone(),
        labels: service.meta.labels.clone(),
        selector: spec.selector.clone(),
        external_name,
        prefer_close: spec.traffic_distribution.starts_with("PreferClose") || spec.traffic_distribution.starts_with("PreferSame"),
    })
}

/// The ready members of a slice, under the service ports that their port names stand for. `pods` are those of the members, known or
/// not.
fn slice_instances<'a>(
    slice: &EndpointSlice,
    ports: &[MeshPort],
    pods: &mut impl Iterator<Item = &'a Option<Same<Pod>>>,
    nodes: &Store<Labelled>,
    out: &mut BTreeMap<u16, Vec<Arc<Instance>>>,
) {
    for (endpoint, pod) in slice.endpoints.iter().zip(pods) {
        // A slice may be heard of before its pod; until then nobody knows whether it takes mutual TLS.
        if endpoint.conditions.ready == Some(false) || (endpoint.pod().is_some() && pod.is_none()) {
            continue;
        }
        let template = match pod {
            Some(pod) => pod_instance(pod, nodes),
            None => {
                let mut instance = named_instance(String::new(), 0, &slice.meta.namespace);
                instance.node = endpoint.node_name.clone().unwrap_or_default();
                instance.locality = node_locality(&instance.node, nodes);
                instance
            }
        };
        for address in &endpoint.addresses {
            for slice_port in &slice.ports {
                let name = slice_port.name.as_deref().unwrap_or_default();
                let (Some(number), Some(port)) = (slice_port.port, ports.iter().find(|port| port.name == name)) else { continue };
                let instance = Instance { address: address.clone(), port: number, ..template.clone() };
                out.entry(port.number).or_default().push(Arc::new(instance));
            }
        }
    }
}

fn named_instance(address: String, port: u16, namespace: &str) -> Instance {
    Instance {
        address,
        port,
        weight: 1,
        labels: Arc::default(),
        namespace: namespace.to_owned(),
        workload: String::new(),
        service_account: String::new(),
        sidecar: false,
        locality: String::new(),
        node: String::new(),
    }
}

fn pod_instance(pod: &Pod, nodes: &Store<Labelled>) -> Instance {
    Instance {
        address: pod.status.pod_ip.clone(),
        port: 0,
        weight: 1,
        labels: Arc::new(pod.meta.labels.clone()),
        namespace: pod.meta.namespace.clone(),
        workload: pod.workload().to_owned(),
        service_account: pod.service_account().to_owned(),
        sidecar: pod.has_sidecar(),
        locality: pod_locality(pod, nodes),
        node: pod.spec.node_name.clone(),
    }
}

/// The locality of a pod: its own label `istio-locality`, else its node's.
pub fn pod_locality(pod: &Pod, nodes: &Store<Labelled>) -> String {
    match pod.meta.labels.get("istio-locality") {
        // Labels cannot have slashes, so Istio writes dots.
        Some(label) if !label.is_empty() => label.replace('.', "/"),
        _ => node_locality(&pod.spec.node_name, nodes),
    }
}

fn node_locality(node: &str, nodes: &Store<Labelled>) -> String {
    nodes.get(&(String::new(), node.to_owned())).map(|node| node.locality()).unwrap_or_default()
}

fn from_entry(inputs: &EntryInputs, _: &Memos) -> Arc<[Arc<MeshService>]> {
    let EntryInputs { mesh, entry: object, workloads } = inputs;
    let entry = &object.spec;
    let namespace = &object.meta.namespace;
    let ports: Vec<MeshPort> = entry
        .ports
        .iter()
        .filter_map(|port| {
            let number = u16::try_from(port.number).ok()?;
            let target = u16::try_from(port.target_port).ok().filter(|target| *target != 0).unwrap_or(number);
            let protocol = match Protocol::parse(&port.protocol) {
                Protocol::Sniffed => Protocol::of_service_port(number, "", "TCP", None),
                protocol => protocol,
            };
            Some(MeshPort { name: port.name.clone(), number, protocol, target: TargetPort::Number(target) })
        })
        .collect();
    let addresses: Vec<IpNet> = entry
        .addresses
        .iter()
        .filter_map(|text| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)))
        .collect();
    let resolution = match entry.resolution {
        EntryResolution::None => Resolution::Passthrough,
        EntryResolution::Static => Resolution::Eds,
        EntryResolution::Dns => Resolution::Dns,
        EntryResolution::DnsRoundRobin | EntryResolution::DynamicDns => Resolution::DnsRoundRobin,
    };
    let workloads = entry_workloads(entry, namespace, workloads.as_ref());
    entry
        .hosts
        .iter()
        .map(|host| {
            let mut endpoints: BTreeMap<u16, Vec<Arc<Instance>>> = BTreeMap::new();
            for port in &ports {
                let TargetPort::Number(target) = port.target else { continue };
                let mut list: Vec<Arc<Instance>> = workloads
                    .iter()
                    .map(|(instance, ports)| {
                        let number = ports.get(&port.name).and_then(|number| u16::try_from(*number).ok()).unwrap_or(target);
                        Arc::new(Instance { port: number, ..instance.clone() })
                    })
                    .collect();
                let by_name = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
                if list.is_empty() && by_name && entry.workload_selector.is_none() && !host.starts_with('*') {
                    list.push(Arc::new(named_instance(host.clone(), target, namespace)));
                }
                endpoints.insert(port.number, list);
            }
            Arc::new(MeshService {
                host: host.to_lowercase(),
                name: host.clone(),
                namespace: namespace.clone(),
                addresses: addresses.clone(),
                ports: ports.clone(),
                resolution,
                registry: Registry::External,
                external: entry.location == Location::MeshExternal,
                visibility: Visibility::parse(&entry.export_to, &mesh.default_service_export_to, namespace),
                subject_alt_names: entry.subject_alt_names.clone(),
                endpoints,
                origin: origin("ServiceEntry", namespace, &object.meta.name, ""),
                created: object.meta.creation_timestamp.clone(),
                labels: object.meta.labels.clone(),
                selector: entry.workload_selector.as_ref().map(|selector| selector.labels.clone()).unwrap_or_default(),
                external_name: None,
                prefer_close: false,
            })
        })
        .collect()
}

/// The endpoints of a service entry, with the ports that each names.
fn entry_workloads(
    entry: &ServiceEntry,
    namespace: &str,
    workloads: Option<&Workloads>,
) -> Vec<(Instance, BTreeMap<String, u32>)> {
    let mut out: Vec<(Instance, BTreeMap<String, u32>)> = entry
        .endpoints
        .iter()
        .map(|workload| (entry_instance(workload, &workload.labels, namespace, ""), workload.ports.clone()))
        .collect();
    if let Some((selector, workloads)) = entry.workload_selector.as_ref().zip(workloads) {
        for ((ns, name), object) in
            workloads.workload_entries.range((namespace.to_owned(), String::new())..).take_while(|((ns, _), _)| ns == namespace)
        {
            let mut labels = object.meta.labels.clone();
            labels.extend(object.spec.labels.clone());
            if ns == namespace && selects(&selector.labels, &labels) {
                out.push((entry_instance(&object.spec, &labels, namespace, name), object.spec.ports.clone()));
            }
        }
        for pod in workloads.pods.values() {
            let running = pod.status.phase == "Running" && pod.address().is_some();
            if pod.meta.namespace == namespace && running && selects(&selector.labels, &pod.meta.labels) {
                out.push((pod_instance(pod, &workloads.nodes), BTreeMap::new()));
            }
        }
    }
    out
}

fn entry_instance(workload: &WorkloadEntry, labels: &Labels, namespace: &str, name: &str) -> Instance {
    let mut parts = workload.locality.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let (region, zone, subzone) = (part(), part(), part());
    Instance {
        address: workload.address.clone(),
        port: 0,
        weight: workload.weight.max(1),
        labels: Arc::new(labels.clone()),
        namespace: namespace.to_owned(),
        workload: name.to_owned(),
        service_account: workload.service_account.clone(),
        sidecar: labels.get("security.istio.io/tlsMode").is_some_and(|mode| mode == "istio"),
        locality: locality(&region, &zone, &subzone),
        node: String::new(),
    }
}

/// Whether a selector takes something with these labels.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Names an object, or a place in it.
pub fn origin(kind: &str, namespace: &str, name: &str, path: &str) -> Origin {
    Origin { kind: kind.into(), namespace: namespace.into(), name: name.into(), path: path.into() }
}
