//! The rules of Kubernetes that no schema states: names, immutable fields, references within an object.

pub mod names;

use serde_json::Value;

use crate::{Cause, resource::ResourceDefinition};

/// Rules for an object about to be created. The schema's own rules are checked apart, by [`crate::schema::Schema::validate`].
pub fn validate_create(definition: &ResourceDefinition, object: &Value) -> Vec<Cause> {
    todo!("{definition:?}{object}")
}

/// Rules for an object about to replace `old`.
pub fn validate_update(definition: &ResourceDefinition, new: &Value, old: &Value) -> Vec<Cause> {
    todo!("{definition:?}{new}{old}")
}
