//! A deployment's status and conditions, computed from its replica sets. No input or output here.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::Bounds;

/// What a reconciliation did, as far as the `Progressing` condition tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing that matters.
    None,
    /// A replica set was created for a new template.
    Created(String),
    /// A replica set for the template was there already.
    Found(String),
    /// The deployment is paused.
    Paused,
}

/// The status that `deployment` should have now.
pub(super) fn status(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    progress: &Progress,
    collisions: Option<i32>,
    now: &Time,
) -> DeploymentStatus {
    let sum = |of: fn(&ReplicaSet) -> i32| all.iter().map(|set| of(set)).sum::<i32>();
    let bounds = deployment.spec.as_ref().map(Bounds::of).unwrap_or(Bounds { replicas: 1, max_surge: 0, max_unavailable: 0 });
    let replicas = sum(|set| set.status.as_ref().map_or(0, |status| status.replicas));
    let available = sum(available);
    let total = sum(|set| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0));
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(replicas),
        updated_replicas: positive(new.and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas)),
        ready_replicas: positive(sum(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0))),
        available_replicas: positive(available),
        unavailable_replicas: positive(total - available),
        collision_count: collisions,
        conditions: deployment.status.as_ref().and_then(|status| status.conditions.clone()),
        terminating_replicas: None,
    };
    let (holds, reason, message) = if available >= bounds.least_available() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, condition("Available", holds, reason, message, now));
    update_progressing(deployment, &mut status, new, progress, now);
    copy_failure(&mut status, all, now);
    status
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn positive(number: i32) -> Option<i32> {
    (number > 0).then_some(number)
}

/// Whether every pod is of the newest template, available, and there are no others.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    all.iter().all(|count| count.unwrap_or(0) == wanted) && status.observed_generation >= deployment.metadata.generation
}

fn update_progressing(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    new: Option<&ReplicaSet>,
    progress: &Progress,
    now: &Time,
) {
    let Some(deadline) = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds) else {
        status.conditions.iter_mut().for_each(|conditions| conditions.retain(|known| known.type_ != "Progressing"));
        return;
    };
    let what = new.map_or_else(
        || format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
        |set| format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or_default()),
    );
    let known = progressing(status).cloned();
    let known_reason = known.as_ref().and_then(|known| known.reason.as_deref()).unwrap_or_default();
    let was_complete = known_reason == "NewReplicaSetAvailable";
    let fresh = |holds: &str, reason: &str, message: &str| Some(condition("Progressing", holds, reason, message, now));
    let next = match progress {
        Progress::Created(name) => fresh("True", "NewReplicaSetCreated", &format!("Created new replica set {name:?}")),
        Progress::Found(name) => fresh("True", "FoundNewReplicaSet", &format!("Found new replica set {name:?}")),
        Progress::Paused if known_reason == "DeploymentPaused" => None,
        Progress::Paused => fresh("Unknown", "DeploymentPaused", "Deployment is paused"),
        Progress::None if known_reason == "DeploymentPaused" => fresh("Unknown", "DeploymentResumed", "Deployment is resumed"),
        Progress::None if was_complete && status.replicas == status.updated_replicas => None,
        Progress::None if is_complete(deployment, status) => {
            fresh("True", "NewReplicaSetAvailable", &format!("{what} has successfully progressed."))
        }
        Progress::None if moved(deployment, status) => fresh("True", "ReplicaSetUpdated", &format!("{what} is progressing.")),
        Progress::None if until_deadline(known.as_ref(), deadline, now).is_some_and(|left| left.is_zero()) => {
            fresh("False", "ProgressDeadlineExceeded", &format!("{what} has timed out progressing."))
        }
        Progress::None => None,
    };
    if let Some(next) = next {
        // The time of an unchanged status moves with every step: the deadline counts from the latest one.
        set_condition(status, next);
    }
}

