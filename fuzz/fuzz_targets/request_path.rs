#![no_main]

meshlab_fuzz::fuzz!("request_path");
