//! What is scraped: pods with the annotation `prometheus.io/scrape: "true"`, as in the Prometheus of Istio's addons.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

/// A place that answers with metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    /// Scrape pool, and label `job`.
    pub(crate) job: String,
    pub(crate) address: SocketAddr,
    /// `http`; nothing else can be scraped.
    pub(crate) scheme: String,
    pub(crate) path: String,
    /// Put on every series that has no such label of its own (`honor_labels`).
    pub(crate) labels: BTreeMap<String, String>,
}

impl Target {
    /// A target outside of Kubernetes.
    pub(crate) fn fixed(job: &str, instance: &str, address: SocketAddr) -> Self {
        let labels = [("instance", instance), ("job", job)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { job: job.to_owned(), address, scheme: "http".to_owned(), path: "/metrics".to_owned(), labels: labels.into() }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.address, self.path)
    }
}

/// All targets there are now.
pub(crate) type Targets = BTreeMap<String, Vec<Target>>;

/// Follows the pods until dropped; `sender` always has the targets of all of them, by pod.
pub(crate) async fn follow_pods(client: kube::Client, sender: watch::Sender<Targets>) {
    let pods: Api<Pod> = Api::all(client);
    let events = watcher::watcher(pods, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut listed = Targets::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(key(&pod), of_pod(&pod));
            }
            Ok(Event::InitDone) => sender.send_modify(|targets| *targets = std::mem::take(&mut listed)),
            Ok(Event::Apply(pod)) => {
                let of_pod = of_pod(&pod);
                sender.send_if_modified(|targets| targets.insert(key(&pod), of_pod.clone()).unwrap_or_default() != of_pod);
            }
            Ok(Event::Delete(pod)) => {
                sender.send_if_modified(|targets| targets.remove(&key(&pod)).is_some());
            }
            // The watcher tries again, with back-off.
            Err(error) => tracing::debug!(%error, "cannot watch pods"),
        }
    }
}

fn key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The targets of one pod: the port its annotation names, or else each port of its containers.
fn of_pod(pod: &Pod) -> Vec<Target> {
    let annotation = |name: &str| pod.annotations().get(&format!("prometheus.io/{name}")).map(String::as_str);
    let status = pod.status.as_ref();
    let ended = matches!(status.and_then(|status| status.phase.as_deref()), None | Some("Pending" | "Succeeded" | "Failed"));
    let address: Option<IpAddr> = status.and_then(|status| status.pod_ip.as_ref()?.parse().ok());
    let (Some("true"), false, Some(address)) = (annotation("scrape"), ended, address) else { return Vec::new() };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports: Vec<u16> = match annotation("port").map(str::parse) {
        Some(Ok(port)) => vec![port],
        Some(Err(_)) => Vec::new(),
        None => {
            let ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.filter_map(|port| u16::try_from(port.container_port).ok()).collect()
        }
    };
    let path = annotation("path").filter(|path| path.starts_with('/')).unwrap_or("/metrics");
    let target = |port| {
        let address = SocketAddr::new(address, port);
        let mut labels: BTreeMap<_, _> = pod
            .labels()
            .iter()
            .map(|(name, value)| (label_name(name), value.clone()))
            .collect::<HashMap<_, _>>()
            .into_iter()
            .collect();
        labels.insert("job".to_owned(), "kubernetes-pods".to_owned());
        labels.insert("instance".to_owned(), address.to_string());
        labels.insert("namespace".to_owned(), pod.namespace().unwrap_or_default());
        labels.insert("pod".to_owned(), pod.name_any());
        labels.insert("node".to_owned(), pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default());
        labels.retain(|_, value| !value.is_empty());
        Target {
            job: "kubernetes-pods".to_owned(),
            address,
            scheme: annotation("scheme").unwrap_or("http").to_owned(),
            path: path.to_owned(),
            labels,
        }
    };
    ports.into_iter().map(target).collect()
}

/// A Kubernetes label as a label of Prometheus: what it may not contain becomes `_`.
fn label_name(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &serde_json::Value, phase: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "webapp-1", "namespace": "webapp", "labels": {"app": "webapp", "service.istio.io/canonical-name": "webapp"}, "annotations": annotations},
            "spec": {"nodeName": "node", "containers": [{"name": "app", "ports": [{"containerPort": 8080}, {"containerPort": 8081}]}]},
            "status": {"phase": phase, "podIP": "10.244.0.7"},
        }))
        .unwrap()
    }

    #[test]
    fn annotations_say_what_to_scrape() {
        let annotations = serde_json::json!({"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus"});
        let targets = of_pod(&pod(&annotations, "Running"));
        assert_eq!(targets.iter().map(Target::url).collect::<Vec<_>>(), ["http://10.244.0.7:15020/stats/prometheus"]);
        insta::assert_json_snapshot!(targets[0].labels, @r#"
        {
          "app": "webapp",
          "instance": "10.244.0.7:15020",
          "job": "kubernetes-pods",
          "namespace": "webapp",
          "node": "node",
          "pod": "webapp-1",
          "service_istio_io_canonical_name": "webapp"
        }
        "#);
        assert!(of_pod(&pod(&annotations, "Succeeded")).is_empty());
        assert!(of_pod(&pod(&serde_json::json!({}), "Running")).is_empty());
        assert_eq!(of_pod(&pod(&serde_json::json!({"prometheus.io/scrape": "true"}), "Running")).len(), 2);
    }
}
