//! What a sidecar can see: every visible service, or what a Sidecar resource imports.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use meshlab_istio_api::{Destination, IstioEgressListener, Object, OutboundMode, Sidecar};

use crate::host;
use crate::proxy::ProxyIdentity;
use crate::registry::{MeshService, Registry, selects};
use crate::snapshot::Snapshot;
use crate::traffic::Traffic;
use crate::virtual_service::ResolvedVirtualService;

/// What one proxy sees.
pub(crate) struct Scope<'a> {
    /// Groups of listeners; one catches every port.
    pub egress: Vec<Egress<'a>>,
    /// What is done with unknown destinations.
    pub outbound_mode: OutboundMode,
    /// Where unknown traffic goes, if not to its own destination.
    pub egress_proxy: Option<&'a Destination>,
}

/// The services and routes behind one outbound listener or all.
pub(crate) struct Egress<'a> {
    /// The listener's port; `None`: every port of every service.
    pub listener: Option<&'a IstioEgressListener>,
    /// Services, oldest first, one for each host.
    pub services: Vec<&'a Arc<MeshService>>,
    /// The same by host.
    pub by_host: HashMap<&'a str, &'a Arc<MeshService>>,
    /// VirtualServices, oldest first.
    pub virtual_services: Vec<&'a Arc<ResolvedVirtualService>>,
}

impl<'a> Scope<'a> {
    /// The scope of a proxy.
    pub(crate) fn new(traffic: &'a Traffic, namespace: &str, sidecar: Option<&'a Object<Sidecar>>) -> Self {
        let mesh = &traffic.mesh;
        let spec = sidecar.map(|sidecar| &sidecar.spec);
        let policy = spec.and_then(|spec| spec.outbound_traffic_policy.as_ref());
        let outbound_mode = policy.and_then(|policy| policy.mode).unwrap_or(mesh.outbound_traffic_policy.mode);
        let egress = match spec {
            Some(spec) if !spec.egress.is_empty() => {
                spec.egress.iter().map(|listener| Egress::imported(traffic, namespace, listener)).collect()
            }
            _ => vec![Egress::everything(traffic, namespace)],
        };
        Self { egress, outbound_mode, egress_proxy: policy.and_then(|policy| policy.egress_proxy.as_ref()) }
    }

    /// Every service that some listener sees, one for each host.
    pub(crate) fn services(&self) -> Vec<&'a Arc<MeshService>> {
        let mut seen = HashSet::new();
        let mut out: Vec<&Arc<MeshService>> = Vec::new();
        for service in self.egress.iter().flat_map(|egress| &egress.services) {
            if seen.insert(service.host.as_str()) {
                out.push(service);
            }
        }
        out
    }
}

/// The Sidecar of a workload: one that selects it, else that of its namespace, else that of the root namespace.
pub(crate) fn find_sidecar<'a>(snapshot: &'a Snapshot, proxy: &ProxyIdentity) -> Option<&'a Arc<Object<Sidecar>>> {
    let own = snapshot.sidecars(&proxy.namespace);
    let selecting = own.iter().find(|sidecar| {
        sidecar
            .spec
            .workload_selector
            .as_ref()
            .is_some_and(|selector| !selector.labels.is_empty() && selects(&selector.labels, &proxy.labels))
    });
    let general = |list: &'a [Arc<Object<Sidecar>>]| {
        list.iter().find(|sidecar| sidecar.spec.workload_selector.as_ref().is_none_or(|selector| selector.labels.is_empty()))
    };
    selecting.or_else(|| general(own)).or_else(|| general(snapshot.sidecars(&snapshot.sources().mesh.root_namespace)))
}

impl<'a> Egress<'a> {
    fn everything(traffic: &'a Traffic, namespace: &str) -> Self {
        let services = traffic.services.list.iter().filter(|service| service.visibility.visible_in(namespace));
        Self::new(None, services, namespace, traffic.virtual_services.on_gateway("mesh", namespace))
    }

    fn imported(traffic: &'a Traffic, namespace: &str, listener: &'a IstioEgressListener) -> Self {
        let imports: Vec<(&str, String)> = listener
            .hosts
            .iter()
            .filter_map(|entry| {
                let (from, name) = entry.split_once('/')?;
                let from = if from == "." { namespace } else { from };
                Some((from, name.to_lowercase()))
            })
            .collect();
        let imports_name = |owner: &str, name: &str, meets: fn(&str, &str) -> bool| {
            imports.iter().any(|(from, pattern)| (*from == "*" || *from == owner) && meets(name, pattern))
        };
        let virtual_services: Vec<_> = traffic
            .virtual_services
            .on_gateway("mesh", namespace)
            .into_iter()
            .filter(|vs| vs.hosts.iter().any(|name| imports_name(&vs.namespace, name, host::matches)))
            .collect();
        let mut services: Vec<&Arc<MeshService>> = traffic
            .services
            .list
            .iter()
            .filter(|service| {
                service.visibility.visible_in(namespace) && imports_name(&service.namespace, &service.host, host::is_subset)
            })
            .collect();
        // What an imported VirtualService routes to is reachable too.
        let known: HashSet<&str> = services.iter().map(|service| service.host.as_str()).collect();
        let mut destinations: BTreeMap<&str, &Arc<MeshService>> = BTreeMap::new();
        for destination in virtual_services.iter().flat_map(|vs| vs.destinations()) {
            if !known.contains(destination.host.as_str())
                && let Some(service) = traffic.services.service(&destination.host, namespace)
            {
                destinations.insert(&service.host, service);
            }
        }
        services.extend(destinations.into_values());
        Self::new(Some(listener).filter(|listener| listener.port.is_some()), services.into_iter(), namespace, virtual_services)
    }

    fn new(
        listener: Option<&'a IstioEgressListener>,
        services: impl Iterator<Item = &'a Arc<MeshService>>,
        namespace: &str,
        virtual_services: Vec<&'a Arc<ResolvedVirtualService>>,
    ) -> Self {
        let mut out: Vec<&Arc<MeshService>> = Vec::new();
        let mut position: HashMap<&str, usize> = HashMap::new();
        let rank = |service: &MeshService| (service.namespace != namespace, service.registry == Registry::External);
        for service in services {
            match position.get(service.host.as_str()) {
                Some(&at) if rank(service) < rank(out[at]) => out[at] = service,
                Some(_) => {}
                None => {
                    position.insert(&service.host, out.len());
                    out.push(service);
                }
            }
        }
        let by_host = out.iter().map(|service| (service.host.as_str(), *service)).collect();
        Self { listener, services: out, by_host, virtual_services }
    }
}
