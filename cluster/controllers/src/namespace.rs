//! Namespace deletion: first everything in it, then the namespace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PostParams};
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use meshlab_controller_runtime::{Outcome, WorkQueue, is_not_found, is_terminating, now};
use serde_json::json;

use crate::Context;

/// The finalizer, in the namespace's specification, that this controller removes.
const FINALIZER: &str = "kubernetes";
/// How soon to look again for what is still ending (pods in their grace period, objects with finalizers).
const AGAIN: Duration = Duration::from_millis(100);
/// Namespaces emptied at a time.
const WORKERS: usize = 4;

/// Empties and removes every namespace whose deletion was asked for, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let add = queue.clone();
    context.informers.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new.filter(|namespace| is_terminating(namespace.as_ref())) {
            add.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    let handle = |name| reconcile(context.clone(), name);
    queue.run("namespace", WORKERS, handle).await;
}

async fn reconcile(context: Arc<Context>, name: String) -> Result<Outcome, kube::Error> {
    let Some(namespace) = context.informers.namespaces.get("", &name) else { return Ok(Outcome::default()) };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !is_terminating(namespace.as_ref()) || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Outcome::default());
    }
    let left = delete_content(&context, &name).await?;
    if left.is_empty() {
        finalize(&context, &namespace, finalizers).await?;
        return Ok(Outcome::default());
    }
    write_conditions(&context, &namespace, &left).await?;
    Ok(Outcome::again(AGAIN))
}

/// Asks for the deletion of everything in a namespace, and counts what is still there by resource.
async fn delete_content(context: &Context, namespace: &str) -> Result<BTreeMap<String, Content>, kube::Error> {
    let mut left = BTreeMap::new();
    for resource in namespaced_resources(context).await? {
        let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
        let there = match api.list_metadata(&ListParams::default()).await {
            Ok(there) => there.items,
            Err(error) if is_not_found(&error) => continue,
            Err(error) => return Err(error),
        };
        if there.is_empty() {
            continue;
        }
        if there.iter().any(|object| !is_terminating(object)) {
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        }
        let there = api.list_metadata(&ListParams::default()).await?.items;
        if !there.is_empty() {
            let finalizers = there.iter().flat_map(|object| object.finalizers().iter().cloned()).collect();
            left.insert(dotted(&resource), Content { count: there.len(), finalizers });
        }
    }
    Ok(left)
}

/// What is still in a namespace, of one resource.
struct Content {
    count: usize,
    finalizers: Vec<String>,
}

fn dotted(resource: &ApiResource) -> String {
    if resource.group.is_empty() { format!("{}.", resource.plural) } else { format!("{}.{}", resource.plural, resource.group) }
}

async fn namespaced_resources(context: &Context) -> Result<Vec<ApiResource>, kube::Error> {
    let discovery = Discovery::new(context.client.clone()).run_aggregated().await?;
    let resources = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    Ok(resources
        .filter(|(_, capabilities)| {
            capabilities.scope == Scope::Namespaced
                && capabilities.supports_operation(verbs::LIST)
                && capabilities.supports_operation(verbs::DELETE_COLLECTION)
        })
        .map(|(resource, _)| resource)
        .collect())
}

async fn finalize(context: &Context, namespace: &Namespace, mut finalizers: Vec<String>) -> Result<(), kube::Error> {
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    let mut next = namespace.clone();
    next.metadata.resource_version = None;
    next.spec.get_or_insert_default().finalizers = Some(finalizers);
    let api: Api<Namespace> = Api::all(context.client.clone());
    match api.replace_subresource("finalize", &namespace.name_any(), &PostParams::default(), &next).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Says what the deletion waits for, with Kubernetes' own conditions.
async fn write_conditions(context: &Context, namespace: &Namespace, left: &BTreeMap<String, Content>) -> Result<(), kube::Error> {
    let resources: Vec<String> =
        left.iter().map(|(resource, content)| format!("{resource} has {} resource instances", content.count)).collect();
    let mut by_finalizer: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in left.values().flat_map(|content| &content.finalizers) {
        *by_finalizer.entry(finalizer).or_default() += 1;
    }
    let finalizers: Vec<String> =
        by_finalizer.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    let remaining = format!("Some resources are remaining: {}", resources.join(", "));
    let waiting = format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", "));
    let condition = |condition_type: &str, reason: &str, message: &str| json!({"type": condition_type, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()});
    let mut conditions = vec![condition("NamespaceContentRemaining", "SomeResourcesRemain", &remaining)];
    if !finalizers.is_empty() {
        conditions.push(condition("NamespaceFinalizersRemaining", "SomeFinalizersRemain", &waiting));
    }
    let known = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let known: Vec<Option<&str>> = known.map(|condition| condition.message.as_deref()).collect();
    if conditions.iter().all(|condition| known.contains(&condition["message"].as_str())) {
        return Ok(());
    }
    let api: Api<Namespace> = Api::all(context.client.clone());
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    match api.patch_status(&namespace.name_any(), &Default::default(), &patch).await {
        Ok(updated) => context.informers.namespaces.observe(updated),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
