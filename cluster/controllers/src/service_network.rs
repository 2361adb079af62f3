//! What kube-proxy and CoreDNS do on a real cluster: services become addresses and names on the pods' network, node ports and load
//! balancers become ports of 127.0.0.1.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::api::{Api, Patch};
use meshlab_controller_runtime::{EventRecorder, EventType, Key, Outcome, WorkQueue, is_not_found};
use meshlab_net::{Published, Record, VirtualNet};
use parking_lot::Mutex;
use serde_json::json;
use thiserror::Error;

use crate::Context;
use crate::endpoints::SERVICE_NAME;

/// Services mirrored at a time.
const WORKERS: usize = 4;
/// The domain of all cluster names.
const DOMAIN: &str = "cluster.local";
/// Tells on a Service where its node ports and load balancer ports really are: `80=127.0.0.1:80,443=127.0.0.1:41234`.
const PUBLISHED: &str = "meshlab.io/published-ports";

/// Mirrors every service, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    watch(&context, &queue);
    let mirror = Arc::new(Mirror {
        recorder: context.recorder("service-controller"),
        context,
        names: Mutex::default(),
        doors: tokio::sync::Mutex::default(),
    });
    let handle = |key| {
        let mirror = mirror.clone();
        async move { mirror.reconcile(key).await }
    };
    queue.run("service-network", WORKERS, handle).await;
}

fn watch(context: &Context, queue: &WorkQueue<Key>) {
    let add = queue.clone();
    context.informers.services.on_change(move |old, new| {
        if let Some(service) = new.or(old) {
            add.add(Key::of(service.as_ref()));
        }
    });
    let add = queue.clone();
    context.informers.endpoint_slices.on_change(move |old, new| {
        let Some(slice) = new.or(old) else { return };
        if let Some(service) = slice.labels().get(SERVICE_NAME) {
            add.add(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service));
        }
    });
}

#[derive(Debug, Error)]
enum Error {
    #[error("cannot publish a port on 127.0.0.1: {0}")]
    Publish(#[from] std::io::Error),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// What of the services is in the network now.
struct Mirror {
    context: Arc<Context>,
    recorder: EventRecorder,
    names: Mutex<HashMap<Key, BTreeSet<String>>>,
    doors: tokio::sync::Mutex<HashMap<Key, BTreeMap<Door, Published>>>,
}

/// A port of 127.0.0.1 that a service asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Door {
    /// The service's own port.
    service_port: u16,
    /// The port wanted on 127.0.0.1.
    port: u16,
    /// Where it leads.
    target: SocketAddr,
}

impl Mirror {
    async fn reconcile(&self, key: Key) -> Result<Outcome, Error> {
        let service = self.context.informers.services.at(&key).filter(|service| service.metadata.deletion_timestamp.is_none());
        let Some(service) = service else {
            self.context.network.remove_service(&key.to_string());
            self.write_names(&key, BTreeMap::new());
            self.doors.lock().await.remove(&key);
            return Ok(Outcome::default());
        };
        let mut slices = self.context.informers.endpoint_slices.in_namespace(&key.namespace);
        slices.retain(|slice| slice.labels().get(SERVICE_NAME) == Some(&key.name));
        self.context.network.upsert_service(&key.to_string(), addresses(&service, &slices));
        self.write_names(&key, names(&service, &slices));
        self.publish(&key, &service).await?;
        Ok(Outcome::default())
    }

    fn write_names(&self, key: &Key, wanted: BTreeMap<String, Record>) {
        let network: &VirtualNet = &self.context.network;
        let mut names = self.names.lock();
        let known = names.remove(key).unwrap_or_default();
        for name in known.iter().filter(|name| !wanted.contains_key(*name)) {
            network.remove_record(name);
        }
        if !wanted.is_empty() {
            names.insert(key.clone(), wanted.keys().cloned().collect());
        }
        for (name, record) in wanted {
            network.upsert_record(&name, record);
        }
    }

    /// Opens the ports of 127.0.0.1 that the service asks for, closes those it no longer does, and says where they are.
    async fn publish(&self, key: &Key, service: &Service) -> Result<(), Error> {
        let wanted = doors(service);
        let mut doors = self.doors.lock().await;
        if wanted.is_empty() && !doors.contains_key(key) {
            return Ok(());
        }
        let open = doors.entry(key.clone()).or_default();
        open.retain(|door, _| wanted.contains(door));
        for door in wanted {
            if let Entry::Vacant(closed) = open.entry(door) {
                let door = closed.key();
                let published = self.context.network.publish(door.port, door.target).await?;
                if !published.is_wanted_port() {
                    let message = format!("Port {} of 127.0.0.1 is taken or not allowed; use {}", door.port, published.address());
                    self.recorder.record(service, EventType::Warning, "PortUnavailable", message);
                }
                closed.insert(published);
            }
        }
        let places: Vec<String> = preferred(open).into_iter().map(|(port, address)| format!("{port}={address}")).collect();
        if open.is_empty() {
            doors.remove(key);
        }
        drop(doors);
        self.annotate(service, (!places.is_empty()).then(|| places.join(","))).await?;
        self.write_ingress(service).await
    }

