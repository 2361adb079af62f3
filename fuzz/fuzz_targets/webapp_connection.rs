#![no_main]

meshlab_fuzz::fuzz!("webapp_connection");
