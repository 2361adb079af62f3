//! The Kubernetes objects that the compiler looks at, cut down to what it needs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use meshlab_istio_api::Metadata;
use serde::Deserialize;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Metadata,
    /// Spec.
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    pub r#type: String,
    /// An address, or `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// All addresses.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// The pods behind it.
    pub selector: Labels,
    /// Another name, for type ExternalName.
    pub external_name: String,
    /// PreferClose keeps traffic in its zone.
    pub traffic_distribution: String,
    /// Pods that are not ready belong to it too.
    pub publish_not_ready_addresses: bool,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// The pods' port.
    pub target_port: Option<TargetPort>,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// What is spoken.
    pub app_protocol: Option<String>,
}

/// A port of the pods, by number or by name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container's port.
    Name(String),
}

/// An EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Metadata,
    /// IPv4, IPv6 or FQDN.
    pub address_type: String,
    /// Members.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports of every member.
    pub ports: Vec<SlicePort>,
}

/// A member of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether it is ready.
    pub conditions: EndpointConditions,
    /// The pod.
    pub target_ref: Option<TargetRef>,
    /// Its node.
    pub node_name: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

impl SliceEndpoint {
    /// The name of the pod that it is, if it is one.
    pub fn pod(&self) -> Option<&str> {
        self.target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| target.name.as_str())
    }
}

/// Conditions of a member.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Unset means ready.
    pub ready: Option<bool>,
}

/// A reference to a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Pod.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: Option<String>,
    /// The number at the members.
    pub port: Option<u16>,
}

/// A Pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: PodMeta,
    /// Spec.
    pub spec: PodSpec,
    /// Status.
    pub status: PodStatus,
}

/// Metadata of a Pod, with its owners.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodMeta {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Who made it.
    pub owner_references: Vec<OwnerReference>,
}

/// Who made an object.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// ReplicaSet and so on.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// It manages the object.
    pub controller: Option<bool>,
}

/// `spec` of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Its service account.
    pub service_account_name: String,
    /// Its node.
    pub node_name: String,
    /// It uses the node's network.
    pub host_network: bool,
    /// Containers.
    pub containers: Vec<Container>,
    /// Init containers.
    pub init_containers: Vec<Container>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<ContainerPort>,
}

/// A container's port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub container_port: u16,
}

/// `status` of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// Pending, Running, Succeeded, Failed.
    pub phase: String,
}

impl Pod {
    /// Whether it has a sidecar that takes mutual TLS.
    pub fn has_sidecar(&self) -> bool {
        match self.meta.labels.get("security.istio.io/tlsMode").map(String::as_str) {
            Some("istio") => true,
            Some(_) => false,
            None => {
                self.spec.containers.iter().chain(&self.spec.init_containers).any(|container| container.name == "istio-proxy")
            }
        }
    }

    /// Its service account, `default` if it names none.
    pub fn service_account(&self) -> &str {
        if self.spec.service_account_name.is_empty() { "default" } else { &self.spec.service_account_name }
    }

    /// The workload that made it: the Deployment rather than its ReplicaSet.
    pub fn workload(&self) -> &str {
        let owners = &self.meta.owner_references;
        let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)).or(owners.first()) else {
            return &self.meta.name;
        };
        match (owner.kind.as_str(), self.meta.labels.get("pod-template-hash")) {
            ("ReplicaSet", Some(hash)) => {
                owner.name.strip_suffix(hash.as_str()).and_then(|name| name.strip_suffix('-')).unwrap_or(&owner.name)
            }
            _ => &owner.name,
        }
    }

    /// The number of a container's port.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .find(|port| port.name == name)
            .map(|port| port.container_port)
    }

    /// Its address.
    pub fn address(&self) -> Option<IpAddr> {
        self.status.pod_ip.parse().ok()
    }
}

/// A Namespace or a Node, of which only the metadata counts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Labelled {
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Metadata,
}

impl Labelled {
    /// `region/zone/subzone` of a node.
    pub fn locality(&self) -> String {
        let label = |key: &str| self.meta.labels.get(key).map_or("", String::as_str);
        locality(label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"), label("topology.istio.io/subzone"))
    }
}

/// Joins the parts of a locality that there are.
pub fn locality(region: &str, zone: &str, subzone: &str) -> String {
    let text = format!("{region}/{zone}/{subzone}");
    text.trim_end_matches('/').to_owned()
}

/// A Secret. Data is base64, as on the wire.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Secret {
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Metadata,
    /// Data.
    pub data: BTreeMap<String, String>,
}
