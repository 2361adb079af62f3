//! Values against the types and constraints of a schema, in Kubernetes' words.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    constraints::Constraints,
    formats,
    messages::{duplicate, invalid, not_supported, required, show, too_long, too_many, wrong_type},
    node::{Cursor, ListType, Type},
};
use crate::{Cause, CauseReason, quantity::Quantity};

/// An answer names at most so many faults.
const MAX_CAUSES: usize = 100;

pub(super) fn validate(root: Cursor<'_>, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(root, object, "", &mut causes);
    causes.truncate(MAX_CAUSES);
    causes
}

fn check(at: Cursor<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if causes.len() >= MAX_CAUSES {
        return;
    }
    if value.is_null() && (at.node.nullable || at.node.r#type == Type::Any) {
        return;
    }
    if let Some(expected) = mismatch(at.node.r#type, value) {
        causes.push(wrong_type(path, json_type(value), expected));
        return;
    }
    match value {
        Value::Object(fields) => check_fields(at, fields, path, causes),
        Value::Array(items) => check_items(at, items, path, causes),
        _ => {}
    }
    if let Some(constraints) = &at.node.constraints {
        check_constraints(at, constraints, value, path, causes);
    }
    if at.node.r#type == Type::Quantity && value.as_str().is_some_and(|text| Quantity::parse(text).is_none()) {
        let detail = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        causes.push(invalid(path, value, detail));
    }
}

fn check_fields(at: Cursor<'_>, fields: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    for name in &at.node.required {
        let missing = fields.get(&**name).is_none_or(|value| at.schema.builtin && value.is_null());
        if missing {
            causes.push(required(join(path, name), ""));
        }
    }
    if at.node.embedded_resource {
        for name in ["apiVersion", "kind"] {
            if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                causes.push(required(join(path, name), "must not be empty"));
            }
        }
    }
    for (name, value) in fields {
        if let Some(field) = at.field(name)
            && !(at.schema.builtin && value.is_null())
        {
            check(field, value, &join(path, name), causes);
        }
    }
}

fn check_items(at: Cursor<'_>, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    if let Some(item_schema) = at.items() {
        for (index, item) in items.iter().enumerate() {
            check(item_schema, item, &format!("{path}[{index}]"), causes);
        }
    }
    match &at.node.list_type {
        ListType::Atomic => {}
        ListType::Set => check_unique(items, path, causes, |item| Some(item.clone())),
        // Built-in kinds say in their own rules which of their lists may repeat a key.
        ListType::Map(_) if at.schema.builtin => {}
        ListType::Map(keys) => check_unique(items, path, causes, |item| {
            let item = item.as_object()?;
            let key = keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())));
            Some(Value::Object(key.collect()))
        }),
    }
}

fn check_unique(items: &[Value], path: &str, causes: &mut Vec<Cause>, key: impl Fn(&Value) -> Option<Value>) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let Some(key) = key(item) else { continue };
        if !seen.insert(key.to_string()) {
            causes.push(duplicate(format!("{path}[{index}]"), &key));
        }
    }
}

fn check_constraints(at: Cursor<'_>, constraints: &Constraints, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if !constraints.enumeration.is_empty() && !constraints.enumeration.contains(value) {
        causes.push(not_supported(path, value, &constraints.enumeration));
    }
    match value {
        Value::String(text) => check_text(at, constraints, text, value, path, causes),
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                check_number(constraints, number, value, path, causes);
            }
        }
        Value::Array(items) => {
            if let Some(max) = constraints.max_items.filter(|max| exceeds(items.len(), *max)) {
                causes.push(too_many(path, items.len(), max));
            }
            if let Some(min) = constraints.min_items.filter(|min| !exceeds(items.len() + 1, *min)) {
                causes.push(invalid(path, &items.len().into(), &format!("{path} in body should have at least {min} items")));
            }
            if constraints.unique_items {
                check_unique(items, path, causes, |item| Some(item.clone()));
            }
        }
        Value::Object(fields) => {
            if let Some(max) = constraints.max_properties.filter(|max| exceeds(fields.len(), *max)) {
                causes.push(too_many(path, fields.len(), max));
            }
            if let Some(min) = constraints.min_properties.filter(|min| !exceeds(fields.len() + 1, *min)) {
                causes.push(invalid(
                    path,
                    &fields.len().into(),
                    &format!("{path} in body should have at least {min} properties"),
                ));
            }
        }
        _ => {}
    }
    check_junctors(at, constraints, value, path, causes);
}

