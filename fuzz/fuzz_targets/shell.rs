//! A script: commands, words, here-documents, braces, arithmetic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &str| {
    meshlab_images::fuzzing::shell(script);
});
