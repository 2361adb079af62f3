#![no_main]

meshlab_fuzz::fuzz!("istio_objects");
