//! Spans as Zipkin's JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    meshlab_observe::fuzzing::zipkin(input);
});
