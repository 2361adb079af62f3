//! `traceparent`, `b3` and `x-b3-*`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    meshlab_proxy::fuzzing::trace_context(input);
});
