#![no_main]

meshlab_fuzz::fuzz!("peer_certificate");
