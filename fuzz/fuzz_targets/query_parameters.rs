//! The query string of every route of Prometheus' and of Jaeger's API: never a 500.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    meshlab_observe::fuzzing::query_parameters(input);
});
