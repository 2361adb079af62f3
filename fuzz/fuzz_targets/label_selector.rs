//! `labelSelector` of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_objects::selector::LabelSelector;
use serde_json::json;

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches(Some(&json!({"app": "web", "tier": "front"})));
    }
});
