//! An access log's format and filter.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    meshlab_proxy::fuzzing::access_log_format(input);
});
