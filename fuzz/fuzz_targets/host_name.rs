#![no_main]

meshlab_fuzz::fuzz!("host_name");
