#![no_main]

meshlab_fuzz::fuzz!("bearer_token");
