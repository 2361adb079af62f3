//! What is in the cluster, as far as the mesh cares: followed by watches, kept ready to be compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use meshlab_compile::{Problem, Sources};
use meshlab_istio_api::{Kind, validate};
use meshlab_proxy_config::Log;
use serde_json::Value;
use tokio::sync::watch;

use crate::metrics::{self, Metrics};
use crate::watch::{Change, watch_dynamic};

/// Namespace and name.
pub(crate) type Key = (String, String);

/// A kind that is followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Followed {
    group: &'static str,
    version: &'static str,
    pub(crate) kind: &'static str,
    plural: &'static str,
}

impl Followed {
    const fn new(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { group, version, kind, plural }
    }

    /// Every kind that configuration is compiled from.
    pub(crate) fn all() -> Vec<Self> {
        let kubernetes = [
            Self::new("", "v1", "Service", "services"),
            Self::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::new("", "v1", "Pod", "pods"),
            Self::new("", "v1", "Namespace", "namespaces"),
            Self::new("", "v1", "Node", "nodes"),
            Self::new("", "v1", "Secret", "secrets"),
        ];
        let istio = Kind::ALL.map(|kind| Self::new(kind.group().name(), kind.versions()[0], kind.name(), kind.plural()));
        kubernetes.into_iter().chain(istio).collect()
    }

    pub(crate) fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it is one of Istio's own.
    pub(crate) fn is_istio(&self) -> bool {
        self.group.ends_with(".istio.io")
    }

    /// What of an object counts, as JSON. Everything else may change without any proxy having to know.
    fn relevant(&self, object: &Value) -> Option<Value> {
        let mut object = object.clone();
        let metadata = object["metadata"].as_object_mut()?;
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
        match self.kind {
            "Pod" => {
                let status = serde_json::json!({ "podIP": object["status"]["podIP"], "phase": object["status"]["phase"] });
                object["status"] = status;
            }
            "Node" => {
                // Its version decides about native sidecars; its lease and conditions change all the time.
                let version = object["status"]["nodeInfo"]["kubeletVersion"].clone();
                object["status"] = serde_json::json!({ "nodeInfo": { "kubeletVersion": version } });
                object.as_object_mut()?.remove("spec");
            }
            // Tokens and Helm's own records are no certificates.
            "Secret" if matches!(object["type"].as_str(), Some("kubernetes.io/service-account-token" | "helm.sh/release.v1")) => {
                return None;
            }
            // Our own reports would otherwise cause the next report.
            _ if self.is_istio() => drop(object.as_object_mut()?.remove("status")),
            _ => {}
        }
        Some(object)
    }
}

/// What is wrong with an object of Istio's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Field path and message, one for each fault.
    pub(crate) messages: Vec<String>,
    /// What that means for the mesh.
    pub(crate) effect: Effect,
}

/// What becomes of an object with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It cannot be read, and never could.
    None,
    /// It cannot be read; an earlier state is in effect.
    LastGood,
    /// It is in effect but for the part at fault.
    Partial,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "it has no effect",
            Self::LastGood => "the last good state stays in effect",
            Self::Partial => "a part of it has no effect",
        })
    }
}

struct Seen {
    fingerprint: u64,
    /// The object as it is, for kinds of Istio and nodes.
    object: Option<Arc<Value>>,
    fault: Option<Fault>,
    /// It is among the sources.
    in_effect: bool,
}

#[derive(Default)]
struct State {
    sources: Sources,
    /// What compiling noticed, by kind, namespace and name.
    problems: BTreeMap<(String, Key), Vec<String>>,
    seen: BTreeMap<Followed, BTreeMap<Key, Seen>>,
    unsynced: BTreeSet<Followed>,
}

/// Everything followed, at its newest state.
pub(crate) struct Inventory {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    problems: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    log: Log,
}

impl Inventory {
    pub(crate) fn new(metrics: Arc<Metrics>, log: Log) -> Self {
        let state = State { unsynced: Followed::all().into_iter().collect(), ..State::default() };
        Self { state: Mutex::new(state), changes: watch::channel(0).0, problems: watch::channel(0).0, metrics, log }
    }

    /// Sees every change that could matter to a proxy.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether every kind has been listed once.
    pub(crate) fn is_synced(&self) -> bool {
        self.lock().unsynced.is_empty()
    }

    /// What is to be compiled, now.
    pub(crate) fn sources(&self) -> Sources {
        self.lock().sources.clone()
    }

