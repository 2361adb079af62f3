//! A SPDY/3.1 connection: frames, and the header blocks in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_streams::spdy::decode_all;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_all(bytes);
});
