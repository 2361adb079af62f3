//! The Node object and its heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    Node as NodeObject, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PostParams};
use kube::{Client, ResourceExt};
use meshlab_controller_runtime::{is_not_found, now};
use serde_json::json;

use crate::Node;
use crate::environment::{NODE_CPU, NODE_MEMORY, NODE_STORAGE};

/// How often the node says that it lives, and for how long that is good; as real kubelets do.
const HEARTBEAT: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
const LEASES: &str = "kube-node-lease";
/// The Kubernetes version this cluster speaks.
const VERSION: &str = "v1.33.0";

/// Registers the node, then keeps its lease until the cluster stops.
pub(crate) async fn keep(node: Arc<Node>) {
    let mut pause = Duration::from_millis(50);
    loop {
        match register(&node).await {
            Ok(()) => break,
            Err(error) => {
                tracing::debug!(%error, "the node is not registered yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(HEARTBEAT);
            }
        }
    }
    loop {
        if let Err(error) = renew(&node).await {
            tracing::debug!(%error, "the node's lease was not renewed");
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

async fn register(node: &Node) -> Result<(), kube::Error> {
    let api: Api<NodeObject> = Api::all(node.client.clone());
    let object = NodeObject {
        metadata: ObjectMeta { name: Some(node.name.clone()), labels: Some(labels(&node.name)), ..Default::default() },
        ..Default::default()
    };
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(error) => return Err(error),
    }
    let patch = Patch::Merge(json!({"status": status(node)}));
    let known = api.patch_status(&node.name, &Default::default(), &patch).await?;
    node.informers.nodes.observe(known);
    Ok(())
}

fn labels(name: &str) -> BTreeMap<String, String> {
    let labels = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
        ("node-role.kubernetes.io/control-plane", ""),
    ];
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(node: &Node) -> NodeStatus {
    let condition = |condition_type: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: condition_type.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now()),
        last_transition_time: Some(now()),
    };
    let size = [("cpu", NODE_CPU), ("memory", NODE_MEMORY), ("ephemeral-storage", NODE_STORAGE), ("pods", "10000")];
    let size: BTreeMap<String, Quantity> =
        size.iter().map(|(name, quantity)| ((*name).to_owned(), Quantity((*quantity).to_owned()))).collect();
    let address = |address_type: &str, address: &str| NodeAddress { type_: address_type.to_owned(), address: address.to_owned() };
    NodeStatus {
        capacity: Some(size.clone()),
        allocatable: Some(size),
        addresses: Some(vec![address("InternalIP", &node.address), address("Hostname", &node.name)]),
        conditions: Some(vec![
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints::default()),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            operating_system: "linux".to_owned(),
            os_image: "meshlab".to_owned(),
            kernel_version: "none".to_owned(),
            kubelet_version: VERSION.to_owned(),
            kube_proxy_version: VERSION.to_owned(),
            container_runtime_version: format!("meshlab://{}", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn renew(node: &Node) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(node.client.clone(), LEASES);
    let renewed = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": renewed}}));
    match api.patch(&node.name, &Default::default(), &patch).await {
        Err(error) if is_not_found(&error) => {}
        answer => return answer.map(drop),
    }
    let owner = owner(node.client.clone(), &node.name).await?;
    let lease = Lease {
        metadata: ObjectMeta { name: Some(node.name.clone()), owner_references: Some(vec![owner]), ..Default::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(renewed),
            ..Default::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}

async fn owner(client: Client, name: &str) -> Result<OwnerReference, kube::Error> {
    let node = Api::<NodeObject>::all(client).get(name).await?;
    Ok(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: node.uid().unwrap_or_default(),
        ..Default::default()
    })
}
