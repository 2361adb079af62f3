//! Policies that select workloads: security, telemetry and Sidecars.

use std::collections::BTreeMap;

use meshlab_compile::Snapshot;
use meshlab_compile::registry::selects;
use meshlab_istio_api::Metadata;

use crate::{Code, Message, origin};

type Labels = BTreeMap<String, String>;

pub(crate) fn analyze(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    let root = &sources.mesh.root_namespace;
    let mut selector = |kind: &str, meta: &Metadata, labels: Option<&Labels>| {
        let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { return };
        let everywhere = meta.namespace == *root;
        let found = sources
            .pods
            .values()
            .any(|pod| (everywhere || pod.meta.namespace == meta.namespace) && selects(labels, &pod.meta.labels));
        if !found {
            let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let place = origin(kind, &meta.namespace, &meta.name, "spec.selector".into());
            out.push(Message::new(
                Code::NoMatchingWorkloadsFound,
                place,
                format!("no workload has the labels {}", text.join(",")),
            ));
        }
    };
    for object in sources.authorization_policies.values() {
        selector("AuthorizationPolicy", &object.meta, object.spec.selector.as_ref().map(|s| &s.match_labels));
    }
    for object in sources.request_authentications.values() {
        selector("RequestAuthentication", &object.meta, object.spec.selector.as_ref().map(|s| &s.match_labels));
    }
    for object in sources.peer_authentications.values() {
        selector("PeerAuthentication", &object.meta, object.spec.selector.as_ref().map(|s| &s.match_labels));
    }
    for object in sources.telemetries.values() {
        selector("Telemetry", &object.meta, object.spec.selector.as_ref().map(|s| &s.match_labels));
    }
    source_namespaces(snapshot, out);
    root_selectors(snapshot, out);
    sidecars(snapshot, out);
}

/// Namespaces that a rule names and that do not exist.
fn source_namespaces(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    for object in sources.authorization_policies.values() {
        for (index, rule) in object.spec.rules.iter().enumerate() {
            let named = rule
                .from
                .iter()
                .filter_map(|from| from.source.as_ref())
                .flat_map(|source| source.namespaces.iter().chain(&source.not_namespaces));
            for namespace in named.filter(|name| !name.contains('*')) {
                if !sources.namespaces.contains_key(&(String::new(), namespace.clone())) {
                    let place =
                        origin("AuthorizationPolicy", &object.meta.namespace, &object.meta.name, format!("spec.rules[{index}]"));
                    out.push(Message::new(
                        Code::ReferencedResourceNotFound,
                        place,
                        format!("namespace {namespace:?} is not found"),
                    ));
                }
            }
        }
    }
}

/// In the root namespace a PeerAuthentication with a selector has no effect.
fn root_selectors(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    for object in sources.peer_authentications.values().filter(|object| object.meta.namespace == sources.mesh.root_namespace) {
        if object.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty()) {
            let place = origin("PeerAuthentication", &object.meta.namespace, &object.meta.name, "spec.selector".into());
            let text = "has no effect: in the root namespace only a policy without a selector counts; move it to its workload's namespace";
            out.push(Message::new(Code::IneffectivePolicy, place, text));
        }
    }
}

fn sidecars(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    let mut general: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for object in sources.sidecars.values() {
        let labels = object.spec.workload_selector.as_ref().map(|selector| &selector.labels).filter(|labels| !labels.is_empty());
        let Some(labels) = labels else {
            general.entry(&object.meta.namespace).or_default().push(&object.meta.name);
            continue;
        };
        let place = origin("Sidecar", &object.meta.namespace, &object.meta.name, "spec.workloadSelector".into());
        let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mine: Vec<_> = sources
            .pods
            .values()
            .filter(|pod| pod.meta.namespace == object.meta.namespace && selects(labels, &pod.meta.labels))
            .collect();
        if mine.is_empty() {
            let text = format!("selector {:?} is not found on any pod", text.join(","));
            out.push(Message::new(Code::ReferencedResourceNotFound, place, text));
            continue;
        }
        let rivals: Vec<&str> = sources
            .sidecars
            .values()
            .filter(|other| other.meta.namespace == object.meta.namespace)
            .filter(|other| {
                let theirs = other.spec.workload_selector.as_ref().map(|selector| &selector.labels);
                theirs.is_some_and(|theirs| !theirs.is_empty() && mine.iter().any(|pod| selects(theirs, &pod.meta.labels)))
            })
            .map(|other| other.meta.name.as_str())
            .collect();
        if rivals.len() > 1 {
            let text = format!("Sidecars {} select the same pod {}; the oldest counts", rivals.join(", "), mine[0].meta.name);
            out.push(Message::new(Code::ConflictingSidecarWorkloadSelectors, place, text));
        }
    }
    for (namespace, names) in general.into_iter().filter(|(_, names)| names.len() > 1) {
        for name in &names {
            let place = origin("Sidecar", namespace, name, String::new());
            let text = format!("Sidecars {} all are for the whole namespace; the oldest counts", names.join(", "));
            out.push(Message::new(Code::MultipleSidecarsWithoutWorkloadSelectors, place, text));
        }
    }
}
