//! A quantity (`100m`, `1.5Gi`).
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshlab_objects::quantity::Quantity;

fuzz_target!(|text: &str| {
    if let Some(quantity) = Quantity::parse(text) {
        let canonical = quantity.canonical();
        let again = Quantity::parse(&canonical);
        assert!(again.is_some(), "{text:?} becomes {canonical:?}, which is none");
    }
});
