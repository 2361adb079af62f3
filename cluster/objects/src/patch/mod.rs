//! The three kinds of patches: JSON patch, JSON merge patch, strategic merge patch.

mod strategic;

use serde_json::Value;

use crate::{Reason, Status, schema::Schema};

/// As many operations as one JSON patch may have; Kubernetes' own limit.
const MAX_OPERATIONS: usize = 10_000;
/// What `copy` operations may add, so that a few cannot double an object again and again; Kubernetes' own limit.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// As deep as a merge patch, and what a JSON patch makes, may nest.
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
    let mut copied = 0;
    for operation in &patch.0 {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += size(patched.pointer(copy.from.as_str()));
            if copied > MAX_COPIED {
                return Err(Status::new(
                    Reason::RequestEntityTooLarge,
                    format!("the accumulated size increase of copy operations is {copied}, exceeding the limit {MAX_COPIED}"),
                ));
            }
        }
        // Not `patch`: nothing has to be undone in a copy that is thrown away.
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(|error| {
            Status::new(Reason::Invalid, format!("the server rejected our request due to an error in our request: {error}"))
        })?;
    }
    // A patch can put something deep into something deep; nobody could read it back.
    if deeper_than(&patched, MAX_DEPTH) {
        let message = format!("the server rejected our request due to an error in our request: it nests deeper than {MAX_DEPTH}");
        return Err(Status::new(Reason::Invalid, message));
    }
    Ok(patched)
}

/// About how many bytes a value takes as JSON.
fn size(value: Option<&Value>) -> usize {
    match value {
        None => 0,
        Some(Value::Object(fields)) => fields.iter().map(|(name, value)| name.len() + 4 + size(Some(value))).sum::<usize>() + 2,
        Some(Value::Array(items)) => items.iter().map(|item| 1 + size(Some(item))).sum::<usize>() + 2,
        Some(Value::String(text)) => text.len() + 2,
        Some(_) => 8,
    }
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
