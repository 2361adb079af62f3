//! Scheduling: every pod goes to the one node, unless something it asks for is not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod, PodCondition, PodSpec, Taint, Toleration};
use kube::ResourceExt;
use kube::api::{Api, Patch, PostParams};
use meshlab_controller_runtime::{EventRecorder, EventType, Key, Outcome, WorkQueue, is_not_found, is_terminating, now};
use serde_json::{Value, json};

use crate::{Context, pods};

const NAME: &str = "default-scheduler";
/// How long to wait for the first node before a new pod is told that there is none.
const YOUNG: Duration = Duration::from_millis(100);
/// Pods bound at a time.
const WORKERS: usize = 64;

/// Binds every pod that has no node, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let add = queue.clone();
    context.informers.pods.on_change(move |_, new| {
        if let Some(pod) = new.filter(|pod| waits(pod)) {
            add.add(Key::of(pod.as_ref()));
        }
    });
    let add = queue.clone();
    let pods = context.informers.pods.clone();
    context.informers.nodes.on_change(move |old, new| {
        let offer = |node: Option<&Arc<Node>>| node.map(|node| (node.metadata.labels.clone(), node.spec.clone()));
        if offer(old) != offer(new) {
            pods.all().iter().filter(|pod| waits(pod)).for_each(|pod| add.add(Key::of(pod.as_ref())));
        }
    });
    let recorder = context.recorder(NAME);
    let handle = |key| schedule(context.clone(), recorder.clone(), key);
    queue.run("scheduler", WORKERS, handle).await;
}

fn is_young(pod: &Pod) -> bool {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    now().0.as_second() - created <= 1
}

fn waits(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == NAME);
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    spec.node_name.is_none() && ours && !gated && !is_terminating(pod) && !pods::is_finished(pod)
}

async fn schedule(context: Arc<Context>, recorder: EventRecorder, key: Key) -> Result<Outcome, kube::Error> {
    let Some(pod) = context.informers.pods.at(&key).filter(|pod| waits(pod)) else { return Ok(Outcome::default()) };
    let Some(spec) = &pod.spec else { return Ok(Outcome::default()) };
    let nodes = context.informers.nodes.all();
    if nodes.is_empty() && is_young(&pod) {
        // The cluster has just been started: its node is on its way.
        return Ok(Outcome::again(YOUNG));
    }
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    for node in &nodes {
        match refusal(spec, node) {
            None => {
                bind(&context, &recorder, &pod, &node.name_any()).await?;
                return Ok(Outcome::default());
            }
            Some(refusal) => *refusals.entry(refusal).or_default() += 1,
        }
    }
    let reasons: Vec<String> = refusals.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let message = match reasons.is_empty() {
        true => "no nodes available to schedule pods".to_owned(),
        false => format!("0/{} nodes are available: {}.", nodes.len(), reasons.join(", ")),
    };
    report(&context, &recorder, &pod, message).await?;
    Ok(Outcome::default())
}

async fn bind(context: &Context, recorder: &EventRecorder, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.name_any(), "namespace": namespace, "uid": pod.uid()},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    match api.create_subresource::<_, Value>("binding", &pod.name_any(), &PostParams::default(), &binding).await {
        Ok(_) => {
            let message = format!("Successfully assigned {namespace}/{} to {node}", pod.name_any());
            recorder.record(pod, EventType::Normal, "Scheduled", message);
            Ok(())
        }
        Err(error) if is_not_found(&error) => Ok(()),
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.reason == "Conflict" => Ok(()),
        Err(error) => Err(error),
    }
}

/// Why a pod cannot go to a node, in the scheduler's words.
fn refusal(spec: &PodSpec, node: &Node) -> Option<String> {
    let node_spec = node.spec.as_ref();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let unschedulable = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        value: None,
        time_added: None,
    };
    if node_spec.and_then(|spec| spec.unschedulable) == Some(true) && !tolerated(&unschedulable, tolerations) {
        return Some("node(s) were unschedulable".to_owned());
    }
    let taints = node_spec.into_iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut hard = taints.filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    if let Some(taint) = hard.find(|taint| !tolerated(taint, tolerations)) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    let labels = node.labels();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let affine = required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)));
    (!selected || !affine).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect);
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let value = exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        effect && value && (key == taint.key || key.is_empty() && exists)
    })
}

fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let name = node.metadata.name.clone();
    let by_label = term.match_expressions.iter().flatten().map(|term| (term, node.labels().get(&term.key).cloned()));
    let by_field = term.match_fields.iter().flatten().map(|term| (term, name.clone().filter(|_| term.key == "metadata.name")));
    by_label.chain(by_field).all(|(term, value)| {
        let values = term.values.as_deref().unwrap_or_default();
        let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
        match (term.operator.as_str(), &value) {
            ("In", Some(value)) => values.contains(value),
            ("NotIn", Some(value)) => !values.contains(value),
            ("NotIn" | "DoesNotExist", None) => true,
            ("Exists", value) => value.is_some(),
            ("Gt", value) => number(value.as_ref()).zip(number(values.first())).is_some_and(|(have, than)| have > than),
            ("Lt", value) => number(value.as_ref()).zip(number(values.first())).is_some_and(|(have, than)| have < than),
            _ => false,
        }
    })
}

async fn report(context: &Context, recorder: &EventRecorder, pod: &Pod, message: String) -> Result<(), kube::Error> {
    let known = pods::condition(pod, "PodScheduled");
    if known.is_some_and(|known| known.message.as_ref() == Some(&message)) {
        return Ok(());
    }
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten().cloned()).collect::<Vec<_>>();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.clone()),
        last_transition_time: Some(known.and_then(|known| known.last_transition_time.clone()).unwrap_or_else(now)),
        ..Default::default()
    });
    recorder.record(pod, EventType::Warning, "FailedScheduling", message);
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pod.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"status": {"phase": "Pending", "conditions": conditions}}));
    match api.patch_status(&pod.name_any(), &Default::default(), &patch).await {
        Ok(updated) => context.informers.pods.observe(updated),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(spec: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "meshlab", "labels": {"disk": "ssd"}}, "spec": spec})).unwrap()
    }

    fn pod(spec: Value) -> PodSpec {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn selectors_taints_and_cordons_are_respected() {
        let plain = node(json!({}));
        assert_eq!(refusal(&pod(json!({})), &plain), None);
        assert_eq!(refusal(&pod(json!({"nodeSelector": {"disk": "ssd"}})), &plain), None);
        let elsewhere = refusal(&pod(json!({"nodeSelector": {"disk": "hdd"}})), &plain);
        assert_eq!(elsewhere.as_deref(), Some("node(s) didn't match Pod's node affinity/selector"));
        let cordoned = refusal(&pod(json!({})), &node(json!({"unschedulable": true})));
        assert_eq!(cordoned.as_deref(), Some("node(s) were unschedulable"));
        let tainted = node(json!({"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]}));
        assert_eq!(refusal(&pod(json!({})), &tainted).as_deref(), Some("node(s) had untolerated taint {a: b}"));
        assert_eq!(refusal(&pod(json!({"tolerations": [{"operator": "Exists"}]})), &tainted), None);
        let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}]}}}});
        assert!(refusal(&pod(affinity), &plain).is_some());
    }
}
