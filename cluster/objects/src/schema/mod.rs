//! The shape of a kind: fields and their types, list semantics, defaults, constraints.

mod builtin;
mod cel;
mod constraints;
mod defaults;
pub(crate) mod facts;
mod formats;
pub(crate) mod messages;
pub(crate) mod node;
mod prune;
mod structural;
mod types;
mod validate;

use std::sync::Arc;

use serde_json::Value;

use crate::Cause;
pub(crate) use builtin::json_schema;
use node::{Cursor, Node, NodeId};

/// The structural schema of one version of one kind.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<Node>,
    root: NodeId,
    /// A built-in kind: nulls are dropped and defaults are functions, as behind Go's types.
    builtin: bool,
    rules: cel::Rules,
}

impl Schema {
    /// The schema of a built-in kind; also of the kinds of subresources and of `DeleteOptions`. Made at the first call, then shared.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Arc<Self>> {
        builtin::schema(group, version, kind)
    }

    /// The schema of a CRD's version, from its `schema.openAPIV3Schema`, with `apiVersion`, `kind` and `metadata` added.
    ///
    /// # Errors
    /// The rules of structural schemas it breaks, with fields below `openAPIV3Schema` (prefix them with the version's path).
    pub fn from_crd(schema: &Value) -> Result<Self, Vec<Cause>> {
        structural::schema(schema)
    }

    /// Whether this is a built-in kind's schema.
    pub fn is_builtin(&self) -> bool {
        self.builtin
    }

    /// What Go's decoder would say of the first value of a wrong type, `None` where all types are right:
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`. Kubernetes answers 400 with
    /// `Deployment in version "v1" cannot be handled as a Deployment: …`. Custom resources have no such step: their types
    /// are checked by [`Self::validate`].
    pub fn type_error(&self, object: &Value) -> Option<String> {
        if self.builtin { types::first_error(self.root(), object) } else { None }
    }

    /// Fields the schema does not know, in Kubernetes' words: `unknown field "spec.foo"`.
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        prune::unknown_fields(self.root(), object)
    }

    /// Drops fields the schema does not know. For built-in kinds also nulls, as behind Go's types; quantities get their canonical
    /// form.
    pub fn prune(&self, object: &mut Value) {
        prune::prune(self.root(), object);
    }

    /// Sets what is left out and has a default: for CRDs the schema's defaults, for built-in kinds those of a real API server.
    pub fn apply_defaults(&self, object: &mut Value) {
        if !self.builtin {
            defaults::apply_declared(self.root(), object);
        } else if self.type_error(object).is_none() {
            // Values of a wrong type are left for validation to refuse.
            defaults::apply_builtin(self.root(), object);
        }
    }

    /// Types, required fields, enums, patterns, bounds, formats, uniqueness in lists and CEL rules. `old` is the object before
    /// an update: transition rules read it. The hand-written rules of built-in kinds are [`crate::validation`]'s.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = validate::validate(self.root(), new);
        // Rules are written for objects of the right shape; Kubernetes does not run them on others either.
        if causes.is_empty() {
            causes = self.rules.evaluate(new, old);
        }
        causes
    }

    /// The CEL rules of a CRD's schema that do not compile. Compiling takes longer than the rest of [`Self::from_crd`], so it is
    /// asked for apart; the compiled rules are kept.
    pub fn rule_errors(&self) -> Vec<Cause> {
        self.rules.compilation_errors()
    }

    pub(crate) fn root(&self) -> Cursor<'_> {
        Cursor { schema: self, node: &self.nodes[self.root] }
    }
}

#[cfg(test)]
mod tests;
