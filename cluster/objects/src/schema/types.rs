//! Types of built-in kinds' fields, with the words of Go's JSON decoder.

use serde_json::Value;

use super::node::{Cursor, Type};

pub(super) fn first_error(root: Cursor<'_>, object: &Value) -> Option<String> {
    check(root, object, "", &mut String::new())
}

/// `owner` is the struct the value is a field of.
fn check(at: Cursor<'_>, value: &Value, owner: &str, path: &mut String) -> Option<String> {
    let length = path.len();
    match (at.node.r#type, value) {
        (_, Value::Null) => None,
        (Type::Object | Type::Any, Value::Object(fields)) => {
            let owner = short(at.type_name(), owner);
            fields.iter().find_map(|(name, value)| {
                let field = at.field(name)?;
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                let error = check(field, value, owner, path);
                path.truncate(length);
                error
            })
        }
        (Type::Array | Type::Any, Value::Array(items)) => {
            let items_schema = at.items()?;
            items.iter().find_map(|item| check(items_schema, item, owner, path))
        }
        (Type::Any, _)
        | (Type::String | Type::IntOrString | Type::Quantity, Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (Type::Number | Type::Quantity, Value::Number(_)) => None,
        (Type::Integer, Value::Number(number)) if fits(at, number) => None,
        (Type::IntOrString, Value::Number(number)) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => None,
        (_, value) => Some(format!(
            "json: cannot unmarshal {} into Go struct field {owner}.{path} of type {}",
            json_kind(value),
            go_type(at)
        )),
    }
}

fn fits(at: Cursor<'_>, number: &serde_json::Number) -> bool {
    let int32 = format(at) == "int32";
    number.as_i64().is_some_and(|n| !int32 || i32::try_from(n).is_ok())
}

fn format<'a>(at: Cursor<'a>) -> &'a str {
    at.node.constraints.as_ref().and_then(|constraints| constraints.format.as_deref()).unwrap_or_default()
}

fn json_kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if number.is_f64() => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn go_type(at: Cursor<'_>) -> String {
    match at.node.r#type {
        Type::String => match format(at) {
            "byte" => "[]uint8".to_owned(),
            "date-time" => "v1.Time".to_owned(),
            _ => "string".to_owned(),
        },
        Type::Integer if format(at) == "int32" => "int32".to_owned(),
        Type::Integer => "int64".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::Array => format!("[]{}", at.items().map_or_else(|| "interface {}".to_owned(), go_type)),
        Type::Object if at.node.additional.is_some() => {
            format!("map[string]{}", at.additional().map_or_else(|| "interface {}".to_owned(), go_type))
        }
        Type::Object | Type::Any => {
            let mut parts = at.type_name().rsplit('.');
            let kind = parts.next().unwrap_or_default();
            parts.next().map_or_else(|| kind.to_owned(), |package| format!("{package}.{kind}"))
        }
    }
}

/// `DeploymentSpec` of `io.k8s.api.apps.v1.DeploymentSpec`; the owner's where a map stands between.
fn short<'a>(type_name: &'a str, owner: &'a str) -> &'a str {
    type_name.rsplit('.').next().filter(|name| !name.is_empty()).unwrap_or(owner)
}
