#![no_main]

meshlab_fuzz::fuzz!("discovery_message");
