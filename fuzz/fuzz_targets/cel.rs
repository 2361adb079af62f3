//! A CEL rule of a CustomResourceDefinition, compiled and evaluated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_objects::schema::Schema;
use serde_json::json;

fuzz_target!(|rule: &str| {
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
});
