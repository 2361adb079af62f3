#![no_main]

meshlab_fuzz::fuzz!("json_patch");
