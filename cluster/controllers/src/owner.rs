//! What the controllers of objects that own others have in common: when to look at one, and how to write its status.

use std::fmt::Debug;

use kube::api::{Api, Patch};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use meshlab_controller_runtime::{Informer, Key, WorkQueue, controller_of, is_not_found, merge_patch};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// The label that tells the pods of two templates of a set apart.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";

/// A namespaced kind of object.
pub(crate) trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

/// A queue that gets every owner that has changed, and every owner one of whose dependents has.
pub(crate) fn queue<K: Namespaced, D: Namespaced>(owners: &Informer<K>, dependents: &Informer<D>) -> WorkQueue<Key> {
    let queue = WorkQueue::new();
    let add = queue.clone();
    owners.on_change(move |_, new| new.into_iter().for_each(|owner| add.add(Key::of(owner.as_ref()))));
    let add = queue.clone();
    dependents.on_change(move |old, new| {
        let Some(dependent) = new.or(old) else { return };
        if let Some(owner) = controller_of(dependent.as_ref()).filter(|owner| owner.kind == K::kind(&())) {
            add.add(Key::new(dependent.meta().namespace.as_deref().unwrap_or_default(), &owner.name));
        }
    });
    queue
}

/// Writes what has changed of an object's status; the cache shows it at once. An object that is gone is no error.
pub(crate) async fn write_status<K: Namespaced, S: Serialize + Clone + Default>(
    client: &Client,
    informer: &Informer<K>,
    object: &K,
    old: &Option<S>,
    new: &S,
) -> Result<(), kube::Error> {
    let Some(patch) = merge_patch(&old.clone().unwrap_or_default(), new) else { return Ok(()) };
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    match api.patch_status(&object.name_any(), &Default::default(), &Patch::Merge(json!({"status": patch}))).await {
        Ok(updated) => informer.observe(updated),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
