//! `match[]`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    meshlab_observe::fuzzing::series_selector(input);
});
