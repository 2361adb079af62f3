//! `x-kubernetes-validations`: CEL rules of custom resources, compiled when an object first meets them.

mod cost;

use std::sync::OnceLock;

use kube_cel::{CompiledSchema, Validator};
use serde_json::{Map, Value};

use super::validate::json_type;
use crate::{Cause, CauseReason};

/// The rules of a schema.
pub(super) struct Rules {
    /// The schema without what CEL has no use for. `None` where it has no rules.
    source: Option<Value>,
    compiled: OnceLock<CompiledSchema>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("any", &self.source.is_some()).finish_non_exhaustive()
    }
}

impl Rules {
    pub(super) fn none() -> Self {
        Self { source: None, compiled: OnceLock::new() }
    }

    /// The rules anywhere in a CRD's schema.
    pub(super) fn of(schema: &Value) -> Self {
        Self { source: has_rules(schema).then(|| reduced(schema)), compiled: OnceLock::new() }
    }

    fn compiled(&self) -> Option<&CompiledSchema> {
        self.source.as_ref().map(|source| self.compiled.get_or_init(|| kube_cel::compile_schema(source)))
    }

    /// The rules that do not compile: where they stand and what the compiler says.
    pub(super) fn compilation_errors(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let Some(compiled) = self.compiled() {
            collect_errors(compiled, "", &mut causes);
        }
        causes
    }

    pub(super) fn evaluate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Some(compiled) = self.compiled() else { return Vec::new() };
        if let Some(path) = cost::over_budget(compiled, new) {
            let shown = lookup(new, &path).map_or("object", json_type);
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            let field = if path.is_empty() { "<nil>".to_owned() } else { path };
            let message = format!("Invalid value: {shown:?}: {why}");
            return vec![Cause { reason: CauseReason::FieldValueInvalid, message, field }];
        }
        match Validator::new().validate_compiled(compiled, new, old) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_vec().into_iter().map(|error| cause(new, error)).collect(),
        }
    }
}

fn cause(object: &Value, error: kube_cel::ValidationError) -> Cause {
    let message = error.message;
    let shown = lookup(object, &error.field_path).map_or("object", json_type);
    let (reason, message) = match error.reason.as_deref() {
        Some("FieldValueForbidden") => (CauseReason::FieldValueForbidden, format!("Forbidden: {message}")),
        Some("FieldValueRequired") => (CauseReason::FieldValueRequired, format!("Required value: {message}")),
        Some("FieldValueDuplicate") => (CauseReason::FieldValueDuplicate, format!("Duplicate value: {shown:?}")),
        _ => (CauseReason::FieldValueInvalid, format!("Invalid value: {shown:?}: {message}")),
    };
    let field = if error.field_path.is_empty() { "<nil>".to_owned() } else { error.field_path };
    Cause { reason, message, field }
}

/// The value at a path such as `spec.http[0].match`.
fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).try_fold(object, |value, part| match part.strip_suffix(']') {
        Some(index) => value.get(index.parse::<usize>().ok()?),
        None => value.get(part),
    })
}

fn collect_errors(schema: &CompiledSchema, path: &str, causes: &mut Vec<Cause>) {
    for (index, rule) in schema.validations.iter().enumerate() {
        if let Err(error) = rule {
            causes.push(Cause {
                reason: CauseReason::FieldValueInvalid,
                message: format!("Invalid value: compilation failed: {error}"),
                field: format!("{path}x-kubernetes-validations[{index}].rule"),
            });
        }
    }
    let mut properties: Vec<_> = schema.properties.iter().collect();
    properties.sort_by_key(|(name, _)| name.as_str());
    for (name, property) in properties {
        collect_errors(property, &format!("{path}properties[{name}]."), causes);
    }
    for (name, nested) in [("items", &schema.items), ("additionalProperties", &schema.additional_properties)] {
        if let Some(nested) = nested {
            collect_errors(nested, &format!("{path}{name}."), causes);
        }
    }
}

/// Schemas directly below a schema, by the keyword they stand under.
fn has_rules(schema: &Value) -> bool {
    let Some(fields) = schema.as_object() else { return false };
    if fields.get("x-kubernetes-validations").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty()) {
        return true;
    }
    let values = |keyword: &str| fields.get(keyword).and_then(Value::as_object).is_some_and(|map| map.values().any(has_rules));
    let items = |keyword: &str| fields.get(keyword).and_then(Value::as_array).is_some_and(|list| list.iter().any(has_rules));
    values("properties")
        || ["items", "additionalProperties"].iter().any(|keyword| fields.get(*keyword).is_some_and(has_rules))
        || ["allOf", "anyOf", "oneOf"].iter().any(|keyword| items(keyword))
}

/// The schema without its prose, which is most of it.
fn reduced(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else { return schema.clone() };
    let kept =
        fields.iter().filter(|(keyword, _)| !matches!(keyword.as_str(), "description" | "title" | "example" | "externalDocs"));
    let reduced = kept.map(|(keyword, value)| {
        let value = match (keyword.as_str(), value) {
            ("properties", Value::Object(map)) => {
                Value::Object(map.iter().map(|(name, schema)| (name.clone(), reduced(schema))).collect::<Map<_, _>>())
            }
            ("items" | "additionalProperties" | "not", schema) => reduced(schema),
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => Value::Array(list.iter().map(reduced).collect()),
            (_, value) => value.clone(),
        };
        (keyword.clone(), value)
    });
    Value::Object(reduced.collect())
}
