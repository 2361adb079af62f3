//! Replica sets: as many pods as asked for.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meshlab_controller_runtime::{
    EventRecorder, EventType, Key, Outcome, WorkQueue, controller_of, controller_reference, is_terminating, matches_selector, now,
};

use crate::{Context, owner, pods};

/// The first batch of new pods; each further one is twice as large, so that a template that is refused costs few calls.
const FIRST_BATCH: usize = 1;
/// At most so many calls at a time.
const LARGEST_BATCH: usize = 64;
/// Replica sets reconciled at a time.
const WORKERS: usize = 8;

/// Keeps every replica set at its size, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    watch(&context, &queue);
    let recorder = context.recorder("replicaset-controller");
    let handle = |key| reconcile(context.clone(), recorder.clone(), key);
    queue.run("replicaset", WORKERS, handle).await;
}

fn watch(context: &Context, queue: &WorkQueue<Key>) {
    let add = queue.clone();
    context.informers.replica_sets.on_change(move |_, new| {
        if let Some(set) = new {
            add.add(Key::of(set.as_ref()));
        }
    });
    let add = queue.clone();
    let sets = context.informers.replica_sets.clone();
    context.informers.pods.on_change(move |old, new| {
        for pod in [old, new].into_iter().flatten() {
            match controller_of(pod.as_ref()) {
                Some(owner) if owner.kind == "ReplicaSet" => {
                    add.add(Key::new(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name));
                }
                Some(_) => {}
                None => {
                    let namespace = sets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
                    let matching = namespace.iter().filter(|set| matches_selector(selector(set), pod.metadata.labels.as_ref()));
                    matching.for_each(|set| add.add(Key::of(set.as_ref())));
                }
            }
        }
    });
}

fn selector(set: &ReplicaSet) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector> {
    set.spec.as_ref().map(|spec| &spec.selector)
}

async fn reconcile(context: Arc<Context>, recorder: EventRecorder, key: Key) -> Result<Outcome, kube::Error> {
    let Some(set) = context.informers.replica_sets.at(&key) else { return Ok(Outcome::default()) };
    let Some(spec) = &set.spec else { return Ok(Outcome::default()) };
    let mut owned = pods::claimed(&context.client, &context.informers.pods, set.as_ref(), Some(&spec.selector)).await?;
    let mut failure = None;
    if !is_terminating(set.as_ref()) {
        failure = scale(&context, &recorder, &set, &owned).await.err();
        owned = pods::claimed(&context.client, &context.informers.pods, set.as_ref(), Some(&spec.selector)).await?;
    }
    let now = Timestamp::now();
    let status = status(&set, &owned, failure.as_ref().map(ToString::to_string), now);
    owner::write_status(&context.client, &context.informers.replica_sets, set.as_ref(), &set.status, &status).await?;
    match failure {
        Some(error) => Err(error),
        None => Ok(Outcome { again: next_available(&set, &owned, now), ..Outcome::default() }.resting(owned.len())),
    }
}

/// Creates or deletes pods until there are as many as asked for.
async fn scale(context: &Context, recorder: &EventRecorder, set: &ReplicaSet, owned: &[Arc<Pod>]) -> Result<(), kube::Error> {
    let wanted = usize::try_from(set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)).unwrap_or(0);
    let mut active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    if active.len() < wanted {
        return create(context, recorder, set, wanted - active.len()).await;
    }
    let surplus = active.len() - wanted;
    active.sort_by_cached_key(|pod| pods::deletion_rank(pod));
    for batch in active[..surplus].chunks(LARGEST_BATCH) {
        let calls = batch.iter().map(|pod| pods::delete(&context.client, &context.informers.pods, pod));
        for (pod, result) in batch.iter().zip(futures::future::join_all(calls).await) {
            result?;
            recorder.record(set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
        }
    }
    Ok(())
}

