//! What follows HTTP/1 requests through a connection. However the bytes are cut, the verdict is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    meshlab_proxy::fuzzing::http1_framing(input);
});
