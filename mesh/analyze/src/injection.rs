//! Namespaces and pods that should have sidecars.

use std::collections::BTreeSet;

use meshlab_compile::Snapshot;

use crate::{Code, Message, origin};

/// Namespaces that nobody expects to be in the mesh.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

pub(crate) fn analyze(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    let mut injected = BTreeSet::new();
    for object in sources.namespaces.values() {
        let name = &object.meta.name;
        if SYSTEM.contains(&name.as_str()) || *name == sources.mesh.root_namespace {
            continue;
        }
        let labels = &object.meta.labels;
        let injection = labels.get("istio-injection").map(String::as_str);
        let place = || origin("Namespace", "", name, String::new());
        let others: Vec<String> = ["istio.io/rev", "istio.io/dataplane-mode"]
            .iter()
            .filter_map(|key| labels.get(*key).map(|value| format!("{key}={value}")))
            .collect();
        let all: Vec<String> = injection.map(|value| format!("istio-injection={value}")).into_iter().chain(others).collect();
        if all.len() > 1 && injection.is_none_or(|value| value == "enabled") {
            let text = format!("has several labels that decide on injection ({}); keep one of them", all.join(", "));
            out.push(Message::new(Code::NamespaceMultipleInjectionLabels, place(), text));
        }
        if injection == Some("enabled") {
            injected.insert(name.as_str());
        } else if injection.is_none() && !labels.contains_key("istio.io/rev") {
            let text = format!(
                "pods here get no sidecar. 'kubectl label namespace {name} istio-injection=enabled' turns injection on, \
                 'kubectl label namespace {name} istio-injection=disabled' says that this is meant"
            );
            out.push(Message::new(Code::NamespaceNotInjected, place(), text));
        }
    }
    for pod in sources.pods.values().filter(|pod| injected.contains(pod.meta.namespace.as_str())) {
        let wish = pod.meta.labels.get("sidecar.istio.io/inject").or(pod.meta.annotations.get("sidecar.istio.io/inject"));
        let unwanted = wish.is_some_and(|wish| wish.eq_ignore_ascii_case("false")) || pod.spec.host_network;
        let has_proxy =
            pod.spec.containers.iter().chain(&pod.spec.init_containers).any(|container| container.name == "istio-proxy");
        let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        if !unwanted && !has_proxy && !ended {
            let place = origin("Pod", &pod.meta.namespace, &pod.meta.name, String::new());
            let text = "has no sidecar though its namespace is injected; it may be older than the label. 'kubectl rollout restart' brings it in";
            out.push(Message::new(Code::PodMissingProxy, place, text));
        }
    }
}
