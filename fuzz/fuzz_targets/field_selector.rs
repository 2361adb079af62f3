//! `fieldSelector` of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_objects::resource::GroupVersionKind;
use meshlab_objects::selector::FieldSelector;
use serde_json::json;

fuzz_target!(|text: &str| {
    let kind = GroupVersionKind::new("", "v1", "Pod");
    let selectable = ["metadata.name".to_owned(), "spec.nodeName".to_owned()];
    if let Ok(selector) = FieldSelector::parse(&kind, &selectable, text) {
        selector.matches(&json!({"metadata": {"name": "web"}, "spec": {"nodeName": "node"}}));
    }
});
