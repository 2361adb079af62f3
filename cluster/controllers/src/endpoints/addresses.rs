//! From a service and its pods to addresses and ports. No input or output here.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::pods;

/// A port as endpoints carry it: the service port's name and the pods' number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) number: i32,
    pub(super) app_protocol: Option<String>,
}

/// One pod behind a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Address {
    pub(super) ip: String,
    pub(super) hostname: Option<String>,
    pub(super) node: Option<String>,
    pub(super) target: ObjectReference,
    /// It takes new connections.
    pub(super) ready: bool,
    /// It could take connections, were it not terminating.
    pub(super) serving: bool,
    pub(super) terminating: bool,
}

/// The pods of a service by the ports they have: a named target port may be another number in each.
pub(super) type Groups = BTreeMap<Vec<Port>, Vec<Address>>;

/// Whether a pod's change can change any endpoints.
pub(super) fn matters(old: &Pod, new: &Pod) -> bool {
    let status = |pod: &Pod| {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        (ip, pods::is_ready(pod), pods::is_finished(pod), pod.metadata.deletion_timestamp.is_some())
    };
    status(old) != status(new) || old.metadata.labels != new.metadata.labels
}

/// The addresses of a service's pods, each group sorted by pod name.
pub(super) fn groups(service: &Service, pods: &[Arc<Pod>]) -> Groups {
    let mut groups = Groups::new();
    for pod in pods {
        if let Some(address) = address(service, pod) {
            groups.entry(ports(service, pod)).or_default().push(address);
        }
    }
    for addresses in groups.values_mut() {
        addresses.sort_by(|a, b| a.target.name.cmp(&b.target.name));
    }
    groups
}

fn address(service: &Service, pod: &Pod) -> Option<Address> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    if pods::is_finished(pod) {
        return None;
    }
    let publish_all = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.as_ref() == service.metadata.name.as_ref();
    Some(Address {
        ip,
        hostname: spec.hostname.clone().filter(|_| named),
        node: spec.node_name.clone(),
        target: ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(pod.name_any()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..Default::default()
        },
        ready: publish_all || serving && !terminating,
        serving,
        terminating,
    })
}

/// The service's ports as this pod has them; one whose name the pod does not know is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = target_port(port, pod)?;
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port).to_owned(),
                number,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|init| init.restart_policy.as_deref() == Some("Always"));
            let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let mut ports = ports.filter(|known| known.protocol.as_deref().unwrap_or("TCP") == protocol(port));
            ports.find(|known| known.name.as_ref() == Some(name)).map(|known| known.container_port)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(in crate::endpoints) fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns", "labels": {"team": "a"}}, "spec": spec}))
            .unwrap()
    }

    pub(in crate::endpoints) fn pod(name: &str, ip: &str, ready: bool, port: u16) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn named_ports_may_differ_between_pods() {
        let service = service(json!({"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}));
        let groups = groups(&service, &[pod("a", "10.0.0.1", true, 8080), pod("b", "10.0.0.2", true, 9090)]);
        let ports: Vec<_> = groups.keys().map(|ports| ports[0].number).collect();
        assert_eq!(ports, [8080, 9090]);
    }

    #[test]
    fn readiness_serving_and_termination() {
        let plain = service(json!({"ports": [{"port": 80}]}));
        let states = |service: &Service, pod: &Arc<Pod>| {
            let groups = groups(service, std::slice::from_ref(pod));
            groups.values().flatten().map(|a| (a.ready, a.serving, a.terminating)).collect::<Vec<_>>()
        };
        let mut going = (*pod("a", "10.0.0.1", true, 1)).clone();
        going.metadata.deletion_timestamp = Some(meshlab_controller_runtime::now());
        assert_eq!(states(&plain, &Arc::new(going)), [(false, true, true)]);
        let starting = pod("b", "10.0.0.2", false, 1);
        assert_eq!(states(&plain, &starting), [(false, false, false)]);
        let publishing = service(json!({"publishNotReadyAddresses": true, "ports": [{"port": 80}]}));
        assert_eq!(states(&publishing, &starting), [(true, false, false)]);
        assert_eq!(states(&plain, &pod("c", "", true, 1)), []);
    }
}
