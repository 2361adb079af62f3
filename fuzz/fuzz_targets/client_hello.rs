#![no_main]

meshlab_fuzz::fuzz!("client_hello");
