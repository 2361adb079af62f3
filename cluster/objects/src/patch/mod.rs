//! The three kinds of patches: JSON patch, JSON merge patch, strategic merge patch.

use serde_json::Value;

use crate::{Status, schema::Schema};

/// A JSON patch (RFC 6902): `patch` is the array of operations.
///
/// # Errors
/// 400 where `patch` is no JSON patch, 422 where it cannot be applied.
pub fn json_patch(target: &Value, patch: &Value) -> Result<Value, Status> {
    todo!("{target}{patch}")
}

/// A JSON merge patch (RFC 7386).
///
/// # Errors
/// 400 where `patch` is not an object.
pub fn merge_patch(target: &Value, patch: &Value) -> Result<Value, Status> {
    todo!("{target}{patch}")
}

/// A strategic merge patch; merge keys and strategies are the schema's.
///
/// # Errors
/// 400 where the patch is not an object or its directives are malformed.
pub fn strategic_merge(schema: &Schema, target: &Value, patch: &Value) -> Result<Value, Status> {
    let _ = schema;
    todo!("{target}{patch}")
}
