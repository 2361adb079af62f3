//! `meta.k8s.io/v1 Table`s: what `kubectl get` prints.

mod builtin;
mod cells;
mod custom;
pub mod duration;
pub mod jsonpath;

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

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

/// One row: cells and object. It is written without being built first, as there may be ten thousand of them.
#[derive(Serialize)]
pub struct Row<'a> {
    cells: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<RowObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<[Value; 1]>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RowObject<'a> {
    Partial {
        kind: &'static str,
        #[serde(rename = "apiVersion")]
        api_version: &'static str,
        #[serde(serialize_with = "without_managed_fields")]
        metadata: Option<&'a Map<String, Value>>,
    },
    Whole(&'a Value),
}

impl<'a> Row<'a> {
    /// The row of an object. `now` is what AGE counts to.
    pub fn new(columns: &Columns, object: &'a Value, include: IncludeObject, now: Timestamp) -> Self {
        let metadata = || object.get("metadata").and_then(Value::as_object);
        let shown = match include {
            IncludeObject::None => None,
            IncludeObject::Metadata => {
                Some(RowObject::Partial { kind: "PartialObjectMetadata", api_version: "meta.k8s.io/v1", metadata: metadata() })
            }
            IncludeObject::Object => Some(RowObject::Whole(object)),
        };
        Self { cells: columns.cells(object, now), object: shown, conditions: completed(object).map(|condition| [condition]) }
    }
}

/// No reader of tables asks for managed fields, and they are most of the metadata's bytes.
fn without_managed_fields<S: Serializer>(metadata: &Option<&Map<String, Value>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metadata.iter().flat_map(|fields| fields.iter()).filter(|(name, _)| *name != "managedFields"))
}

/// Rows of pods that are done say so, for clients that grey them out.
fn completed(object: &Value) -> Option<Value> {
    if object.get("kind").is_none_or(|kind| kind != "Pod") {
        return None;
    }
    let message = match object.get("status")?.get("phase")?.as_str()? {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": object["status"]["phase"], "message": message}))
}

/// A whole Table.
#[derive(Serialize)]
pub struct Table<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Value,
    #[serde(rename = "columnDefinitions")]
    column_definitions: Value,
    /// The last field, so that a long list can be written row by row after [`Table::head`].
    rows: Vec<Row<'a>>,
}

impl<'a> Table<'a> {
    /// `list_metadata` is the list's `metadata` (`resourceVersion`, `continue`); watch events and later chunks leave the column
    /// definitions out as Kubernetes does.
    pub fn new(list_metadata: Value, columns: Option<&Columns>, rows: Vec<Row<'a>>) -> Self {
        let column_definitions = columns.map_or(Value::Null, Columns::definitions);
        Self { kind: "Table", api_version: "meta.k8s.io/v1", metadata: list_metadata, column_definitions, rows }
    }

    /// JSON up to the first row; rows with commas between them and `]}` have to follow.
    pub fn head(list_metadata: Value, columns: &Columns) -> String {
        let mut text = Self::new(list_metadata, Some(columns), Vec::new()).to_string();
        text.truncate(text.len() - "]}".len());
        text
    }
}

/// JSON.
impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests;
