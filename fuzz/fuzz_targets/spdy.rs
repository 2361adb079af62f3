#![no_main]

meshlab_fuzz::fuzz!("spdy");
