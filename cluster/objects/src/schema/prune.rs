//! Fields a schema does not know: naming them and dropping them.

use serde_json::{Map, Value};

use super::node::{Cursor, Type};
use crate::quantity;

/// More unknown fields than this are not named one by one: an answer has to stay readable.
const MAX_UNKNOWN_FIELDS: usize = 100;

pub(super) fn unknown_fields(root: Cursor<'_>, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(root, object, &mut String::new(), &mut found);
    found
}

fn collect(at: Cursor<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    if found.len() >= MAX_UNKNOWN_FIELDS {
        return;
    }
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                match known(at, name) {
                    Field::Known(field) => collect(field, value, path, found),
                    Field::Kept => {}
                    Field::Unknown => found.push(format!("unknown field {path:?}")),
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(item_schema) = at.items() else { return };
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                collect(item_schema, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// What a schema says of a key.
enum Field<'a> {
    Known(Cursor<'a>),
    /// Kept without a schema.
    Kept,
    Unknown,
}

fn known<'a>(at: Cursor<'a>, name: &str) -> Field<'a> {
    if let Some(field) = at.field(name) {
        return Field::Known(field);
    }
    let type_meta = at.node.embedded_resource && matches!(name, "apiVersion" | "kind" | "metadata");
    if at.is_open() || type_meta { Field::Kept } else { Field::Unknown }
}

pub(super) fn prune(at: Cursor<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) => prune_fields(at, fields),
        Value::Array(items) => {
            if let Some(item_schema) = at.items() {
                for item in items {
                    prune(item_schema, item);
                }
            }
        }
        Value::String(text) if at.node.r#type == Type::Quantity => *text = quantity::canonical(text),
        Value::Number(number) if at.node.r#type == Type::Quantity => {
            *value = Value::String(quantity::canonical(&number.to_string()))
        }
        _ => {}
    }
}

fn prune_fields(at: Cursor<'_>, fields: &mut Map<String, Value>) {
    // A custom resource's metadata is a Go struct too.
    let drops_nulls = at.schema.builtin || at.node.type_name.is_some();
    fields.retain(|name, value| match known(at, name) {
        Field::Known(_) if drops_nulls && value.is_null() => false,
        Field::Known(field) => {
            prune(field, value);
            true
        }
        Field::Kept => true,
        Field::Unknown => false,
    });
}
