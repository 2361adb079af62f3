//! The proxy that configuration is compiled for.

use std::net::IpAddr;
use std::sync::Arc;

use crate::kubernetes::{Labels, Pod};
use crate::{Snapshot, registry};

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Beside one application.
    Sidecar,
    /// At the edge, configured by Gateway resources.
    Gateway,
}

/// Who a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyIdentity {
    /// What it is for.
    pub role: Role,
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod: String,
    /// Labels of its pod.
    pub labels: Labels,
    /// Address of its pod.
    pub ip: Option<IpAddr>,
    /// Service account of its pod.
    pub service_account: String,
    /// The workload that made its pod (`reviews-v1`).
    pub workload: String,
    /// `region/zone/subzone` of its node.
    pub locality: String,
}

impl ProxyIdentity {
    /// The identity of a pod's proxy.
    pub fn of_pod(pod: &Pod, role: Role, snapshot: &Snapshot) -> Self {
        Self {
            role,
            namespace: pod.meta.namespace.clone(),
            pod: pod.meta.name.clone(),
            labels: pod.meta.labels.clone(),
            ip: pod.address(),
            service_account: pod.service_account().to_owned(),
            workload: pod.workload().to_owned(),
            locality: registry::pod_locality(pod, &snapshot.sources().nodes),
        }
    }

    /// Its SPIFFE identity.
    pub fn spiffe(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.namespace, self.service_account)
    }
}

/// A client, as far as the clusters that it uses depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClusterClient {
    pub(crate) role: Role,
    pub(crate) namespace: String,
    /// `region/zone/subzone`
    pub(crate) locality: String,
    /// The labels that failing over looks at.
    pub(crate) labels: Labels,
}

/// A client, as far as the routes that it uses, and which DestinationRules hold for it, depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RouteClient {
    pub(crate) namespace: String,
    /// The labels that VirtualServices and DestinationRules look at.
    pub(crate) labels: Labels,
}

/// A client, as far as what it sends depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) clusters: Arc<ClusterClient>,
    pub(crate) routes: Arc<RouteClient>,
}

/// What two proxies have in common when they get the same configuration. Compile once for each class.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassKey {
    role: Role,
    namespace: String,
    labels: Labels,
    service_account: String,
    workload: String,
    locality: String,
}

impl ClassKey {
    pub(crate) fn of(proxy: &ProxyIdentity) -> Self {
        let mut labels = proxy.labels.clone();
        // Labels that tell the pods of one workload apart, and that no policy selects by.
        for key in [
            "pod-template-hash",
            "controller-revision-hash",
            "statefulset.kubernetes.io/pod-name",
            "apps.kubernetes.io/pod-index",
        ] {
            labels.remove(key);
        }
        Self {
            role: proxy.role,
            namespace: proxy.namespace.clone(),
            labels,
            service_account: proxy.service_account.clone(),
            workload: proxy.workload.clone(),
            locality: proxy.locality.clone(),
        }
    }
}
