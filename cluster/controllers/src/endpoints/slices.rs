//! Which endpoint slices to write. No input or output here.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use meshlab_controller_runtime::controller_reference;

use super::addresses::{Address, Groups, Port};
use super::{HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME, is_headless};

/// Endpoints in one slice at most, as Kubernetes has it by default.
const PER_SLICE: usize = 100;

/// What to do to the slices there are.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    pub(super) delete: Vec<String>,
}

/// Brings the slices there are to what `groups` says. An endpoint stays in its slice; new ones fill the gaps.
pub(super) fn plan(service: &Service, groups: &Groups, known: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut unused: Vec<&Arc<EndpointSlice>> = known.iter().collect();
    // A service without pods keeps one empty slice, so that clients can tell "none" from "not yet".
    let nothing = Groups::from([(Vec::new(), Vec::new())]);
    for (ports, addresses) in if groups.is_empty() { &nothing } else { groups } {
        let ports: Vec<EndpointPort> = ports.iter().map(port).collect();
        let mut wanted: BTreeMap<&str, &Address> = addresses.iter().map(|address| (address.ip.as_str(), address)).collect();
        let (matching, rest): (Vec<_>, Vec<_>) =
            unused.into_iter().partition(|slice| slice.ports.as_deref().unwrap_or_default() == ports.as_slice());
        unused = rest;
        let mut filled: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in matching {
            let ips = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
            let kept = ips.filter_map(|ip| wanted.remove(ip.as_str())).map(endpoint).collect();
            filled.push((slice, kept));
        }
        let mut new = wanted.into_values().map(endpoint);
        for (_, endpoints) in &mut filled {
            let room = PER_SLICE.saturating_sub(endpoints.len());
            endpoints.extend(new.by_ref().take(room));
        }
        let mut rest: Vec<Endpoint> = new.collect();
        let only = filled.is_empty() && rest.is_empty();
        for (index, (slice, endpoints)) in filled.iter().enumerate() {
            if endpoints.is_empty() && (index > 0 || !groups.is_empty()) {
                plan.delete.push(slice.name_any());
            } else {
                let mut next = EndpointSlice::clone(slice);
                next.metadata.labels = Some(labels(service));
                next.endpoints = endpoints.clone();
                plan.update.push((Arc::clone(slice), next));
            }
        }
        while !rest.is_empty() || only && plan.create.is_empty() {
            let chunk = rest.drain(..rest.len().min(PER_SLICE)).collect();
            plan.create.push(slice(service, ports.clone(), chunk));
        }
    }
    plan.delete.extend(unused.into_iter().map(|slice| slice.name_any()));
    plan
}

fn slice(service: &Service, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_reference(service)]),
            ..Default::default()
        },
        address_type: "IPv4".to_owned(),
        ports: Some(ports),
        endpoints,
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.number),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &Address) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(address.ready),
            serving: Some(address.serving),
            terminating: Some(address.terminating),
        }),
        hostname: address.hostname.clone(),
        node_name: address.node.clone(),
        target_ref: Some(address.target.clone()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::groups;
    use super::super::addresses::tests::{pod, service};
    use super::*;
    use serde_json::json;

    fn web() -> Service {
        service(json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}))
    }

    fn named(mut slice: EndpointSlice, name: &str) -> Arc<EndpointSlice> {
        slice.metadata.name = Some(name.to_owned());
        Arc::new(slice)
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let first = plan(&web(), &Groups::new(), &[]);
        assert_eq!(first.create.len(), 1);
        assert!(first.create[0].endpoints.is_empty());
        let again = plan(&web(), &Groups::new(), &[named(first.create[0].clone(), "web-x")]);
        assert!(again.create.is_empty() && again.delete.is_empty());
    }

    #[test]
    fn many_pods_take_several_slices_and_stay_where_they_are() {
        let pods: Vec<_> = (0..150).map(|n| pod(&format!("p{n:03}"), &format!("10.0.0.{n}"), true, 1)).collect();
        let first = plan(&web(), &groups(&web(), &pods), &[]);
        let sizes: Vec<_> = first.create.iter().map(|slice| slice.endpoints.len()).collect();
        assert_eq!(sizes, [100, 50]);
        let known: Vec<_> = first.create.into_iter().enumerate().map(|(n, slice)| named(slice, &format!("web-{n}"))).collect();
        let fewer = plan(&web(), &groups(&web(), &pods[..120]), &known);
        assert_eq!((fewer.create.len(), fewer.delete.len()), (0, 0));
        let moved = fewer.update.iter().any(|(old, new)| {
            new.endpoints.iter().any(|endpoint| !old.endpoints.iter().any(|known| known.addresses == endpoint.addresses))
        });
        assert!(!moved);
    }

    #[test]
    fn the_empty_slice_gives_way_to_a_real_one() {
        let empty = named(plan(&web(), &Groups::new(), &[]).create.remove(0), "web-x");
        let next = plan(&web(), &groups(&web(), &[pod("a", "10.0.0.1", true, 1)]), &[empty]);
        assert_eq!((next.create.len(), next.delete.as_slice()), (1, &["web-x".to_owned()][..]));
    }
}
