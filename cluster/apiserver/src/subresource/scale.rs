//! `/scale`: the replicas of a workload or of a custom object.

use http::StatusCode;
use jiff::Timestamp;
use meshlab_objects::resource::GroupVersionKind;
use meshlab_objects::schema::Schema;
use meshlab_objects::table::{Columns, IncludeObject, Row, Table};
use meshlab_objects::{Reason, Status};
use serde_json::{Value, json};

use crate::http::{Body, Representation, Response, json_answer, yaml_or_json};
use crate::registry::ScalePaths;
use crate::rest::{Call, Mutation, Patch, WriteOptions, meta};

fn paths(call: &Call) -> Result<ScalePaths, Status> {
    if call.served.custom.is_none() {
        return Ok(ScalePaths { spec: ".spec.replicas".into(), status: ".status.replicas".into(), selector: None });
    }
    let missing = || Status::new(Reason::NotFound, "the server could not find the requested resource");
    call.version()?.scale.clone().ok_or_else(missing)
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|part| !part.is_empty()).fold(object, |value, part| &value[part])
}

/// The labels of a selector in the form of a query parameter.
fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    let plain = if selector["matchLabels"].is_object() || selector["matchExpressions"].is_array() {
        &selector["matchLabels"]
    } else {
        selector
    };
    for (key, value) in plain.as_object().into_iter().flatten() {
        if let Some(value) = value.as_str() {
            parts.push(format!("{key}={value}"));
        }
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match expression["operator"].as_str() {
            Some("In") => parts.push(format!("{key} in ({})", values.join(","))),
            Some("NotIn") => parts.push(format!("{key} notin ({})", values.join(","))),
            Some("Exists") => parts.push(key.to_owned()),
            Some("DoesNotExist") => parts.push(format!("!{key}")),
            _ => {}
        }
    }
    parts.join(",")
}

/// The `autoscaling/v1 Scale` of an object.
fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let metadata = &object["metadata"];
    let mut about = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            about[field] = value.clone();
        }
    }
    let selector = match &paths.selector {
        Some(path) => at(object, path).as_str().unwrap_or_default().to_owned(),
        None => selector_text(&object["spec"]["selector"]),
    };
    let mut status = json!({"replicas": at(object, &paths.status).as_i64().unwrap_or_default()});
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    let replicas = at(object, &paths.spec).as_i64().unwrap_or_default();
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": about, "spec": {"replicas": replicas}, "status": status})
}

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

fn answer(call: &Call, object: &Value, paths: &ScalePaths) -> Response {
    let scale = scale_of(object, paths);
    if call.accept.representation != Representation::Table {
        return yaml_or_json(StatusCode::OK, call.accept, &scale);
    }
    let columns = Columns::builtin(&kind());
    let rows = vec![Row::new(&columns, &scale, IncludeObject::default(), Timestamp::now())];
    json_answer(StatusCode::OK, Table::new(json!({}), Some(&columns), rows).to_string())
}

pub(super) fn get(call: &Call) -> Result<Response, Status> {
    let paths = paths(call)?;
    Ok(answer(call, &call.stored()?.value(), &paths))
}

pub(super) async fn update(call: &Call, body: Body) -> Result<Response, Status> {
    let scale = call.decode_object(body).await?.value;
    write(call, scale).await
}

pub(super) async fn patch(call: &Call, body: Body) -> Result<Response, Status> {
    let paths = paths(call)?;
    let (patch, _) = call.decode_patch(body).await?;
    let mut current = scale_of(&call.stored()?.value(), &paths);
    // Only a revision that the patch itself names is a precondition.
    drop(current["metadata"].as_object_mut().map(|metadata| metadata.remove("resourceVersion")));
    let schema = Schema::builtin("autoscaling", "v1", "Scale").ok_or_else(|| Status::internal("no schema for Scale"))?;
    let patched = match &patch {
        Patch::Apply { config, .. } => meshlab_objects::patch::merge_patch(&current, config)?,
        other => other.apply_to(&schema, &current)?,
    };
    write(call, patched).await
}

async fn write(call: &Call, mut scale: Value) -> Result<Response, Status> {
    let paths = paths(call)?;
    meta::check_kind(&mut scale, &kind())?;
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        value => value.as_i64().ok_or_else(|| Status::bad_request("spec.replicas is not an integer"))?,
    };
    if replicas < 0 {
        let cause = meshlab_objects::Cause {
            reason: meshlab_objects::CauseReason::FieldValueInvalid,
            message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
            field: "spec.replicas".into(),
        };
        return Err(Status::invalid("autoscaling", "Scale", &call.path.name, vec![cause]));
    }
    let mut change = json!(replicas);
    for part in paths.spec.split('.').rev().filter(|part| !part.is_empty()) {
        change = json!({ part: change });
    }
    if let Some(version) = scale["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
        change["metadata"] = json!({"resourceVersion": version});
    }
    let options = WriteOptions { subresource: "scale".into(), ..call.write_options()? };
    let mutation = Mutation::Patch(Patch::Merge(change));
    let written = call.api.modify(&call.served, &call.key(), &mutation, &options).await?;
    Ok(answer(call, &written.object.value(), &paths))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn selectors_are_written_as_query_parameters() {
        let selector =
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]});
        assert_eq!(super::selector_text(&selector), "app=web,tier in (a,b)");
        assert_eq!(super::selector_text(&json!({"app": "web"})), "app=web");
    }
}
