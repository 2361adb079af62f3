//! A whole connection to a proxy: sniffing, HTTP/1 heads and bodies, HTTP/2 frames and floods.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::proxy;

fuzz_target!(|bytes: &[u8]| {
    proxy::connection(bytes);
});
