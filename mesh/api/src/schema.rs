//! From schemars' JSON Schema to the structural OpenAPI v3 schemas that a CustomResourceDefinition takes.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// CEL rules, as `(message, rule)`, for `x-kubernetes-validations`.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(message, rule)| json!({ "message": message, "rule": rule })).collect()
}

/// The same for the items of a list.
pub(crate) fn item_rules(list: &'static [(&'static str, &'static str)]) -> impl schemars::transform::Transform {
    move |schema: &mut schemars::Schema| {
        if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
            items.insert("x-kubernetes-validations".into(), rules(list));
        }
    }
}

/// The property `alias` is the same as `field`.
pub(crate) fn alias(field: &'static str, alias: &'static str) -> impl schemars::transform::Transform {
    move |schema: &mut schemars::Schema| {
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut)
            && let Some(property) = properties.get(field).cloned()
        {
            properties.insert(alias.into(), property);
        }
    }
}

/// At most one of `fields` may be present.
pub(crate) fn at_most_one(fields: &[&str]) -> Value {
    let required: Vec<Value> = fields.iter().map(|field| json!({ "required": [field] })).collect();
    let mut branches = vec![json!({ "not": { "anyOf": required } })];
    branches.extend(required);
    Value::Array(branches)
}

/// The structural schema of `T`.
pub(crate) fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms = Vec::new();
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("title");
    }
    rewrite(&mut schema);
    schema
}

fn rewrite(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    unwrap_option(object);
    // `deny_unknown_fields`, which the API server does by pruning, and values a default would fill in for the user.
    for key in ["title", "default", "$schema"] {
        object.remove(key);
    }
    if object.get("additionalProperties") == Some(&Value::Bool(false)) {
        object.remove("additionalProperties");
    }
    collapse_enum(object);
    nullable_wrapper(object);
    plain_numbers(object);
    for key in ["items", "additionalProperties"] {
        if let Some(child) = object.get_mut(key) {
            rewrite(child);
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(rewrite);
    }
}

/// `anyOf: [T, null]` becomes `T`; absence already says what null would.
fn unwrap_option(object: &mut Map<String, Value>) {
    let Some(branches) = object.get("anyOf").and_then(Value::as_array) else { return };
    let null = json!({ "type": "null" });
    if branches.len() != 2 || !branches.contains(&null) {
        return;
    }
    let Some(Value::Object(inner)) = branches.iter().find(|branch| **branch != null).cloned() else { return };
    object.remove("anyOf");
    for (key, value) in inner {
        object.entry(key).or_insert(value);
    }
}

/// Documented unit variants come as `oneOf` constants; a structural schema has a plain `enum`.
fn collapse_enum(object: &mut Map<String, Value>) {
    let constants = object.get("oneOf").and_then(Value::as_array).and_then(|branches| {
        let constant = |branch: &Value| match (branch.get("const"), branch.get("enum").and_then(Value::as_array)) {
            (Some(constant), _) => Some(vec![constant.clone()]),
            (None, Some(values)) => Some(values.clone()),
            (None, None) => None,
        };
        branches.iter().map(constant).collect::<Option<Vec<_>>>()
    });
    if let Some(constants) = constants {
        object.remove("oneOf");
        object.insert("type".into(), "string".into());
        object.insert("enum".into(), constants.into_iter().flatten().collect());
    }
    if let Some(values) = object.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
}

/// Optional scalars are protobuf wrappers in Istio's API, where null is allowed.
fn nullable_wrapper(object: &mut Map<String, Value>) {
    let Some(types) = object.get("type").and_then(Value::as_array) else { return };
    let Some(kind) = types.iter().find(|kind| *kind != "null").cloned() else { return };
    if kind == "boolean" || kind == "integer" || kind == "number" {
        object.entry("nullable").or_insert(true.into());
    }
    object.insert("type".into(), kind);
    if object.get("nullable") == Some(&Value::Bool(false)) {
        object.remove("nullable");
    }
}

/// Unsigned formats are unknown to Kubernetes, which wants limits instead.
fn plain_numbers(object: &mut Map<String, Value>) {
    match object.get("format").and_then(Value::as_str) {
        Some("uint32") => {
            object.remove("format");
            object.entry("minimum").or_insert(0.into());
            object.entry("maximum").or_insert(u32::MAX.into());
        }
        Some("uint64") => {
            object.remove("format");
            object.entry("minimum").or_insert(0.into());
        }
        _ => {}
    }
}
