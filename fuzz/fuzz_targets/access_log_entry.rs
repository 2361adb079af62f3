#![no_main]

meshlab_fuzz::fuzz!("access_log_entry");
