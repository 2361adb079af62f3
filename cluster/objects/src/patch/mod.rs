//! The three kinds of patches: JSON patch, JSON merge patch, strategic merge patch.

mod strategic;

use serde_json::Value;

use crate::{Reason, Status, schema::Schema};

/// As many operations as one JSON patch may have; Kubernetes' own limit.
const MAX_OPERATIONS: usize = 10_000;
/// As deep as a merge patch may nest.
const MAX_DEPTH: usize = 120;

/// A JSON patch (RFC 6902): `patch` is the array of operations.
///
/// # Errors
/// 400 where `patch` is no JSON patch, 413 where it has too many operations, 422 where it cannot be applied.
pub fn json_patch(target: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = patch.as_array().map(Vec::len).unwrap_or_default();
    if operations > MAX_OPERATIONS {
        return Err(Status::new(
            Reason::RequestEntityTooLarge,
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {operations}"),
        ));
    }
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = target.clone();
    json_patch::patch(&mut patched, &patch).map_err(|error| {
        Status::new(Reason::Invalid, format!("the server rejected our request due to an error in our request: {error}"))
    })?;
    Ok(patched)
}

/// A JSON merge patch (RFC 7386).
///
/// # Errors
/// 400 where `patch` is not an object.
pub fn merge_patch(target: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("error decoding patch: a merge patch must be a JSON object"));
    }
    if deeper_than(patch, MAX_DEPTH) {
        return Err(Status::bad_request(format!("error decoding patch: it nests deeper than {MAX_DEPTH}")));
    }
    let mut patched = target.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

/// A strategic merge patch; merge keys and strategies are the schema's.
///
/// # Errors
/// 400 where the patch is not an object or its directives are malformed; 415 for custom resources, which Kubernetes does not
/// patch this way.
pub fn strategic_merge(schema: &Schema, target: &Value, patch: &Value) -> Result<Value, Status> {
    if !schema.is_builtin() {
        let accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return Err(Status::new(
            Reason::UnsupportedMediaType,
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
        ));
    }
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        return Err(Status::bad_request("error decoding patch: a strategic merge patch must be a JSON object"));
    };
    strategic::merge(schema.root(), target, patch).map(Value::Object).map_err(|error| Status::bad_request(error.to_string()))
}

fn deeper_than(value: &Value, depth: usize) -> bool {
    let mut children: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Object(fields) => Box::new(fields.values()),
        Value::Array(items) => Box::new(items.iter()),
        _ => return false,
    };
    depth == 0 || children.any(|child| deeper_than(child, depth - 1))
}

#[cfg(test)]
mod tests;
