//! Daemon sets: one pod on every node; here there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use kube::ResourceExt;
use kube::api::Api;
use meshlab_controller_runtime::{EventRecorder, EventType, Informer, Key, Outcome, controller_reference, is_terminating};

use crate::owner::REVISION_LABEL;
use crate::replica_set::message_of;
use crate::{Context, owner, pods, template};

/// Daemon sets reconciled at a time.
const WORKERS: usize = 2;

/// Keeps every daemon set's pods, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let sets: Informer<DaemonSet> = Informer::start(Api::all(context.client.clone()), context.stop.clone());
    let queue = owner::queue(&sets, &context.informers.pods);
    let (add, all) = (queue.clone(), sets.clone());
    context.informers.nodes.on_change(move |old, new| {
        if old.is_some() != new.is_some() {
            all.all().iter().for_each(|set| add.add(Key::of(set.as_ref())));
        }
    });
    let recorder = context.recorder("daemonset-controller");
    let handle = |key| reconcile(context.clone(), sets.clone(), recorder.clone(), key);
    queue.run("daemonset", WORKERS, handle).await;
}

async fn reconcile(
    context: Arc<Context>,
    sets: Informer<DaemonSet>,
    recorder: EventRecorder,
    key: Key,
) -> Result<Outcome, kube::Error> {
    let Some(set) = sets.at(&key) else { return Ok(Outcome::default()) };
    let Some(spec) = &set.spec else { return Ok(Outcome::default()) };
    let hash = template::hash(&spec.template, 0);
    let nodes = context.informers.nodes.all();
    if !is_terminating(set.as_ref()) {
        let owned = pods::claimed(&context.client, &context.informers.pods, set.as_ref(), Some(&spec.selector)).await?;
        let rolls = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        for node in &nodes {
            let here: Vec<&Arc<Pod>> =
                owned.iter().filter(|pod| target(pod).as_deref() == Some(node.name_any().as_str())).collect();
            let (ended, alive): (Vec<_>, Vec<_>) = here.into_iter().partition(|pod| pods::is_finished(pod));
            let outdated = alive.iter().filter(|pod| rolls && pod.labels().get(REVISION_LABEL) != Some(&hash));
            for pod in ended.iter().chain(outdated).filter(|pod| !is_terminating(pod.as_ref())) {
                pods::delete(&context.client, &context.informers.pods, pod).await?;
                recorder.record(set.as_ref(), EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
            }
            if alive.is_empty() {
                create(&context, &recorder, &set, node, &hash).await?;
            }
        }
    }
    let owned = pods::claimed(&context.client, &context.informers.pods, set.as_ref(), Some(&spec.selector)).await?;
    owner::write_status(&context.client, &sets, set.as_ref(), &set.status, &status(&set, &owned, nodes.len(), &hash)).await?;
    Ok(Outcome::default())
}

/// The node a pod is meant for, bound or not yet.
fn target(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let affinity = || {
        let required =
            spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
        required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
    };
    spec.node_name.clone().or_else(affinity)
}

async fn create(
    context: &Context,
    recorder: &EventRecorder,
    set: &DaemonSet,
    node: &Node,
    hash: &str,
) -> Result<(), kube::Error> {
    let Some(spec) = &set.spec else { return Ok(()) };
    let mut pod = pods::from_template(&spec.template, &set.namespace().unwrap_or_default(), controller_reference(set));
    pod.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), hash.to_owned());
    bind_to(pod.spec.get_or_insert_default(), &node.name_any());
    match pods::create(&context.client, &context.informers.pods, &pod).await {
        Ok(pod) => {
            recorder.record(set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", pod.name_any()));
            Ok(())
        }
        Err(error) => {
            recorder.record(set, EventType::Warning, "FailedCreate", format!("Error creating: {}", message_of(&error)));
            Err(error)
        }
    }
}

/// Lets the scheduler choose no other node, nor mind that this one is cordoned.
fn bind_to(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
    let toleration = |key: &str, effect: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Default::default()
    };
    spec.tolerations.get_or_insert_default().extend([
        toleration("not-ready", "NoExecute"),
        toleration("unreachable", "NoExecute"),
        toleration("disk-pressure", "NoSchedule"),
        toleration("memory-pressure", "NoSchedule"),
        toleration("pid-pressure", "NoSchedule"),
        toleration("unschedulable", "NoSchedule"),
    ]);
}

fn status(set: &DaemonSet, owned: &[Arc<Pod>], nodes: usize, hash: &str) -> DaemonSetStatus {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        let by_node: BTreeMap<_, _> =
            owned.iter().filter(|pod| pods::is_active(pod) && holds(pod)).map(|pod| (target(pod), ())).collect();
        i32::try_from(by_node.len()).unwrap_or(i32::MAX)
    };
    let desired = i32::try_from(nodes).unwrap_or(i32::MAX);
    let available = count(&|pod| pods::until_available(pod, min_ready, Timestamp::now()).is_some_and(|left| left.is_zero()));
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: count(&|_| true),
        number_ready: count(&pods::is_ready),
        number_available: Some(available).filter(|count| *count > 0),
        number_unavailable: Some(desired - available).filter(|count| *count > 0),
        updated_number_scheduled: Some(count(&|pod| pod.labels().get(REVISION_LABEL).map(String::as_str) == Some(hash))),
        number_misscheduled: 0,
        observed_generation: set.metadata.generation,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_counted_for_its_node_before_it_is_bound() {
        let mut pod = Pod { spec: Some(PodSpec::default()), ..Default::default() };
        bind_to(pod.spec.as_mut().unwrap(), "meshlab");
        assert_eq!(target(&pod).as_deref(), Some("meshlab"));
        let status = status(&DaemonSet::default(), &[Arc::new(pod)], 1, "x");
        assert_eq!((status.desired_number_scheduled, status.current_number_scheduled, status.number_ready), (1, 1, 0));
        assert_eq!(status.number_unavailable, Some(1));
    }
}
