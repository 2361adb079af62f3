//! `meta.k8s.io/v1 Table`s: what `kubectl get` prints.

use serde_json::Value;

use crate::resource::GroupVersionKind;

/// The columns of a kind and how to fill them.
#[derive(Debug, Clone)]
pub struct Columns {}

impl Columns {
    /// The columns of a built-in kind; kinds without columns of their own get NAME and AGE.
    pub fn builtin(kind: &GroupVersionKind) -> Self {
        todo!("{kind:?}")
    }

    /// The columns of a CRD version: NAME, its `additionalPrinterColumns` (AGE where it has none).
    pub fn from_crd(additional_printer_columns: &Value) -> Self {
        todo!("{additional_printer_columns}")
    }

    /// `columnDefinitions` of the Table.
    pub fn definitions(&self) -> Value {
        todo!()
    }

    /// `cells` of one object's row. `now` is what AGE counts to.
    pub fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        todo!("{object}{now}")
    }
}

/// How much of the object each row carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`, which is the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// One row: cells and object.
pub fn row(columns: &Columns, object: &Value, include: IncludeObject, now: jiff::Timestamp) -> Value {
    todo!("{columns:?}{object}{include:?}{now}")
}

/// A whole Table. `list_metadata` is the list's `metadata` (`resourceVersion`, `continue`); watch events and later chunks leave
/// the column definitions out as Kubernetes does.
pub fn table(list_metadata: Value, columns: Option<&Columns>, rows: Vec<Value>) -> Value {
    todo!("{list_metadata}{columns:?}{rows:?}")
}
