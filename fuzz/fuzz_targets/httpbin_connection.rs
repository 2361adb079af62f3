#![no_main]

meshlab_fuzz::fuzz!("httpbin_connection");
