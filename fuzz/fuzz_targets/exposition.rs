//! A target's metrics in Prometheus' text format, appended to a store.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    meshlab_observe::fuzzing::exposition(input);
});
