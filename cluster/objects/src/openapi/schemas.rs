//! The schemas of a document.

use serde_json::{Map, Value, json};

use super::Published;
use crate::{
    resource::ResourceDefinition,
    schema::{
        facts::{FieldFacts, field_facts, type_facts},
        json_schema,
    },
};

const REFERENCE: &str = "#/components/schemas/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. More info: \
                           https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Cannot be updated. In CamelCase. \
                    More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
                        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The name of a kind's schema: that of its Go type, or for custom resources the group reversed.
pub(super) fn name(group: &str, version: &str, definition: &ResourceDefinition) -> String {
    builtin_name(group, version, &definition.kind).unwrap_or_else(|| custom_name(group, version, &definition.kind))
}

fn builtin_name(group: &str, version: &str, kind: &str) -> Option<String> {
    let package = match group {
        "" => "api.core",
        "apiextensions.k8s.io" => "apiextensions-apiserver.pkg.apis.apiextensions",
        _ => "",
    };
    let package = if package.is_empty() { format!("api.{}", group.split('.').next()?) } else { package.to_owned() };
    let name = format!("io.k8s.{package}.{version}.{kind}");
    type_facts(&name).is_some().then_some(name)
}

fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.extend([version, kind]);
    parts.join(".")
}

/// Adds a kind's schema, its list's, and those of all types they use.
pub(super) fn add(group: &str, version: &str, kind: &Published<'_>, schemas: &mut Map<String, Value>) {
    let definition = kind.definition;
    let gvk = |kind: &str| json!([{"group": group, "version": version, "kind": kind}]);
    let (name, mut schema) = match kind.crd_schema {
        Some(crd) => {
            add_object_meta(schemas);
            (custom_name(group, version, &definition.kind), custom(crd))
        }
        None => {
            let Some((name, definitions)) = json_schema(group, version, &definition.kind) else { return };
            for (name, schema) in &definitions {
                if !schemas.contains_key(name) {
                    schemas.insert(name.clone(), builtin_type(name, schema));
                }
            }
            let schema = schemas.get(&name).cloned().unwrap_or_default();
            (name, schema)
        }
    };
    schema["x-kubernetes-group-version-kind"] = gvk(&definition.kind);
    schemas.insert(name.clone(), schema);
    if !definition.list_kind.is_empty() {
        let list = json!({
            "type": "object",
            "description": format!("{} is a list of {}", definition.list_kind, definition.kind),
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": API_VERSION},
                "kind": {"type": "string", "description": KIND},
                "metadata": {"type": "object", "description": "Standard list metadata."},
                "items": {"type": "array", "description": format!("List of {}.", definition.plural),
                    "items": {"allOf": [{"$ref": format!("{REFERENCE}{name}")}], "default": {}}},
            },
            "x-kubernetes-group-version-kind": gvk(&definition.list_kind),
        });
        let list_name = name
            .strip_suffix(&definition.kind)
            .map_or_else(|| format!("{name}List"), |package| package.to_owned() + &definition.list_kind);
        schemas.insert(list_name, list);
    }
}

fn add_object_meta(schemas: &mut Map<String, Value>) {
    if schemas.contains_key(OBJECT_META) {
        return;
    }
    // Any kind has it among its types; this one has few others.
    let Some((_, definitions)) = json_schema("coordination.k8s.io", "v1", "Lease") else { return };
    for (name, schema) in definitions.iter().filter(|(name, _)| name.contains(".apis.meta.")) {
        schemas.insert(name.clone(), builtin_type(name, schema));
    }
}

/// A custom resource's own schema, with what every object has.
fn custom(crd: &Value) -> Value {
    let mut schema = crd.clone();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let mut properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    properties.insert("apiVersion".to_owned(), json!({"type": "string", "description": API_VERSION}));
    properties.insert("kind".to_owned(), json!({"type": "string", "description": KIND}));
    properties.insert(
        "metadata".to_owned(),
        json!({"allOf": [{"$ref": format!("{REFERENCE}{OBJECT_META}")}], "description": METADATA}),
    );
    schema["properties"] = Value::Object(properties);
    schema
}

/// A type of k8s-openapi in the form Kubernetes publishes.
fn builtin_type(type_name: &str, schema: &Value) -> Value {
    let short = type_name.rsplit('.').next().unwrap_or_default();
    let description = schema.get("description").cloned().unwrap_or_default();
    match short {
        "IntOrString" => {
            json!({"description": description, "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        "Quantity" => json!({"description": description, "oneOf": [{"type": "string"}, {"type": "number"}]}),
        _ if short.starts_with("JSONSchemaPropsOr") || short == "JSON" => json!({"description": description}),
        _ => {
            let mut published = published(schema);
            if let Some(properties) = published.get_mut("properties").and_then(Value::as_object_mut) {
                for (name, property) in properties {
                    if let Some(facts) = field_facts(type_name, name) {
                        add_facts(facts, property);
                    }
                }
            }
            // k8s-openapi wants metadata everywhere; Kubernetes' own documents do not.
            if let Some(required) = published.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| name != "metadata");
            }
            if type_facts(type_name).is_some_and(|facts| facts.atomic) {
                published["x-kubernetes-map-type"] = "atomic".into();
            }
            published
        }
    }
}

fn add_facts(facts: &FieldFacts, property: &mut Value) {
    let mut say = |name: &str, value: Value| property[format!("x-kubernetes-{name}")] = value;
    if !facts.list_type.is_empty() {
        say("list-type", facts.list_type.into());
    }
    if !facts.list_map_keys.is_empty() {
        say("list-map-keys", facts.list_map_keys.clone().into());
    }
    if facts.atomic {
        say("map-type", "atomic".into());
    }
    if !facts.patch_strategy.is_empty() {
        say("patch-strategy", facts.patch_strategy.into());
    }
    if let Some(key) = facts.merge_key {
        say("patch-merge-key", key.into());
    }
    if let Some(default) = facts.default {
        property["default"] = default.into();
    }
}

/// References point into the document, and stand in `allOf` where something stands beside them: OpenAPI 3.0 ignores siblings of `$ref`.
fn published(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
        let reference = json!({"$ref": format!("{REFERENCE}{}", reference.rsplit('/').next().unwrap_or_default())});
        let mut beside: Map<String, Value> =
            fields.iter().filter(|(name, _)| *name != "$ref").map(|(n, v)| (n.clone(), v.clone())).collect();
        beside.insert("allOf".to_owned(), json!([reference]));
        return Value::Object(beside);
    }
    let field = |(name, value): (&String, &Value)| {
        let value = match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                Value::Object(properties.iter().map(|(name, schema)| (name.clone(), published(schema))).collect())
            }
            ("items" | "additionalProperties", schema) => published(schema),
            (_, value) => value.clone(),
        };
        (name.clone(), value)
    };
    Value::Object(fields.iter().map(field).collect())
}
