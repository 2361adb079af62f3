//! A CustomResourceDefinition's schema, and an object of the kind: defaults, pruning, validation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::two_json;
use meshlab_objects::schema::Schema;

fuzz_target!(|input: &[u8]| {
    let Some((schema, object)) = two_json(input) else { return };
    let Ok(schema) = Schema::from_crd(&schema) else { return };
    let _ = schema.rule_errors();
    let mut new = object.clone();
    schema.prune(&mut new);
    schema.apply_defaults(&mut new);
    let _ = schema.unknown_fields(&object);
    let _ = schema.validate(&new, Some(&object));
});
