//! Label selectors and field selectors.

use serde_json::Value;

use crate::{Status, resource::GroupVersionKind};

/// A parsed label selector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {}

impl LabelSelector {
    /// From a query parameter: `app=web,tier!=db,env in (a,b),!canary`.
    ///
    /// # Errors
    /// 400 in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, Status> {
        todo!("{text}")
    }

    /// From an object's `LabelSelector` (`matchLabels`, `matchExpressions`). A missing one (`null`) selects nothing, an empty one everything.
    ///
    /// # Errors
    /// 400 in Kubernetes' words.
    pub fn from_value(selector: &Value) -> Result<Self, Status> {
        todo!("{selector}")
    }

    /// Whether the labels (an object's `metadata.labels`, or `None`) match.
    pub fn matches(&self, labels: Option<&Value>) -> bool {
        todo!("{labels:?}")
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}

/// A parsed field selector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {}

impl FieldSelector {
    /// From a query parameter. `selectable` are the further fields of a CRD's `selectableFields` (`spec.host`).
    ///
    /// # Errors
    /// 400: `field label not supported: spec.foo`.
    pub fn parse(kind: &GroupVersionKind, selectable: &[String], text: &str) -> Result<Self, Status> {
        todo!("{kind:?}{selectable:?}{text}")
    }

    /// Whether the object matches.
    pub fn matches(&self, object: &Value) -> bool {
        todo!("{object}")
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// The name, where the selector pins `metadata.name`.
    pub fn name(&self) -> Option<&str> {
        todo!()
    }
}
