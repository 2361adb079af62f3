//! A printer column's JSONPath, as CustomResourceDefinitions have it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_objects::table::jsonpath::JsonPath;
use serde_json::json;

fuzz_target!(|text: &str| {
    if let Some(path) = JsonPath::parse(text) {
        path.find(&json!({"spec": {"list": [{"a": 1}, {"a": 2}]}, "status": {"phase": "Running"}}));
    }
});
