//! A JSON patch (RFC 6902) of an object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::two_json;
use meshlab_objects::patch::json_patch;

fuzz_target!(|input: &[u8]| {
    let Some((target, patch)) = two_json(input) else { return };
    let _ = json_patch(&target, &patch);
});
