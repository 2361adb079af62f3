//! What a peer says of itself in `x-envoy-peer-metadata`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    meshlab_proxy::fuzzing::peer_metadata(input);
});
