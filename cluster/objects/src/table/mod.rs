//! `meta.k8s.io/v1 Table`s: what `kubectl get` prints.

mod builtin;
mod cells;
mod custom;
pub mod duration;
pub mod jsonpath;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resource::GroupVersionKind;

/// The columns of a kind and how to fill them.
#[derive(Debug, Clone)]
pub struct Columns {
    columns: Vec<Column>,
    cells: Cells,
}

/// A `TableColumnDefinition`.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    r#type: String,
    format: String,
    description: String,
    /// Above zero: only in wide output.
    priority: i64,
}

/// Where cells come from.
#[derive(Debug, Clone)]
enum Cells {
    Builtin(fn(cells::Row<'_>) -> Vec<Value>),
    /// A path for every column after the first, which is the name.
    Custom(Vec<Option<jsonpath::JsonPath>>),
}

impl Columns {
    /// The columns of a built-in kind; kinds without columns of their own get NAME and CREATED AT, as in Kubernetes.
    pub fn builtin(kind: &GroupVersionKind) -> Self {
        builtin::columns(kind)
    }

    /// The columns of a CRD version: NAME, its `additionalPrinterColumns` (AGE where it has none).
    pub fn from_crd(additional_printer_columns: &Value) -> Self {
        custom::columns(additional_printer_columns)
    }

    /// `columnDefinitions` of the Table.
    pub fn definitions(&self) -> Value {
        let definition = |column: &Column| {
            json!({"name": column.name, "type": column.r#type, "format": column.format, "description": column.description,
                "priority": column.priority})
        };
        self.columns.iter().map(definition).collect()
    }

    /// `cells` of one object's row. `now` is what AGE counts to.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match &self.cells {
            Cells::Builtin(fill) => fill(cells::Row { object, now }),
            Cells::Custom(paths) => custom::cells(&self.columns, paths, object, now),
        }
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

impl IncludeObject {
    /// From the query parameter; `None` where it is none of the three.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "Metadata" | "" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// One row: cells and object.
pub fn row(columns: &Columns, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({"cells": columns.cells(object, now)});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row["object"] =
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata(object)});
        }
        IncludeObject::Object => row["object"] = object.clone(),
    }
    if let Some(condition) = completed(object) {
        row["conditions"] = json!([condition]);
    }
    row
}

/// An object's metadata without `managedFields`, which no reader of tables asks for and which are most of its bytes.
fn metadata(object: &Value) -> Value {
    let fields = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
    let kept = fields.filter(|(name, _)| *name != "managedFields").map(|(name, value)| (name.clone(), value.clone()));
    Value::Object(kept.collect())
}

/// Rows of pods that are done say so, for clients that grey them out.
fn completed(object: &Value) -> Option<Value> {
    if object.get("kind").is_none_or(|kind| kind != "Pod") {
        return None;
    }
    let message = match object.pointer("/status/phase").and_then(Value::as_str)? {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": object["status"]["phase"], "message": message}))
}

/// A whole Table. `list_metadata` is the list's `metadata` (`resourceVersion`, `continue`); watch events and later chunks leave
/// the column definitions out as Kubernetes does.
pub fn table(list_metadata: Value, columns: Option<&Columns>, rows: Vec<Value>) -> Value {
    let definitions = columns.map_or(Value::Null, Columns::definitions);
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata, "columnDefinitions": definitions, "rows": rows})
}

#[cfg(test)]
mod tests;
