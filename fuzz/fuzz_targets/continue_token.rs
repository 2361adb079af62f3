#![no_main]

meshlab_fuzz::fuzz!("continue_token");
