#![no_main]

meshlab_fuzz::fuzz!("quantity");
