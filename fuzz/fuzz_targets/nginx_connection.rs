#![no_main]

meshlab_fuzz::fuzz!("nginx_connection");
