#![no_main]

meshlab_fuzz::fuzz!("jwt");
