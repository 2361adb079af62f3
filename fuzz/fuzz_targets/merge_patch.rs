//! A merge patch (RFC 7386) of an object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::two_json;
use meshlab_objects::patch::merge_patch;

fuzz_target!(|input: &[u8]| {
    let Some((target, patch)) = two_json(input) else { return };
    let _ = merge_patch(&target, &patch);
});
