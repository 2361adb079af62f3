//! A whole request to the API server: never a 500. The first line is `METHOD path?query content-type`, the rest the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::api_server;

fuzz_target!(|input: &[u8]| {
    let Some((line, body)) = input.iter().position(|byte| *byte == b'\n').map(|end| (&input[..end], &input[end + 1..])) else {
        return;
    };
    let Ok(line) = std::str::from_utf8(line) else { return };
    let mut words = line.splitn(3, ' ');
    let (Some(method), Some(uri)) = (words.next(), words.next()) else { return };
    let Some((code, message)) = api_server::ask(method, uri, words.next().unwrap_or_default(), body) else { return };
    assert_ne!(code, 500, "{line}: {message}");
});
