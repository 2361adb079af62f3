//! `continue` of a list, which a client hands back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_fuzz::api_server;

fuzz_target!(|token: &[u8]| {
    let token: String = token.iter().map(|byte| format!("%{byte:02X}")).collect();
    let answer = api_server::ask("GET", &format!("/api/v1/configmaps?limit=1&continue={token}"), "", b"");
    if let Some((code, message)) = answer {
        assert_ne!(code, 500, "{message}");
    }
});
