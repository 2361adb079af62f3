//! What several controllers need to know about pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use meshlab_controller_runtime::{Informer, controller_of, controller_reference, is_not_found, is_terminating, matches_selector};
use serde_json::json;

/// The phase, `Pending` where none is written yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has ended and will not run again.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as one of its controller's replicas.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// A condition by type.
pub(crate) fn condition<'a>(pod: &'a Pod, condition_type: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == condition_type)
}

/// Whether the pod's `Ready` condition holds.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// How long a pod must still stay ready until it counts as available; zero if it does, `None` if it is not ready.
pub(crate) fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let left = since.as_second() + i64::from(min_ready_seconds) - now.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// The pods that `owner` controls, after adopting orphans that its selector matches and releasing pods that it no longer does
/// (a learner takes a pod out of its set by changing its label).
///
/// # Errors
/// An adoption or a release failed.
pub(crate) async fn claimed<K>(
    client: &Client,
    pods: &Informer<Pod>,
    owner: &K,
    selector: Option<&LabelSelector>,
) -> Result<Vec<Arc<Pod>>, kube::Error>
where
    K: kube::Resource<DynamicType = ()>,
{
    let namespace = owner.namespace().unwrap_or_default();
    let uid = owner.uid().unwrap_or_default();
    let mut claimed = Vec::new();
    for pod in pods.in_namespace(&namespace) {
        match controller_of(pod.as_ref()) {
            Some(controller) if controller.uid == uid => {
                let strayed = selector.is_some() && !matches_selector(selector, pod.metadata.labels.as_ref());
                if strayed && !is_terminating(pod.as_ref()) && !is_terminating(owner) {
                    release(client, pods, pod.as_ref(), &uid).await?;
                } else {
                    claimed.push(pod);
                }
            }
            Some(_) => {}
            None => {
                let orphan = matches_selector(selector, pod.metadata.labels.as_ref()) && is_active(&pod);
                if orphan && !is_terminating(owner) {
                    let reference = controller_reference(owner);
                    adopt::<Pod>(client, pods, pod.as_ref(), reference).await?;
                    claimed.extend(pods.get(&namespace, &pod.name_any()));
                }
            }
        }
    }
    Ok(claimed)
}

/// Takes the owner `uid` out of a pod's owner references.
async fn release(client: &Client, pods: &Informer<Pod>, pod: &Pod, uid: &str) -> Result<(), kube::Error> {
    let left: Vec<&OwnerReference> = pod.owner_references().iter().filter(|owner| owner.uid != uid).collect();
    let left = (!left.is_empty()).then_some(left);
    let patch = json!({"metadata": {"uid": pod.uid(), "ownerReferences": left}});
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    match api.patch(&pod.name_any(), &Default::default(), &kube::api::Patch::Merge(patch)).await {
        Ok(released) => pods.observe(released),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Writes `owner` into the owner references of `object`.
pub(crate) async fn adopt<K>(
    client: &Client,
    informer: &Informer<K>,
    object: &K,
    owner: OwnerReference,
) -> Result<(), kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let mut owners = object.owner_references().to_vec();
    owners.push(owner);
    let patch = json!({"metadata": {"uid": object.uid(), "ownerReferences": owners}});
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    match api.patch(&object.name_any(), &Default::default(), &kube::api::Patch::Merge(patch)).await {
        Ok(adopted) => informer.observe(adopted),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// A pod as `template` describes it, named after and controlled by its owner.
pub(crate) fn from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(namespace.to_owned()),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates a pod; the cache shows it at once.
pub(crate) async fn create(client: &Client, pods: &Informer<Pod>, pod: &Pod) -> Result<Pod, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let created = api.create(&PostParams::default(), pod).await?;
    pods.observe(created.clone());
    Ok(created)
}

/// Asks for a pod's graceful deletion; the cache shows it at once. One that is gone already is no error.
pub(crate) async fn delete(client: &Client, pods: &Informer<Pod>, pod: &Pod) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let same = Preconditions { uid: pod.uid(), resource_version: None };
    match api.delete(&pod.name_any(), &DeleteParams::background().preconditions(same)).await {
        Ok(answer) => {
            if let Some(pod) = answer.left().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                pods.observe(pod);
            }
            Ok(())
        }
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Which of two pods a controller would rather delete: unassigned before assigned, pending before running, not ready before
/// ready, cheaper by annotation, ready for a shorter time, more often restarted, younger.
pub(crate) fn deletion_rank(pod: &Pod) -> impl Ord + use<> {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let progress = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost: i32 = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations: &BTreeMap<String, String>| {
            annotations.get("controller.kubernetes.io/pod-deletion-cost")?.parse().ok()
        })
        .unwrap_or(0);
    let ready_since = condition(pod, "Ready")
        .filter(|ready| ready.status == "True")
        .and_then(|ready| ready.last_transition_time.as_ref())
        .map(|time| std::cmp::Reverse(time.0.as_second()));
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let restarts = statuses.map(|status| status.restart_count).max().unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| std::cmp::Reverse(time.0.as_second()));
    (assigned, progress, is_ready(pod), cost, ready_since, std::cmp::Reverse(restarts), created)
}
