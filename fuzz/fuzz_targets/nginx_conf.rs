//! nginx's configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    meshlab_images::fuzzing::nginx_conf(text);
});