    async fn annotate(&self, service: &Service, places: Option<String>) -> Result<(), Error> {
        if service.annotations().get(PUBLISHED) == places.as_ref() {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {PUBLISHED: places}}});
        self.finish(self.services(service).patch(&service.name_any(), &Default::default(), &Patch::Merge(patch)).await)
    }

    async fn write_ingress(&self, service: &Service) -> Result<(), Error> {
        let ingress = is_load_balancer(service).then(|| json!([{"ip": "127.0.0.1", "ipMode": "VIP"}]));
        let known = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        if known.is_some_and(|known| !known.is_empty()) == ingress.is_some() {
            return Ok(());
        }
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        self.finish(self.services(service).patch_status(&service.name_any(), &Default::default(), &Patch::Merge(patch)).await)
    }

    fn services(&self, service: &Service) -> Api<Service> {
        Api::namespaced(self.context.client.clone(), &service.namespace().unwrap_or_default())
    }

    fn finish(&self, answer: Result<Service, kube::Error>) -> Result<(), Error> {
        match answer {
            Ok(updated) => self.context.informers.services.observe(updated),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn is_load_balancer(service: &Service) -> bool {
    service_type(service) == "LoadBalancer"
}

fn service_type(service: &Service) -> &str {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP")
}

fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let first = spec.and_then(|spec| spec.cluster_ip.as_ref());
    let all = spec.into_iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    let mut addresses: Vec<IpAddr> = first.into_iter().chain(all).filter_map(|ip| ip.parse().ok()).collect();
    addresses.dedup();
    addresses
}

fn ports(service: &Service) -> impl Iterator<Item = (&ServicePort, u16)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    tcp.filter_map(|port| Some((port, u16::try_from(port.port).ok()?)))
}

/// The service's addresses on the network, each with the endpoints that take new connections.
fn addresses(service: &Service, slices: &[Arc<EndpointSlice>]) -> Vec<meshlab_net::ServicePort> {
    let spec = service.spec.as_ref();
    let sticky = spec.and_then(|spec| spec.session_affinity.as_deref()) == Some("ClientIP");
    let seconds =
        spec.and_then(|spec| spec.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds).unwrap_or(10_800);
    let affinity = sticky.then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let external = spec.into_iter().flat_map(|spec| spec.external_ips.iter().flatten()).filter_map(|ip| ip.parse().ok());
    let addresses: Vec<IpAddr> = cluster_addresses(service).into_iter().chain(external).collect();
    ports(service)
        .flat_map(|(port, number)| {
            let endpoints = endpoints(port, slices);
            addresses.iter().map(move |ip| meshlab_net::ServicePort {
                address: SocketAddr::new(*ip, number),
                endpoints: endpoints.clone(),
                affinity,
            })
        })
        .collect()
}

/// The endpoints of one port: the ready ones or, if there are none, those that still serve while they terminate.
fn endpoints(port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> Vec<SocketAddr> {
    let name = port.name.as_deref().unwrap_or_default();
    let some = |wanted: fn(&Endpoint) -> bool| {
        let mut found = Vec::new();
        for slice in slices {
            let ports = slice.ports.iter().flatten();
            let number = ports.filter(|port| port.name.as_deref().unwrap_or_default() == name).find_map(|port| port.port);
            let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
            let addresses = slice.endpoints.iter().filter(|endpoint| wanted(endpoint)).flat_map(|endpoint| &endpoint.addresses);
            found.extend(addresses.filter_map(|ip| Some(SocketAddr::new(ip.parse().ok()?, number))));
        }
        found.sort_unstable();
        found.dedup();
        found
    };
    let ready = some(is_ready);
    if ready.is_empty() { some(serves_while_terminating) } else { ready }
}

/// Unknown counts as ready, as the API defines it.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn serves_while_terminating(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_some_and(|conditions| conditions.serving == Some(true) && conditions.terminating == Some(true))
}

