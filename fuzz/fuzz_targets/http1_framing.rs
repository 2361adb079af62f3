#![no_main]

meshlab_fuzz::fuzz!("http1_framing");
