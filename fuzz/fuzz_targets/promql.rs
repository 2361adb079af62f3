//! A query, evaluated at one time and over a range.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    meshlab_observe::fuzzing::promql(input);
});
