//! A strategic merge patch of a Deployment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::two_json;
use meshlab_objects::patch::strategic_merge;
use meshlab_objects::schema::Schema;

fuzz_target!(|input: &[u8]| {
    let Some((target, patch)) = two_json(input) else { return };
    let Some(schema) = Schema::builtin("apps", "v1", "Deployment") else { panic!("Deployments have a schema") };
    let _ = strategic_merge(&schema, &target, &patch);
});
