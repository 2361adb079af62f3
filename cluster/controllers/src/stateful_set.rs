//! Stateful sets: pods with names and an order.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use meshlab_controller_runtime::{EventRecorder, EventType, Informer, Key, Outcome, controller_reference, is_terminating};

use crate::owner::REVISION_LABEL;
use crate::replica_set::message_of;
use crate::{Context, owner, pods, template};

/// Stateful sets reconciled at a time.
const WORKERS: usize = 2;

/// Keeps every stateful set's pods, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let sets: Informer<StatefulSet> = Informer::start(Api::all(context.client.clone()), context.stop.clone());
    let queue = owner::queue(&sets, &context.informers.pods);
    let recorder = context.recorder("statefulset-controller");
    let handle = |key| reconcile(context.clone(), sets.clone(), recorder.clone(), key);
    queue.run("statefulset", WORKERS, handle).await;
}

async fn reconcile(
    context: Arc<Context>,
    sets: Informer<StatefulSet>,
    recorder: EventRecorder,
    key: Key,
) -> Result<Outcome, kube::Error> {
    let Some(set) = sets.at(&key) else { return Ok(Outcome::default()) };
    let Some(spec) = &set.spec else { return Ok(Outcome::default()) };
    let revision = format!("{}-{}", set.name_any(), template::hash(&spec.template, 0));
    let owned = pods::claimed(&context.client, &context.informers.pods, set.as_ref(), Some(&spec.selector)).await?;
    if spec.volume_claim_templates.as_ref().is_some_and(|templates| !templates.is_empty()) {
        let message =
            "volumeClaimTemplates are not supported: this cluster has no persistent volumes; use emptyDir, or a kind cluster";
        recorder.record(set.as_ref(), EventType::Warning, "FailedCreate", message.to_owned());
    } else if !is_terminating(set.as_ref()) {
        for step in steps(spec, &members(&set, &owned, &revision)) {
            take(&context, &recorder, &set, &owned, &revision, step).await?;
        }
    }
    let owned = pods::claimed(&context.client, &context.informers.pods, set.as_ref(), Some(&spec.selector)).await?;
    owner::write_status(&context.client, &sets, set.as_ref(), &set.status, &status(&set, &owned, &revision)).await?;
    Ok(Outcome::default())
}

/// A pod of the set, as far as its order is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Member {
    ready: bool,
    ended: bool,
    terminating: bool,
    updated: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create(i32),
    Delete(i32),
}

fn members(set: &StatefulSet, owned: &[Arc<Pod>], revision: &str) -> BTreeMap<i32, Member> {
    let member = |pod: &Pod| Member {
        ready: pods::is_ready(pod),
        ended: pods::is_finished(pod),
        terminating: is_terminating(pod),
        updated: pod.labels().get(REVISION_LABEL).map(String::as_str) == Some(revision),
    };
    owned.iter().filter_map(|pod| Some((ordinal(set, pod)?, member(pod)))).collect()
}

fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    pod.name_any().strip_prefix(&format!("{}-", set.name_any()))?.parse().ok()
}

/// The next steps. In order, each pod waits for those before it; in parallel, only updates do.
fn steps(spec: &StatefulSetSpec, members: &BTreeMap<i32, Member>) -> Vec<Step> {
    let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let wanted = first..first + spec.replicas.unwrap_or(1);
    let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
    let mut steps = Vec::new();
    for index in wanted.clone() {
        match members.get(&index) {
            None => steps.push(Step::Create(index)),
            Some(member) if member.ended && !member.terminating => steps.push(Step::Delete(index)),
            Some(member) if member.ready && !member.terminating => continue,
            Some(_) => {}
        }
        if !parallel {
            return steps;
        }
    }
    for (index, member) in members.iter().rev().filter(|(index, _)| !wanted.contains(index)) {
        if !member.terminating {
            steps.push(Step::Delete(*index));
        }
        if !parallel {
            return steps;
        }
    }
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") || !steps.is_empty() {
        return steps;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
    for index in wanted.rev().filter(|index| *index >= partition) {
        match members.get(&index) {
            Some(member) if member.updated && member.ready && !member.terminating => {}
            Some(member) if !member.updated && !member.terminating => return vec![Step::Delete(index)],
            _ => return steps,
        }
    }
    steps
}

