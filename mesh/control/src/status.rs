//! Telling the author of a resource, in its status, when it is not in effect as it stands.

use std::sync::Arc;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use meshlab_istio_api::Kind;
use meshlab_proxy_config::Log;
use serde_json::{Value, json};

use crate::inventory::{Effect, Fault, Followed, Inventory};
use crate::webhook::inert_message;

/// Istio's condition for "the control plane has taken it up".
const CONDITION: &str = "Reconciled";

/// Keeps the statuses of all resources true.
pub(crate) async fn keep(client: &kube::Client, inventory: &Inventory, log: &Log) {
    let (mut changes, mut problems) = (inventory.changes(), inventory.problem_changes());
    loop {
        report(client, inventory, log).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = problems.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes the condition to every resource that lacks it.
async fn report(client: &kube::Client, inventory: &Inventory, log: &Log) {
    for (followed, object, fault) in inventory.istio_objects() {
        let Some(status) = wanted(&followed, &object, fault.as_ref()) else { continue };
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &followed.resource());
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(&name, &PatchParams::default(), &patch).await {
            Ok(_) => {}
            // It is gone; nothing is left to say.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                log.warn("status", format_args!("cannot write the status of {} {namespace}/{name}: {error}", followed.kind))
            }
        }
    }
}

/// The status that the object should have, if it differs from the one it has.
fn wanted(followed: &Followed, object: &Arc<Value>, fault: Option<&Fault>) -> Option<Value> {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let had = conditions.iter().find(|condition| condition["type"] == CONDITION);
    let inert = Kind::ALL.into_iter().find(|kind| kind.name() == followed.kind).and_then(inert_message);
    let (status, reason, message) = match (fault.filter(|fault| inert.is_none() || fault.effect != Effect::Partial), inert) {
        (Some(fault), _) => ("False", "Invalid", format!("{}: {}", fault.effect, fault.messages.join("; "))),
        (None, Some(message)) => ("False", "NoEffect", message.to_owned()),
        // A resource in effect is only told so if it was told otherwise before: most need no status at all.
        (None, None) if had.is_none_or(|had| had["status"] == "True") => return None,
        (None, None) => ("True", "Accepted", String::new()),
    };
    if had.is_some_and(|had| had["status"] == status && had["message"] == message) {
        return None;
    }
    let now = format!("{:.0}", jiff::Timestamp::now());
    let condition =
        json!({ "type": CONDITION, "status": status, "reason": reason, "message": message, "lastTransitionTime": now });
    let others = conditions.iter().filter(|condition| condition["type"] != CONDITION).cloned();
    let conditions: Vec<_> = others.chain([condition]).collect();
    Some(json!({ "conditions": conditions, "observedGeneration": object["metadata"]["generation"] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(kind: &str) -> Followed {
        Followed::all().into_iter().find(|followed| followed.kind == kind).unwrap()
    }

    #[test]
    fn a_good_resource_needs_no_status() {
        assert_eq!(wanted(&followed("VirtualService"), &Arc::new(json!({})), None), None);
    }

    #[test]
    fn a_bad_resource_says_why_and_a_mended_one_that_it_is_good() {
        let fault = Fault { messages: vec!["spec.hosts: required".into()], effect: Effect::LastGood };
        let bad =
            wanted(&followed("VirtualService"), &Arc::new(json!({ "metadata": { "generation": 2 } })), Some(&fault)).unwrap();
        assert_eq!(bad["conditions"][0]["message"], "the last good state stays in effect: spec.hosts: required");
        assert_eq!(bad["observedGeneration"], 2);
        let object = Arc::new(json!({ "status": bad }));
        assert_eq!(wanted(&followed("VirtualService"), &object, Some(&fault)), None, "said already");
        let good = wanted(&followed("VirtualService"), &object, None).unwrap();
        assert_eq!(good["conditions"][0]["status"], "True");
    }

    #[test]
    fn resources_without_effect_say_so() {
        let status = wanted(&followed("EnvoyFilter"), &Arc::new(json!({})), None).unwrap();
        assert_eq!(status["conditions"][0]["reason"], "NoEffect");
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let object = Arc::new(json!({ "status": { "conditions": [{ "type": "PassedAnalysis", "status": "True" }] } }));
        let status = wanted(&followed("WasmPlugin"), &object, None).unwrap();
        assert_eq!(status["conditions"][0]["type"], "PassedAnalysis");
    }
}