    /// Changes what does not come from a watch: mesh configuration and key sets.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Sources)) {
        change(&mut self.lock().sources);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Every object of Istio's API with what is wrong with it.
    pub(crate) fn istio_objects(&self) -> Vec<(Followed, Arc<Value>, Option<Fault>)> {
        let state = self.lock();
        let kinds = state.seen.iter().filter(|(followed, _)| followed.is_istio());
        let objects = kinds.flat_map(|(followed, objects)| objects.values().map(move |seen| (followed, seen)));
        let noticed = |followed: &Followed, object: &Value| {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let messages = state.problems.get(&(followed.kind.to_owned(), (text("namespace"), text("name"))))?;
            Some(Fault { messages: messages.clone(), effect: Effect::Partial })
        };
        let described = objects.filter_map(|(followed, seen)| {
            let object = seen.object.clone()?;
            let fault = seen.fault.clone().or_else(|| noticed(followed, &object));
            Some((followed.clone(), object, fault))
        });
        described.collect()
    }

    /// Takes in what compiling noticed. A problem is logged when it appears.
    pub(crate) fn set_problems(&self, problems: BTreeSet<Problem>) {
        let mut by_object: BTreeMap<(String, Key), Vec<String>> = BTreeMap::new();
        for Problem { origin, message } in problems {
            let text = if origin.path.is_empty() { message } else { format!("{}: {message}", origin.path) };
            by_object.entry((origin.kind, (origin.namespace, origin.name))).or_default().push(text);
        }
        let mut state = self.lock();
        if state.problems == by_object {
            return;
        }
        for ((kind, (namespace, name)), messages) in
            by_object.iter().filter(|(object, messages)| state.problems.get(*object) != Some(*messages))
        {
            self.log.warn("model", format_args!("{kind} {namespace}/{name}: {}", messages.join("; ")));
        }
        state.problems = by_object;
        self.problems.send_modify(|count| *count += 1);
    }

    /// Sees every change of what is wrong with resources.
    pub(crate) fn problem_changes(&self) -> watch::Receiver<u64> {
        self.problems.subscribe()
    }

    /// The objects of one kind that are kept as they are.
    pub(crate) fn objects(&self, kind: &str) -> Vec<Arc<Value>> {
        let state = self.lock();
        let kinds = state.seen.iter().filter(|(followed, _)| followed.kind == kind);
        kinds.flat_map(|(_, objects)| objects.values().filter_map(|seen| seen.object.clone())).collect()
    }

    /// Follows one kind for as long as the future lives.
    pub(crate) async fn follow(&self, client: kube::Client, followed: Followed) {
        let resource = followed.resource();
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let sink = |change| self.take(&followed, change);
        watch_dynamic(api, watcher::Config::default(), followed.kind, self.log.clone(), sink).await;
    }

