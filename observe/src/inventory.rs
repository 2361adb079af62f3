//! The pods of the cluster, as far as pages need them: who they are, and whether a proxy stands beside them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

/// The container of a workload's proxy.
pub(crate) const PROXY: &str = "istio-proxy";

/// What runs in the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    pub(crate) pods: Vec<PodInfo>,
    /// Whether the mesh injects its proxies into the namespace's pods.
    pub(crate) injected: BTreeMap<String, bool>,
}

/// A pod that has not ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodInfo {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The Deployment (or whatever owns the pod), as the mesh's metrics name it.
    pub(crate) workload: String,
    pub(crate) address: String,
    pub(crate) proxied: bool,
    /// Whether the pod itself wants no proxy.
    pub(crate) opted_out: bool,
    pub(crate) ready: bool,
}

impl Inventory {
    /// Asks the API server.
    ///
    /// # Errors
    /// It refuses or does not answer, in words.
    pub(crate) async fn look(client: &kube::Client) -> Result<Self, String> {
        let away = |error: kube::Error| format!("The Kubernetes API does not answer: {error}");
        let (pods, namespaces) = (Api::<Pod>::all(client.clone()), Api::<Namespace>::all(client.clone()));
        let everything = ListParams::default();
        let (pods, namespaces) = tokio::join!(pods.list(&everything), namespaces.list(&everything));
        let injected = |namespace: &Namespace| {
            let label = |name: &str| namespace.labels().get(name).map(String::as_str);
            (namespace.name_any(), label("istio-injection") == Some("enabled") || label("istio.io/rev").is_some())
        };
        Ok(Self {
            pods: pods.map_err(away)?.iter().filter_map(info).collect(),
            injected: namespaces.map_err(away)?.iter().map(injected).collect(),
        })
    }

    /// The workload of the pod with an address.
    pub(crate) fn at(&self, address: &str) -> Option<&str> {
        self.pods.iter().find(|pod| pod.address == address && !address.is_empty()).map(|pod| pod.workload.as_str())
    }
}

fn info(pod: &Pod) -> Option<PodInfo> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let has = |containers: &[Container]| containers.iter().any(|container| container.name == PROXY);
    let refuses = |values: &BTreeMap<String, String>| values.get("sidecar.istio.io/inject").is_some_and(|value| value == "false");
    Some(PodInfo {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        workload: workload(pod),
        address: status.pod_ip.clone().unwrap_or_default(),
        proxied: has(&spec.containers) || spec.init_containers.as_deref().is_some_and(has),
        opted_out: refuses(pod.labels()) || refuses(pod.annotations()) || spec.host_network == Some(true),
        ready: status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
    })
}

/// The Deployment behind a ReplicaSet, or the owner itself, or the pod.
fn workload(pod: &Pod) -> String {
    let Some(owner) = pod.owner_references().first() else { return pod.name_any() };
    let hash = pod.labels().get("pod-template-hash").map(|hash| format!("-{hash}"));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&hash).map(str::to_owned));
    deployment.filter(|_| owner.kind == "ReplicaSet").unwrap_or_else(|| owner.name.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use serde_json::{Value, json};

    use super::*;
    use crate::pages::tests::HOSTILE;

    fn pod(name: &str, containers: &[&str]) -> Value {
        let containers: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
        json!({
            "metadata": {
                "name": format!("{name}-abc-x"), "namespace": "webapp", "labels": {"pod-template-hash": "abc"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-abc"), "uid": "1"}],
            },
            "spec": {"containers": containers},
            "status": {"phase": "Running", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    /// An API server with two pods in an injected namespace, only one of which has a proxy; all logs are `log`.
    pub(crate) fn cluster(log: &str) -> kube::Client {
        let log = log.to_owned();
        let answer = move |request: Request<kube::client::Body>| {
            let list =
                |kind: &str, items: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "items": items}).to_string();
            let body = match request.uri().path() {
                "/api/v1/pods" => list("PodList", json!([pod("webapp-v1", &["webapp", PROXY]), pod("old", &[HOSTILE])])),
                "/api/v1/namespaces" => {
                    list("NamespaceList", json!([{"metadata": {"name": "webapp", "labels": {"istio-injection": "enabled"}}}]))
                }
                _ => log.clone(),
            };
            async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body)))) }
        };
        kube::Client::new(tower::service_fn(answer), "istio-system")
    }

    #[tokio::test]
    async fn pods_are_known_by_their_deployment() {
        let inventory = Inventory::look(&cluster("")).await.unwrap();
        let pods: Vec<_> = inventory.pods.iter().map(|pod| (pod.workload.as_str(), pod.proxied, pod.ready)).collect();
        assert_eq!(pods, [("webapp-v1", true, true), ("old", false, true)]);
        assert_eq!(inventory.at("10.244.0.9"), Some("webapp-v1"));
        assert_eq!(inventory.injected, [("webapp".to_owned(), true)].into());
    }
}
