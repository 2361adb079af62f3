//! Bodies, patches, schemas and selectors, as the API server reads them.

use std::sync::Arc;

use meshlab_objects::apply::{Writer, apply, record_update};
use meshlab_objects::decode::{Encoding, decode};
use meshlab_objects::patch;
use meshlab_objects::quantity::Quantity;
use meshlab_objects::resource::GroupVersionKind;
use meshlab_objects::schema::Schema;
use meshlab_objects::selector::{FieldSelector, LabelSelector};
use meshlab_objects::table::jsonpath::JsonPath;
use serde_json::{Value, json};

/// Two JSON values, one behind the other; nothing if the input is not that.
fn two_json(input: &[u8]) -> Option<(Value, Value)> {
    let mut values = serde_json::Deserializer::from_slice(input).into_iter::<Value>();
    let first = values.next()?.ok()?;
    Some((first, values.next()?.ok()?))
}

/// A request's body as JSON.
pub(crate) fn json(body: &[u8]) {
    let _ = decode(Encoding::Json, body);
}

/// A request's body as protobuf.
pub(crate) fn protobuf(body: &[u8]) {
    let _ = decode(Encoding::Protobuf, body);
}

/// A request's body as YAML.
pub(crate) fn yaml(body: &[u8]) {
    let _ = decode(Encoding::Yaml, body);
}

/// A CEL rule of a CustomResourceDefinition, compiled and evaluated.
pub(crate) fn cel(rule: &str) {
    let schema = json!({
        "type": "object",
        "x-kubernetes-validations": [{"rule": rule, "message": "m"}],
        "properties": {
            "n": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": "array", "items": {"type": "string"}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    });
    let Ok(schema) = Schema::from_crd(&schema) else { return };
    let _ = schema.rule_errors();
    let object = json!({"n": 3, "s": "text", "l": ["a", "b"], "m": {"k": "v"}});
    let _ = schema.validate(&object, Some(&object));
}

/// A CustomResourceDefinition's schema, and an object of the kind: defaults, pruning, validation.
pub(crate) fn crd_schema(input: &[u8]) {
    let Some((schema, object)) = two_json(input) else { return };
    let Ok(schema) = Schema::from_crd(&schema) else { return };
    let _ = schema.rule_errors();
    let mut new = object.clone();
    schema.prune(&mut new);
    schema.apply_defaults(&mut new);
    let _ = schema.unknown_fields(&object);
    let _ = schema.validate(&new, Some(&object));
}

/// `fieldSelector` of a request.
pub(crate) fn field_selector(text: &str) {
    let kind = GroupVersionKind::new("", "v1", "Pod");
    let selectable = ["metadata.name".to_owned(), "spec.nodeName".to_owned()];
    if let Ok(selector) = FieldSelector::parse(&kind, &selectable, text) {
        selector.matches(&json!({"metadata": {"name": "web"}, "spec": {"nodeName": "node"}}));
    }
}

/// `labelSelector` of a request.
pub(crate) fn label_selector(text: &str) {
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches(Some(&json!({"app": "web", "tier": "front"})));
    }
}

/// A JSON patch (RFC 6902) of an object.
pub(crate) fn json_patch(input: &[u8]) {
    let Some((target, patch)) = two_json(input) else { return };
    let _ = patch::json_patch(&target, &patch);
}

/// A merge patch (RFC 7386) of an object.
pub(crate) fn merge_patch(input: &[u8]) {
    let Some((target, patch)) = two_json(input) else { return };
    let _ = patch::merge_patch(&target, &patch);
}

fn deployments() -> Arc<Schema> {
    Schema::builtin("apps", "v1", "Deployment").expect("Deployments have a schema")
}

/// A strategic merge patch of a Deployment.
pub(crate) fn strategic_merge_patch(input: &[u8]) {
    let Some((target, patch)) = two_json(input) else { return };
    let _ = patch::strategic_merge(&deployments(), &target, &patch);
}

/// Server-side apply of a Deployment, with whatever `managedFields` the live object claims.
pub(crate) fn server_side_apply(input: &[u8]) {
    let Some((live, config)) = two_json(input) else { return };
    let writer = Writer { manager: "fuzz", subresource: "", now: jiff::Timestamp::UNIX_EPOCH };
    let _ = apply(&deployments(), Some(&live), &config, writer, true);
    let mut new = config;
    record_update(&deployments(), Some(&live), &mut new, writer);
}

/// A printer column's JSONPath, as CustomResourceDefinitions have it.
pub(crate) fn printer_column(text: &str) {
    if let Some(path) = JsonPath::parse(text) {
        path.find(&json!({"spec": {"list": [{"a": 1}, {"a": 2}]}, "status": {"phase": "Running"}}));
    }
}

/// A quantity (`100m`, `1.5Gi`): what is stored can be read again.
pub(crate) fn quantity(text: &str) {
    if let Some(quantity) = Quantity::parse(text) {
        let canonical = quantity.canonical();
        let again = Quantity::parse(&canonical);
        assert!(again.is_some(), "{text:?} becomes {canonical:?}, which is none");
    }
}