fn check_text(at: Cursor<'_>, constraints: &Constraints, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count();
    if let Some(max) = constraints.max_length.filter(|max| exceeds(length, *max)) {
        causes.push(too_long(path, max));
    }
    if let Some(min) = constraints.min_length.filter(|min| !exceeds(length + 1, *min)) {
        causes.push(invalid(path, value, &format!("{path} in body should be at least {min} chars long")));
    }
    if let Some(pattern) = constraints.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        causes.push(invalid(path, value, &format!("{path} in body should match '{}'", pattern.source)));
    }
    let format = constraints.format.as_deref().unwrap_or_default();
    if !matches!(at.node.r#type, Type::String | Type::Any) || formats::matches(format, text) {
        return;
    }
    // An empty time of a built-in kind is no time.
    if !(at.schema.builtin && text.is_empty()) {
        causes.push(invalid(path, value, &format!("{path} in body must be of type {format}: {}", show(value))));
    }
}

fn check_number(constraints: &Constraints, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(minimum) = constraints.minimum {
        if constraints.exclusive_minimum && number <= minimum {
            causes.push(invalid(path, value, &format!("{path} in body should be greater than {minimum}")));
        } else if number < minimum {
            causes.push(invalid(path, value, &format!("{path} in body should be greater than or equal to {minimum}")));
        }
    }
    if let Some(maximum) = constraints.maximum {
        if constraints.exclusive_maximum && number >= maximum {
            causes.push(invalid(path, value, &format!("{path} in body should be less than {maximum}")));
        } else if number > maximum {
            causes.push(invalid(path, value, &format!("{path} in body should be less than or equal to {maximum}")));
        }
    }
    if let Some(factor) = constraints.multiple_of.filter(|factor| *factor > 0.0 && (number / factor).fract() != 0.0) {
        causes.push(invalid(path, value, &format!("{path} in body should be a multiple of {factor}")));
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn check_junctors(at: Cursor<'_>, constraints: &Constraints, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let faults = |id: &usize| {
        let mut faults = Vec::new();
        check(at.to(*id), value, path, &mut faults);
        faults
    };
    let whole = |detail: String| Cause {
        reason: CauseReason::FieldValueInvalid,
        message: format!("Invalid value: \"\": {detail}"),
        field: if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() },
    };
    for branch in &constraints.all_of {
        causes.extend(faults(branch));
    }
    if !constraints.any_of.is_empty() {
        let mut branches: Vec<Vec<Cause>> = constraints.any_of.iter().map(faults).collect();
        if branches.iter().all(|faults| !faults.is_empty()) {
            causes.push(whole(format!("{path:?} must validate at least one schema (anyOf)")));
            branches.sort_by_key(Vec::len);
            causes.extend(branches.into_iter().next().unwrap_or_default());
        }
    }
    if !constraints.one_of.is_empty() {
        let mut branches: Vec<Vec<Cause>> = constraints.one_of.iter().map(faults).collect();
        let valid = branches.iter().filter(|faults| faults.is_empty()).count();
        if valid == 0 {
            causes.push(whole(format!("{path:?} must validate one and only one schema (oneOf). Found none valid")));
            branches.sort_by_key(Vec::len);
            causes.extend(branches.into_iter().next().unwrap_or_default());
        } else if valid > 1 {
            causes
                .push(whole(format!("{path:?} must validate one and only one schema (oneOf). Found {valid} valid alternatives")));
        }
    }
    if constraints.not.as_ref().is_some_and(|branch| faults(branch).is_empty()) {
        causes.push(whole(format!("{path:?} must not validate the schema (not)")));
    }
}

/// What type was expected, where the value's is another.
fn mismatch(expected: Type, value: &Value) -> Option<&'static str> {
    let (fits, name) = match expected {
        Type::Any => return None,
        Type::Object => (value.is_object(), "object"),
        Type::Array => (value.is_array(), "array"),
        Type::String => (value.is_string(), "string"),
        Type::Integer => (is_integer(value), "integer"),
        Type::Number => (value.is_number(), "number"),
        Type::Boolean => (value.is_boolean(), "boolean"),
        Type::IntOrString => (value.is_string() || is_integer(value), "integer,string"),
        Type::Quantity => (value.is_string() || value.is_number(), "string"),
    };
    (!fits).then_some(name)
}

/// JSON has one type of numbers: `1.0` is an integer.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() < 9e15)
}

/// JSON schema's name of a value's type.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn exceeds(count: usize, max: u64) -> bool {
    u64::try_from(count).is_ok_and(|count| count > max)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
