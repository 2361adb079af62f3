//! `/eviction`: a deletion that disruption budgets can refuse.

use std::sync::Arc;

use http::StatusCode;
use meshlab_objects::selector::LabelSelector;
use meshlab_objects::{Reason, Status};
use serde_json::{Value, json};

use crate::http::{Body, Response, yaml_or_json};
use crate::rest::{Call, DeleteOptions, meta};
use crate::store::GroupResource;

pub(super) async fn evict(call: &Call, body: Body) -> Result<Response, Status> {
    let mut eviction = call.decode_object(body).await?.value;
    let kind = meshlab_objects::resource::GroupVersionKind::new("policy", "v1", "Eviction");
    meta::check_kind(&mut eviction, &kind)?;
    let name = meta::meta(&eviction, "name");
    if !name.is_empty() && name != call.path.name {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {} != {name}",
            call.path.name
        )));
    }
    let pod = call.stored()?.value();
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    if !ended && !meta::is_being_deleted(&pod) {
        check_budgets(call, &pod)?;
    }
    let mut options = match &eviction["deleteOptions"] {
        Value::Null => DeleteOptions::default(),
        value => DeleteOptions::from_value(value)?,
    };
    options.grace_seconds = options.grace_seconds.or_else(|| call.query.number("gracePeriodSeconds").ok().flatten());
    let mut write = call.write_options()?;
    write.subresource = String::new();
    call.api.delete_object(&call.served, &call.key(), &options, &write).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(yaml_or_json(StatusCode::CREATED, call.accept, &status))
}

/// A number or a percentage of `total`.
fn amount(value: &Value, total: i64) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            // Rounded up, as Kubernetes does for both kinds of budgets.
            Some((percent.clamp(0, 100) * total + 99) / 100)
        }
        _ => None,
    }
}

/// No controller keeps the budgets' status, so that it is computed here: the pods they select are counted.
fn check_budgets(call: &Call, pod: &Value) -> Result<(), Status> {
    let namespace = call.namespace();
    let budgets = call.api.store.list(&GroupResource::new("policy", "poddisruptionbudgets"), Some(namespace)).objects;
    let labels = pod["metadata"].get("labels");
    for budget in budgets {
        let budget = budget.value();
        let spec = &budget["spec"];
        let Ok(selector) = LabelSelector::from_value(&spec["selector"]) else { continue };
        if !selector.matches(labels) {
            continue;
        }
        let pods = call.api.store.list(&call.served.id, Some(namespace)).objects;
        let selected: Vec<Arc<Value>> =
            pods.iter().map(|pod| pod.value()).filter(|pod| selector.matches(pod["metadata"].get("labels"))).collect();
        let total = i64::try_from(selected.len()).unwrap_or(i64::MAX);
        let is_ready = |pod: &&Arc<Value>| {
            let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            !meta::is_being_deleted(pod) && pod["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(ready))
        };
        let healthy = i64::try_from(selected.iter().filter(is_ready).count()).unwrap_or(i64::MAX);
        let required = match (amount(&spec["minAvailable"], total), amount(&spec["maxUnavailable"], total)) {
            (Some(least), _) => least,
            (None, Some(most)) => total - most,
            (None, None) => continue,
        };
        if healthy <= required {
            let mut status =
                Status::new(Reason::TooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.");
            status.retry_after_seconds = Some(10);
            return Err(status);
        }
    }
    Ok(())
}
