//! A request's path, normalized as each level of `pathNormalization` says.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    meshlab_proxy::fuzzing::request_path(input);
});
