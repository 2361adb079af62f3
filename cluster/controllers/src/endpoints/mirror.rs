//! Endpoints that somebody wrote by hand, for a service without selector, as endpoint slices. No input or output here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use meshlab_controller_runtime::controller_reference;

use super::{MANAGED_BY, SERVICE_NAME};

/// This controller, as a slice's label names it.
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label with which endpoints refuse to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Whether these endpoints are to be mirrored.
pub(super) fn wants_mirror(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP).map(String::as_str) != Some("true")
}

/// The slices that say the same as `endpoints`, one for each subset. Their names are stable.
pub(super) fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets.enumerate().map(|(index, subset)| slice(endpoints, subset, index)).collect()
}

fn slice(endpoints: &Endpoints, subset: &EndpointSubset, index: usize) -> EndpointSlice {
    let mut labels: BTreeMap<String, String> = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let ready = subset.addresses.iter().flatten().map(|address| endpoint(address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| endpoint(address, false));
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-mirror-{index}", endpoints.name_any())),
            namespace: endpoints.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..Default::default()
        },
        address_type: "IPv4".to_owned(),
        ports: Some(ports.collect()),
        endpoints: ready.chain(not_ready).collect(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_subset_becomes_a_slice() {
        let subset =
            json!({"addresses": [{"ip": "10.1.0.1"}], "notReadyAddresses": [{"ip": "10.1.0.2"}], "ports": [{"port": 5432}]});
        let endpoints = json!({"metadata": {"name": "db", "namespace": "ns", "uid": "u"}, "subsets": [subset]});
        let slices = slices(&serde_json::from_value(endpoints).unwrap());
        let shown: Vec<_> =
            slices[0].endpoints.iter().map(|e| (e.addresses[0].as_str(), e.conditions.as_ref().unwrap().ready)).collect();
        assert_eq!(shown, [("10.1.0.1", Some(true)), ("10.1.0.2", Some(false))]);
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(5432));
        assert_eq!(slices[0].metadata.name.as_deref(), Some("db-mirror-0"));
    }
}
