#![no_main]

meshlab_fuzz::fuzz!("field_selector");
