//! Columns of custom resources: a CRD's `additionalPrinterColumns`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cells, Column, Columns, builtin, duration, jsonpath::JsonPath};

pub(super) fn columns(additional: &Value) -> Columns {
    let stated = additional.as_array().map(Vec::as_slice).unwrap_or_default();
    let age =
        [json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": builtin::CREATED})];
    let stated = if stated.is_empty() { &age[..] } else { stated };
    let text = |column: &Value, name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let further = stated.iter().map(|column| Column {
        name: text(column, "name"),
        r#type: text(column, "type"),
        format: text(column, "format"),
        description: text(column, "description"),
        priority: column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
    });
    let columns = std::iter::once(builtin::name_column()).chain(further).collect();
    let paths = stated.iter().map(|column| JsonPath::parse(&text(column, "jsonPath"))).collect();
    Columns { columns, cells: Cells::Custom(paths) }
}

pub(super) fn cells(columns: &[Column], paths: &[Option<JsonPath>], object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
    let others = columns.iter().skip(1).zip(paths).map(|(column, path)| {
        let value = path.as_ref().and_then(|path| path.find(object).into_iter().next());
        value.map_or(Value::Null, |value| cell(&column.r#type, value, now))
    });
    std::iter::once(name).chain(others).collect()
}

fn cell(column_type: &str, value: &Value, now: Timestamp) -> Value {
    match (column_type, value) {
        (_, Value::Null) => Value::Null,
        ("date", time) => match time.as_str() {
            Some(text) if text.parse::<Timestamp>().is_ok() => duration::since(Some(time), now).into(),
            Some(_) => "<invalid>".into(),
            None => Value::Null,
        },
        ("integer", number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) => (float as i64).into(),
            (None, None) => Value::Null,
        },
        ("number", number) if number.is_number() => number.clone(),
        ("boolean", flag) if flag.is_boolean() => flag.clone(),
        ("number" | "boolean", _) => Value::Null,
        (_, Value::String(text)) => text.as_str().into(),
        (_, other) => other.to_string().into(),
    }
}
