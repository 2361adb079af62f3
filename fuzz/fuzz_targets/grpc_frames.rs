//! The messages of a gRPC body, counted however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    meshlab_proxy::fuzzing::grpc_frames(input);
});
