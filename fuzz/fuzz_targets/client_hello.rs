//! The first bytes of a connection: TLS with its server name, HTTP, or neither.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    meshlab_proxy::fuzzing::first_bytes(input);
});
