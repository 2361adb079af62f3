//! A WebSocket connection as exec and port-forward serve it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::upgraded;

fuzz_target!(|bytes: &[u8]| {
    upgraded::exec("v5.channel.k8s.io", bytes);
    upgraded::exec("base64.channel.k8s.io", bytes);
    upgraded::port_forward("websocket", bytes);
});
