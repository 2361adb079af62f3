#![no_main]

meshlab_fuzz::fuzz!("check_file");