    /// Takes in what a watch has brought.
    fn take(&self, followed: &Followed, change: Change<DynamicObject>) {
        let mut state = self.lock();
        let state = &mut *state;
        let mut changed = false;
        match change {
            Change::All(objects) => {
                let there: BTreeSet<_> = objects.iter().map(key_of).collect();
                let had = state.seen.get(followed).map(|seen| seen.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
                for key in had.iter().filter(|key| !there.contains(key)) {
                    changed |= self.remove(state, followed, key);
                }
                for object in objects {
                    changed |= self.apply(state, followed, &object);
                }
                // The first complete list counts even if it is empty: it may be the one that was waited for.
                changed |= state.unsynced.remove(followed);
            }
            Change::Applied(object) => changed = self.apply(state, followed, &object),
            Change::Deleted(object) => changed = self.remove(state, followed, &key_of(&object)),
        }
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn apply(&self, state: &mut State, followed: &Followed, object: &DynamicObject) -> bool {
        let key = key_of(object);
        let Ok(mut object) = serde_json::to_value(object) else { return false };
        // Items of a list come without their type.
        object["apiVersion"] = followed.api_version().into();
        object["kind"] = followed.kind.into();
        let Some(relevant) = followed.relevant(&object) else { return false };
        let mut hasher = DefaultHasher::new();
        relevant.to_string().hash(&mut hasher);
        let fingerprint = hasher.finish();
        let seen = state.seen.entry(followed.clone()).or_default();
        let keep = (followed.is_istio() || followed.kind == "Node").then(|| Arc::new(object));
        if let Some(had) = seen.get_mut(&key).filter(|had| had.fingerprint == fingerprint) {
            // Its status may have changed.
            had.object = keep;
            return false;
        }
        self.count_event(followed, if seen.contains_key(&key) { "update" } else { "add" });
        let was_in_effect = seen.get(&key).is_some_and(|had| had.in_effect);
        let valid = if followed.is_istio() {
            validate(&relevant).map(drop).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
        } else {
            Ok(())
        };
        let taken = valid.and_then(|()| state.sources.apply(&relevant).map_err(|error| vec![error.to_string()]));
        let effect = if was_in_effect { Effect::LastGood } else { Effect::None };
        let fault = taken.err().map(|messages| Fault { messages, effect });
        if let Some(fault) = &fault {
            let (namespace, name) = &key;
            self.log.error(
                "model",
                format_args!("{} {namespace}/{name} is invalid, {effect}: {}", followed.kind, fault.messages.join("; ")),
            );
        }
        let in_effect = was_in_effect || fault.is_none();
        seen.insert(key, Seen { fingerprint, object: keep, fault, in_effect });
        true
    }

    fn remove(&self, state: &mut State, followed: &Followed, key: &Key) -> bool {
        let Some(_) = state.seen.get_mut(followed).and_then(|seen| seen.remove(key)) else { return false };
        self.count_event(followed, "delete");
        state.sources.remove(&followed.api_version(), followed.kind, &key.0, &key.1);
        true
    }

    fn count_event(&self, followed: &Followed, event: &str) {
        self.metrics.count(&metrics::CONFIG_EVENTS, [followed.kind, event]);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(object: &DynamicObject) -> Key {
    (object.metadata.namespace.clone().unwrap_or_default(), object.metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inventory() -> Inventory {
        Inventory::new(Arc::default(), Log::new(|_| {}))
    }

    fn followed(kind: &str) -> Followed {
        Followed::all().into_iter().find(|followed| followed.kind == kind).unwrap()
    }

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn virtual_service(spec: Value, version: &str) -> DynamicObject {
        object(json!({ "metadata": { "name": "reviews", "namespace": "default", "resourceVersion": version }, "spec": spec }))
    }

    fn good_spec() -> Value {
        json!({ "hosts": ["reviews"], "http": [{ "route": [{ "destination": { "host": "reviews" } }] }] })
    }

    #[test]
    fn what_no_proxy_looks_at_is_no_change() {
        let inventory = inventory();
        let pod = |version: &str, ready: &str| {
            let status =
                json!({ "podIP": "10.244.0.2", "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] });
            object(
                json!({ "metadata": { "name": "a", "namespace": "b", "resourceVersion": version }, "spec": {}, "status": status }),
            )
        };
        let changes = inventory.changes();
        inventory.take(&followed("Pod"), Change::Applied(pod("1", "False")));
        assert_eq!(*changes.borrow(), 1);
        inventory.take(&followed("Pod"), Change::Applied(pod("2", "True")));
        assert_eq!(*changes.borrow(), 1);
        assert_eq!(inventory.sources().pods.len(), 1);
    }

    #[test]
    fn a_bad_resource_keeps_its_last_good_effect() {
        let inventory = inventory();
        let kind = followed("VirtualService");
        inventory.take(&kind, Change::Applied(virtual_service(good_spec(), "1")));
        inventory.take(&kind, Change::Applied(virtual_service(json!({ "hosts": 7 }), "2")));
        assert_eq!(inventory.sources().virtual_services.values().next().unwrap().spec.hosts, ["reviews"]);
        let (_, _, fault) = inventory.istio_objects().remove(0);
        assert_eq!(fault.unwrap().effect, Effect::LastGood);
        inventory.take(&kind, Change::Applied(virtual_service(good_spec(), "3")));
        assert_eq!(inventory.istio_objects().remove(0).2, None);
    }

    #[test]
    fn a_resource_that_was_never_good_has_no_effect() {
        let inventory = inventory();
        inventory.take(&followed("VirtualService"), Change::Applied(virtual_service(json!({ "hosts": 7 }), "1")));
        assert!(inventory.sources().virtual_services.is_empty());
        assert_eq!(inventory.istio_objects().remove(0).2.unwrap().effect, Effect::None);
    }

    #[test]
    fn what_compiling_notices_is_told_of_the_resource() {
        let inventory = inventory();
        inventory.take(&followed("VirtualService"), Change::Applied(virtual_service(good_spec(), "1")));
        let (kind, namespace, name) = ("VirtualService".to_owned(), "default".to_owned(), "reviews".to_owned());
        let origin = meshlab_proxy_config::Origin { kind, namespace, name, path: "spec.http[0]".into() };
        inventory.set_problems([Problem { origin, message: "odd".into() }].into());
        let fault = inventory.istio_objects().remove(0).2.unwrap();
        assert_eq!(fault, Fault { messages: vec!["spec.http[0]: odd".into()], effect: Effect::Partial });
        inventory.set_problems(BTreeSet::new());
        assert_eq!(inventory.istio_objects().remove(0).2, None);
    }

    #[test]
    fn a_new_list_removes_what_is_not_in_it() {
        let inventory = inventory();
        let kind = followed("VirtualService");
        inventory.take(&kind, Change::Applied(virtual_service(good_spec(), "1")));
        inventory.take(&kind, Change::All(Vec::new()));
        assert!(inventory.sources().virtual_services.is_empty());
    }

    #[test]
    fn it_is_synced_when_every_kind_was_listed() {
        let inventory = inventory();
        for kind in Followed::all() {
            assert!(!inventory.is_synced());
            inventory.take(&kind, Change::All(Vec::new()));
        }
        assert!(inventory.is_synced());
    }
}
