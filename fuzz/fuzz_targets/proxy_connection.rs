#![no_main]

meshlab_fuzz::fuzz!("proxy_connection");