async fn create(context: &Context, recorder: &EventRecorder, set: &ReplicaSet, mut missing: usize) -> Result<(), kube::Error> {
    let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return Ok(()) };
    let namespace = set.namespace().unwrap_or_default();
    let pod = pods::from_template(template, &namespace, controller_reference(set));
    let mut batch = FIRST_BATCH;
    while missing > 0 {
        let size = batch.min(missing).min(LARGEST_BATCH);
        let calls = (0..size).map(|_| pods::create(&context.client, &context.informers.pods, &pod));
        for result in futures::future::join_all(calls).await {
            match result {
                Ok(created) => {
                    recorder.record(set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", created.name_any()));
                }
                Err(error) => {
                    // A namespace that is going away refuses new objects; that is no news.
                    if !is_namespace_terminating(&error) {
                        let message = format!("Error creating: {}", message_of(&error));
                        recorder.record(set, EventType::Warning, "FailedCreate", message);
                    }
                    return Err(error);
                }
            }
        }
        missing -= size;
        batch *= 2;
    }
    Ok(())
}

fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("is being terminated"))
}

/// The API server's words, without those of the client library around them.
pub(crate) fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn status(set: &ReplicaSet, owned: &[Arc<Pod>], failure: Option<String>, time: Timestamp) -> ReplicaSetStatus {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template_labels = set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let active = || owned.iter().filter(|pod| pods::is_active(pod));
    let labelled = active().filter(|pod| {
        let labels = pod.metadata.labels.as_ref();
        template_labels.into_iter().flatten().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    });
    let available = active().filter(|pod| pods::until_available(pod, min_ready, time).is_some_and(|left| left.is_zero()));
    ReplicaSetStatus {
        replicas: count(active()),
        fully_labeled_replicas: positive(count(labelled)),
        ready_replicas: positive(count(active().filter(|pod| pods::is_ready(pod)))),
        available_replicas: positive(count(available)),
        observed_generation: set.metadata.generation,
        conditions: failure.map(|message| vec![replica_failure(set, message)]),
        terminating_replicas: None,
    }
}

fn replica_failure(set: &ReplicaSet, message: String) -> ReplicaSetCondition {
    let known = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let since = known.filter(|known| known.type_ == "ReplicaFailure").find_map(|known| known.last_transition_time.clone());
    ReplicaSetCondition {
        type_: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        reason: Some("FailedCreate".to_owned()),
        message: Some(message),
        last_transition_time: Some(since.unwrap_or_else(now)),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

fn positive(number: i32) -> Option<i32> {
    (number > 0).then_some(number)
}

/// When the next ready pod becomes available.
fn next_available(set: &ReplicaSet, owned: &[Arc<Pod>], time: Timestamp) -> Option<Duration> {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    owned.iter().filter_map(|pod| pods::until_available(pod, min_ready, time)).filter(|left| !left.is_zero()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Arc<Pod> {
        let json = json!({"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": {"containers": []}, "status": status});
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn set() -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 3},
            "spec": {"minReadySeconds": 10, "selector": {}, "template": {"metadata": {"labels": {"app": "web"}}}},
        }))
        .unwrap()
    }

    #[test]
    fn the_status_counts_active_ready_and_available_pods() {
        let ready = |since: &str| {
            pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}))
        };
        let owned = [
            ready("2026-01-01T00:00:00Z"),
            ready("2026-01-01T00:00:55Z"),
            pod(json!({"phase": "Pending"})),
            pod(json!({"phase": "Failed"})),
        ];
        let time: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let status = status(&set(), &owned, None, time);
        assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (3, Some(2), Some(1)));
        assert_eq!((status.fully_labeled_replicas, status.observed_generation), (Some(3), Some(3)));
        assert_eq!(next_available(&set(), &owned, time), Some(Duration::from_secs(5)));
    }

    #[test]
    fn unassigned_and_unready_pods_go_first() {
        let mut running = (*pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))).clone();
        running.spec.as_mut().unwrap().node_name = Some("node".into());
        let pending = (*pod(json!({"phase": "Pending"}))).clone();
        assert!(pods::deletion_rank(&pending) < pods::deletion_rank(&running));
    }
}
