//! The older `Endpoints` object of a service. No input or output here.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::addresses::{Address, Groups, Port};
use super::{HEADLESS, is_headless};

/// The label that says who writes the object (since Kubernetes 1.33).
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// The endpoints of a service. Terminating pods are not in them, unless the service publishes everything.
pub(super) fn endpoints(service: &Service, groups: &Groups) -> Endpoints {
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let subsets: Vec<EndpointSubset> = groups.iter().filter_map(|(ports, addresses)| subset(ports, addresses)).collect();
    Endpoints {
        metadata: ObjectMeta {
            name: Some(service.name_any()),
            namespace: service.namespace(),
            labels: Some(labels),
            ..Default::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn subset(ports: &[Port], addresses: &[Address]) -> Option<EndpointSubset> {
    let some = |ready: bool| {
        let chosen = addresses.iter().filter(|address| address.ready == ready && (ready || !address.terminating));
        let mut chosen: Vec<EndpointAddress> = chosen.map(address).collect();
        chosen.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!chosen.is_empty()).then_some(chosen)
    };
    let (ready, not_ready) = (some(true), some(false));
    (ready.is_some() || not_ready.is_some()).then(|| EndpointSubset {
        addresses: ready,
        not_ready_addresses: not_ready,
        ports: (!ports.is_empty()).then(|| ports.iter().map(port).collect()),
    })
}

fn address(address: &Address) -> EndpointAddress {
    EndpointAddress {
        ip: address.ip.clone(),
        hostname: address.hostname.clone(),
        node_name: address.node.clone(),
        target_ref: Some(address.target.clone()),
    }
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        port: port.number,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::groups;
    use super::super::addresses::tests::{pod, service};
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_unready_addresses_stand_apart() {
        let web = service(json!({"ports": [{"port": 80}]}));
        let pods = [pod("a", "10.0.0.2", true, 1), pod("b", "10.0.0.1", false, 1), pod("c", "10.0.0.0", true, 1)];
        let endpoints = endpoints(&web, &groups(&web, &pods));
        let subset = &endpoints.subsets.unwrap()[0];
        let ips = |addresses: &Option<Vec<EndpointAddress>>| addresses.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>();
        assert_eq!(ips(&subset.addresses), ["10.0.0.0", "10.0.0.2"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.1"]);
    }
}
