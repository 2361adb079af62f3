//! A token in a request's header and query.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    meshlab_proxy::fuzzing::jwt(input);
});