async fn take(
    context: &Context,
    recorder: &EventRecorder,
    set: &StatefulSet,
    owned: &[Arc<Pod>],
    revision: &str,
    step: Step,
) -> Result<(), kube::Error> {
    let name = set.name_any();
    match step {
        Step::Create(index) => {
            let pod = describe(set, index, revision);
            match pods::create(&context.client, &context.informers.pods, &pod).await {
                Ok(_) => {
                    let message = format!("create Pod {name}-{index} in StatefulSet {name} successful");
                    recorder.record(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) => {
                    let message = format!("create Pod {name}-{index} in StatefulSet {name} failed error: {}", message_of(&error));
                    recorder.record(set, EventType::Warning, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        Step::Delete(index) => {
            if let Some(pod) = owned.iter().find(|pod| ordinal(set, pod) == Some(index)) {
                pods::delete(&context.client, &context.informers.pods, pod).await?;
                let message = format!("delete Pod {name}-{index} in StatefulSet {name} successful");
                recorder.record(set, EventType::Normal, "SuccessfulDelete", message);
            }
        }
    }
    Ok(())
}

fn describe(set: &StatefulSet, index: i32, revision: &str) -> Pod {
    let spec = set.spec.clone().unwrap_or_default();
    let mut pod = pods::from_template(&spec.template, &set.namespace().unwrap_or_default(), controller_reference(set));
    let name = format!("{}-{index}", set.name_any());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), index.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.filter(|service| !service.is_empty());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name);
    pod
}

fn status(set: &StatefulSet, owned: &[Arc<Pod>], revision: &str) -> StatefulSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        i32::try_from(owned.iter().filter(|pod| pods::is_active(pod) && holds(pod)).count()).unwrap_or(i32::MAX)
    };
    let of = |revision: &str| count(&|pod| pod.labels().get(REVISION_LABEL).map(String::as_str) == Some(revision));
    let updated = of(revision);
    let known = set.status.as_ref().and_then(|status| status.current_revision.clone());
    let current = known.filter(|_| updated < wanted).unwrap_or_else(|| revision.to_owned());
    StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: Some(count(&pods::is_ready)),
        available_replicas: Some(count(&|pod| {
            pods::until_available(pod, min_ready, Timestamp::now()).is_some_and(|left| left.is_zero())
        })),
        updated_replicas: Some(updated),
        current_replicas: Some(of(&current)),
        current_revision: Some(current),
        update_revision: Some(revision.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: Some(0),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const READY: Member = Member { ready: true, ended: false, terminating: false, updated: true };
    const STARTING: Member = Member { ready: false, ..READY };
    const OLD: Member = Member { updated: false, ..READY };

    fn steps_of(spec: serde_json::Value, members: &[Member]) -> Vec<Step> {
        let mut spec = spec;
        (spec["selector"], spec["template"]) = (json!({}), json!({}));
        let members = (0..).zip(members.iter().copied()).collect();
        steps(&serde_json::from_value(spec).unwrap(), &members)
    }

    #[test]
    fn pods_come_one_after_the_other_and_go_from_the_end() {
        let three = json!({"replicas": 3});
        assert_eq!(steps_of(three.clone(), &[]), [Step::Create(0)]);
        assert_eq!(steps_of(three.clone(), &[STARTING]), []);
        assert_eq!(steps_of(three.clone(), &[READY]), [Step::Create(1)]);
        assert_eq!(steps_of(json!({"replicas": 1}), &[READY, READY, READY]), [Step::Delete(2)]);
        assert_eq!(steps_of(three, &[Member { ended: true, ..STARTING }]), [Step::Delete(0)]);
        let parallel = json!({"replicas": 2, "podManagementPolicy": "Parallel"});
        assert_eq!(steps_of(parallel, &[]), [Step::Create(0), Step::Create(1)]);
    }

    #[test]
    fn updates_go_from_the_end_down_to_the_partition() {
        let two = json!({"replicas": 2});
        assert_eq!(steps_of(two.clone(), &[OLD, OLD]), [Step::Delete(1)]);
        assert_eq!(steps_of(two.clone(), &[OLD, STARTING]), []);
        assert_eq!(steps_of(two.clone(), &[OLD, READY]), [Step::Delete(0)]);
        let partition = json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}});
        assert_eq!(steps_of(partition, &[OLD, READY]), []);
        assert_eq!(steps_of(two, &[READY, READY]), []);
    }
}
