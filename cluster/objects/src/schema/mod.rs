//! The shape of a kind: fields and their types, list semantics, defaults, constraints.

use std::sync::Arc;

use serde_json::Value;

use crate::Cause;

/// The structural schema of one version of one kind.
#[derive(Debug)]
pub struct Schema {}

impl Schema {
    /// The schema of a built-in kind; also of the kinds of subresources and of `DeleteOptions`. Made at the first call, then shared.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Arc<Self>> {
        todo!("{group}{version}{kind}")
    }

    /// The schema of a CRD's version, from its `schema.openAPIV3Schema`, with `apiVersion`, `kind` and `metadata` added.
    ///
    /// # Errors
    /// The rules of structural schemas it breaks, with fields below `openAPIV3Schema` (prefix them with the version's path).
    pub fn from_crd(schema: &Value) -> Result<Self, Vec<Cause>> {
        todo!("{schema}")
    }

    /// Fields the schema does not know, in Kubernetes' words: `unknown field "spec.foo"`.
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        todo!("{object}")
    }

    /// Drops fields the schema does not know.
    pub fn prune(&self, object: &mut Value) {
        todo!("{object}")
    }

    /// Sets what is left out and has a default: for CRDs the schema's defaults, for built-in kinds those of a real API server.
    pub fn apply_defaults(&self, object: &mut Value) {
        todo!("{object}")
    }

    /// Types, required fields, enums, patterns, bounds, formats, uniqueness in lists and CEL rules. `old` is the object before
    /// an update: transition rules read it. The hand-written rules of built-in kinds are [`crate::validation`]'s.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        todo!("{new} {old:?}")
    }
}
