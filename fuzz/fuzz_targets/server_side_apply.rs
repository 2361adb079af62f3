#![no_main]

meshlab_fuzz::fuzz!("server_side_apply");