/// How long the deployment may still stand still before its deadline; `None` if it has no deadline to miss.
pub(super) fn until_deadline(progressing: Option<&DeploymentCondition>, seconds: i32, now: &Time) -> Option<Duration> {
    let known = progressing?;
    match known.reason.as_deref().unwrap_or_default() {
        "NewReplicaSetAvailable" | "DeploymentPaused" => return None,
        "ProgressDeadlineExceeded" => return Some(Duration::ZERO),
        _ => {}
    }
    let since = known.last_update_time.as_ref()?.0.as_second();
    let left = since + i64::from(seconds) - now.0.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// The `Progressing` condition.
pub(super) fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing")
}

/// Whether the rollout came closer to its end since the last status.
fn moved(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let outdated = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    status.updated_replicas > old.updated_replicas
        || outdated(status) < outdated(&old)
        || status.ready_replicas > old.ready_replicas
        || status.available_replicas > old.available_replicas
}

fn copy_failure(status: &mut DeploymentStatus, all: &[Arc<ReplicaSet>], now: &Time) {
    let failures = all.iter().flat_map(|set| set.status.iter()).flat_map(|status| status.conditions.iter().flatten());
    let failure = failures.into_iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
    match failure {
        Some(failure) => {
            let reason = failure.reason.as_deref().unwrap_or_default();
            let message = failure.message.as_deref().unwrap_or_default();
            set_condition(status, condition("ReplicaFailure", "True", reason, message, now));
        }
        None => status.conditions.iter_mut().for_each(|conditions| conditions.retain(|known| known.type_ != "ReplicaFailure")),
    }
}

fn condition(condition_type: &str, status: &str, reason: &str, message: &str, now: &Time) -> DeploymentCondition {
    DeploymentCondition {
        type_: condition_type.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

/// Sets a condition. One that says the same as before keeps its times, one with the same status its transition time; an
/// `Progressing` that is said again moves its update time.
fn set_condition(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        Some(known) => {
            let same = known.status == condition.status && known.reason == condition.reason;
            if same && condition.type_ != "Progressing" {
                return;
            }
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::slice::from_ref;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn deployment(status: serde_json::Value) -> Deployment {
        let spec = json!({"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}});
        let metadata = json!({"name": "web", "generation": 2});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn set(ready: i32) -> Arc<ReplicaSet> {
        let status = json!({"replicas": 2, "readyReplicas": ready, "availableReplicas": ready});
        let spec = json!({"replicas": 2, "selector": {}});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "web-1"}, "spec": spec, "status": status})).unwrap())
    }

    fn says(status: &DeploymentStatus) -> Vec<String> {
        let conditions = status.conditions.iter().flatten();
        conditions.map(|c| format!("{}={} {}", c.type_, c.status, c.reason.as_deref().unwrap_or_default())).collect()
    }

    #[test]
    fn from_creation_to_completion() {
        let new = set(0);
        let first = status(&deployment(json!({})), Some(&new), from_ref(&new), &Progress::Created("web-1".into()), None, &at(0));
        assert_eq!(says(&first), ["Available=False MinimumReplicasUnavailable", "Progressing=True NewReplicaSetCreated"]);
        let new = set(2);
        let before = deployment(serde_json::to_value(&first).unwrap());
        let done = status(&before, Some(&new), from_ref(&new), &Progress::None, None, &at(5));
        assert_eq!(says(&done), ["Available=True MinimumReplicasAvailable", "Progressing=True NewReplicaSetAvailable"]);
        let progressing = progressing(&done).unwrap();
        assert_eq!(progressing.last_transition_time, Some(at(0)), "it was true before");
        assert_eq!(progressing.last_update_time, Some(at(5)));
        let settled = deployment(serde_json::to_value(&done).unwrap());
        assert_eq!(status(&settled, Some(&new), from_ref(&new), &Progress::None, None, &at(9)), done, "nothing is written twice");
    }

    #[test]
    fn a_rollout_that_stands_still_misses_its_deadline() {
        let new = set(0);
        let first = status(&deployment(json!({})), Some(&new), from_ref(&new), &Progress::Created("web-1".into()), None, &at(0));
        let before = deployment(serde_json::to_value(&first).unwrap());
        let late = status(&before, Some(&new), from_ref(&new), &Progress::None, None, &at(61));
        assert_eq!(says(&late)[1], "Progressing=False ProgressDeadlineExceeded");
    }
}