/// The service's DNS names, as the Kubernetes DNS specification has them.
fn names(service: &Service, slices: &[Arc<EndpointSlice>]) -> BTreeMap<String, Record> {
    let name = format!("{}.{}.svc.{DOMAIN}", service.name_any(), service.namespace().unwrap_or_default());
    let spec = service.spec.as_ref();
    if service_type(service) == "ExternalName" {
        let target = spec.and_then(|spec| spec.external_name.clone()).unwrap_or_default();
        return BTreeMap::from([(name, Record::Cname(target))]);
    }
    let addresses = cluster_addresses(service);
    if !addresses.is_empty() {
        return BTreeMap::from([(name, Record::Addresses(addresses))]);
    }
    if spec.and_then(|spec| spec.cluster_ip.as_deref()) != Some("None") {
        return BTreeMap::new();
    }
    let mut all = Vec::new();
    let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for endpoint in slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| is_ready(endpoint)) {
        for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
            let host = endpoint.hostname.clone().unwrap_or_else(|| ip.to_string().replace(['.', ':'], "-"));
            names.entry(format!("{host}.{name}")).or_default().push(ip);
            all.push(ip);
        }
    }
    names.insert(name, all);
    names.into_iter().map(|(name, addresses)| (name, Record::Addresses(addresses))).collect()
}

/// The ports of 127.0.0.1 that a service asks for: its own for a load balancer, and the node ports.
fn doors(service: &Service) -> BTreeSet<Door> {
    let mut doors = BTreeSet::new();
    let Some(ip) = cluster_addresses(service).into_iter().find(IpAddr::is_ipv4) else { return doors };
    if !matches!(service_type(service), "NodePort" | "LoadBalancer") {
        return doors;
    }
    for (port, number) in ports(service) {
        let target = SocketAddr::new(ip, number);
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        doors.extend(node_port.map(|port| Door { service_port: number, port, target }));
        if is_load_balancer(service) {
            doors.insert(Door { service_port: number, port: number, target });
        }
    }
    doors
}

/// Where each service port is best reached: at its own number, else at what was found instead of it, else at its node port.
fn preferred(open: &BTreeMap<Door, Published>) -> BTreeMap<u16, SocketAddr> {
    let mut places = BTreeMap::new();
    for (door, published) in open {
        let own = door.port == door.service_port;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), published.address().port());
        if own {
            places.insert(door.service_port, address);
        } else {
            places.entry(door.service_port).or_insert(address);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        let ports = json!([{"name": "http", "port": 8080}]);
        let slice = json!({"metadata": {}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn conditions(ready: bool, serving: bool, terminating: bool) -> Value {
        json!({"ready": ready, "serving": serving, "terminating": terminating})
    }

    #[test]
    fn ready_endpoints_take_connections_and_terminating_ones_only_if_there_are_no_others() {
        let web = service(json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}));
        let terminating = json!({"addresses": ["10.244.0.2"], "conditions": conditions(false, true, true)});
        let ready = json!({"addresses": ["10.244.0.3"], "conditions": conditions(true, true, false)});
        let starting = json!({"addresses": ["10.244.0.4"], "conditions": conditions(false, false, false)});
        let of = |endpoints: Value| addresses(&web, &[slice(endpoints)]).remove(0);
        let both = of(json!([terminating, ready, starting]));
        assert_eq!(both.address, "10.96.0.9:80".parse().unwrap());
        assert_eq!(both.endpoints, ["10.244.0.3:8080".parse().unwrap()]);
        assert_eq!(of(json!([terminating, starting])).endpoints, ["10.244.0.2:8080".parse().unwrap()]);
        assert!(of(json!([starting])).endpoints.is_empty());
    }

    #[test]
    fn names_follow_the_dns_specification() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let plain = names(&service(json!({"clusterIP": "10.96.0.9"})), &[]);
        assert_eq!(plain["web.ns.svc.cluster.local"], Record::Addresses(vec![ip("10.96.0.9")]));
        let external = names(&service(json!({"type": "ExternalName", "externalName": "example.com"})), &[]);
        assert_eq!(external["web.ns.svc.cluster.local"], Record::Cname("example.com".into()));
        let pods = slice(json!([
            {"addresses": ["10.244.0.2"], "hostname": "web-0", "conditions": conditions(true, true, false)},
            {"addresses": ["10.244.0.3"], "conditions": conditions(true, true, false)},
        ]));
        let headless = names(&service(json!({"clusterIP": "None"})), &[pods]);
        assert_eq!(
            headless.keys().map(String::as_str).collect::<Vec<_>>(),
            ["10-244-0-3.web.ns.svc.cluster.local", "web-0.web.ns.svc.cluster.local", "web.ns.svc.cluster.local"]
        );
        assert_eq!(headless["web.ns.svc.cluster.local"], Record::Addresses(vec![ip("10.244.0.2"), ip("10.244.0.3")]));
    }

    #[test]
    fn a_load_balancer_asks_for_its_own_ports_and_the_node_ports() {
        let balancer =
            service(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]}));
        let wanted: Vec<u16> = doors(&balancer).into_iter().map(|door| door.port).collect();
        assert_eq!(wanted, [80, 30080]);
        assert!(doors(&service(json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}))).is_empty());
    }
}
