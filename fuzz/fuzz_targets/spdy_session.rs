//! A SPDY/3.1 connection as port-forward serves it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::upgraded;

fuzz_target!(|bytes: &[u8]| {
    upgraded::port_forward("SPDY/3.1", bytes);
});
