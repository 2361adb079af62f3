//! Server-side apply of a Deployment, with whatever `managedFields` the live object claims.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::two_json;
use meshlab_objects::apply::{Writer, apply, record_update};
use meshlab_objects::schema::Schema;

fuzz_target!(|input: &[u8]| {
    let Some((live, config)) = two_json(input) else { return };
    let Some(schema) = Schema::builtin("apps", "v1", "Deployment") else { panic!("Deployments have a schema") };
    let writer = Writer { manager: "fuzz", subresource: "", now: jiff::Timestamp::UNIX_EPOCH };
    let _ = apply(&schema, Some(&live), &config, writer, true);
    let mut new = config;
    record_update(&schema, Some(&live), &mut new, writer);
});
