//! `kubectl rollout restart` and `rollout status`.

use std::time::Duration;

use serde_json::{Value, json};

use super::change::MERGE;
use super::cli::Select;
use super::resources::Resource;
use super::rest::{self, Failure, JSON};
use super::{Session, Step};
use crate::output::{complain, print};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Which kinds have pods that can be replaced.
const KINDS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

async fn objects(session: &Session, what: &[String], select: &Select) -> Result<Vec<(Resource, Value)>, Failure> {
    let mut all = Vec::new();
    for target in session.targets(what, select)? {
        let resource = target.resource();
        if !KINDS.contains(&resource.kind.as_str()) {
            return Err(Failure::new(format!("no rollout for {}: only for {}", resource.plural, KINDS.join(", "))));
        }
        all.extend(session.objects(&target, select).await?);
    }
    Ok(all)
}

pub(super) async fn restart(session: &Session, what: &[String], select: &Select) -> Result<Step, Failure> {
    let objects = objects(session, what, select).await?;
    if objects.is_empty() {
        complain(&format!("No resources found in {} namespace.\n", session.namespace));
    }
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for (resource, object) in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = rest::path(&resource, object["metadata"]["namespace"].as_str(), Some(name));
        if object["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] == now.as_str() {
            return Err(Failure::new(
                "if restart has already been triggered within the past second, please wait before attempting to trigger another",
            ));
        }
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        session.rest.patch(&rest::with_query(&path, &[("fieldManager", "kubectl-rollout")]), MERGE, &patch).await?;
        print(&format!("{} restarted\n", resource.of(name)));
    }
    Ok(Step::Done)
}

pub(super) async fn status(
    session: &Session,
    what: &[String],
    select: &Select,
    timeout: Duration,
    watch: bool,
) -> Result<Step, Failure> {
    let deadline = (!timeout.is_zero()).then(|| tokio::time::Instant::now() + timeout);
    for (resource, object) in objects(session, what, select).await? {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = rest::path(&resource, object["metadata"]["namespace"].as_str(), Some(name));
        let mut said = String::new();
        loop {
            let object = session.rest.get(&path, JSON).await?;
            let (done, message) = progress(&resource, name, &object)?;
            if message != said {
                print(&message);
                said = message;
            }
            if done || !watch {
                break;
            }
            if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
                return Err(Failure::new("timed out waiting for the condition"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(Step::Done)
}

/// Whether the pods are as the object says, and what is missing.
fn progress(resource: &Resource, name: &str, object: &Value) -> Result<(bool, String), Failure> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    if number(&object["metadata"]["generation"]) > number(&status["observedGeneration"]) {
        return Ok((false, format!("Waiting for {} spec update to be observed...\n", resource.singular)));
    }
    let exceeded = status["conditions"]
        .as_array()
        .is_some_and(|conditions| conditions.iter().any(|condition| condition["reason"] == "ProgressDeadlineExceeded"));
    if exceeded {
        return Err(Failure::new(format!("{} \"{name}\" exceeded its progress deadline", resource.singular)));
    }
    let of = |field: &str| number(&status[field]);
    let (wanted, updated, all, available) = match resource.kind.as_str() {
        "DaemonSet" => {
            let wanted = of("desiredNumberScheduled");
            (wanted, of("updatedNumberScheduled"), wanted, of("numberAvailable"))
        }
        _ => (spec["replicas"].as_i64().unwrap_or(1), of("updatedReplicas"), of("replicas"), of("availableReplicas")),
    };
    let waiting = |what: String| (false, format!("Waiting for {} \"{name}\" rollout to finish: {what}...\n", resource.singular));
    Ok(if updated < wanted {
        waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if all > updated {
        waiting(format!("{} old replicas are pending termination", all - updated))
    } else if available < updated {
        waiting(format!("{available} of {updated} updated replicas are available"))
    } else {
        (true, format!("{} \"{name}\" successfully rolled out\n", resource.singular))
    })
}
