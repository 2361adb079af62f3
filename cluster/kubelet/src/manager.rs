//! Which pods the node runs: one task for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meshlab_controller_runtime::{Key, catch_panic};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::Node;
use crate::pod::{self, Message, PodRuntime, References, references};

/// The pods of the node.
#[derive(Default)]
pub(crate) struct Pods {
    handles: Mutex<BTreeMap<Key, Handle>>,
}

/// One pod's task, from outside. Dropping it ends the task.
struct Handle {
    uid: Option<String>,
    updates: watch::Sender<Arc<Pod>>,
    messages: mpsc::UnboundedSender<Message>,
    runtime: Arc<PodRuntime>,
    references: References,
}

impl Pods {
    /// The pod of this name, and what of it can be reached from outside.
    pub(crate) fn get(&self, key: &Key) -> Option<(Arc<Pod>, Arc<PodRuntime>)> {
        let handles = self.handles.lock();
        let handle = handles.get(key)?;
        Some((handle.updates.borrow().clone(), handle.runtime.clone()))
    }

    fn apply(&self, node: &Arc<Node>, pod: &Arc<Pod>) {
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) != Some(&node.name) {
            return;
        }
        let key = Key::of(pod.as_ref());
        let mut handles = self.handles.lock();
        match handles.get(&key).filter(|handle| handle.uid == pod.uid()) {
            Some(handle) => drop(handle.updates.send(pod.clone())),
            None => drop(handles.insert(key, start(node, pod))),
        }
    }

    fn remove(&self, pod: &Pod) {
        let key = Key::of(pod);
        let mut handles = self.handles.lock();
        if handles.get(&key).is_some_and(|handle| handle.uid == pod.uid()) {
            handles.remove(&key);
        }
    }

    fn objects_changed(&self, key: &Key, uses: impl Fn(&References) -> bool) {
        let handles = self.handles.lock();
        for (pod, handle) in handles.iter() {
            if pod.namespace == key.namespace && uses(&handle.references) {
                let _ = handle.messages.send(Message::ObjectsChanged);
            }
        }
    }
}

fn start(node: &Arc<Node>, pod: &Arc<Pod>) -> Handle {
    let (updates, receiver) = watch::channel(pod.clone());
    let (messages, inbox) = mpsc::unbounded_channel();
    let runtime = Arc::new(PodRuntime::default());
    let task = pod::run(node.clone(), receiver, runtime.clone(), (messages.clone(), inbox));
    let (stop, key) = (node.stop.clone(), Key::of(pod.as_ref()));
    tokio::spawn(async move {
        if let Some(Err(panic)) = stop.run_until_cancelled(catch_panic(task)).await {
            tracing::error!(pod = %key, panic, "a pod's task panicked; the pod has ended");
        }
    });
    Handle { uid: pod.uid(), updates, messages, runtime, references: references(pod) }
}

/// Follows the pods, and the ConfigMaps and Secrets they use.
pub(crate) fn follow(node: &Arc<Node>) {
    let this = node.clone();
    node.informers.config_maps.on_change(move |old, new| {
        if let Some(map) = new.or(old) {
            let key = Key::of(map.as_ref());
            this.pods.objects_changed(&key, |references| references.config_maps.contains(&key.name));
        }
    });
    let this = node.clone();
    node.informers.secrets.on_change(move |old, new| {
        if let Some(secret) = new.or(old) {
            let key = Key::of(secret.as_ref());
            this.pods.objects_changed(&key, |references| references.secrets.contains(&key.name));
        }
    });
    let this = node.clone();
    node.informers.pods.on_change(move |old, new| match (old, new) {
        (_, Some(pod)) => this.pods.apply(&this, pod),
        (Some(pod), None) => this.pods.remove(pod),
        (None, None) => {}
    });
}
