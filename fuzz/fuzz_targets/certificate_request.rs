#![no_main]

meshlab_fuzz::fuzz!("certificate_request");
