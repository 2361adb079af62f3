//! A request's body as protobuf, as the API server reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_objects::decode::{Encoding, decode};

fuzz_target!(|body: &[u8]| {
    let _ = decode(Encoding::Protobuf, body);
});
