#![no_main]

meshlab_fuzz::fuzz!("label_selector");
