#![no_main]

meshlab_fuzz::fuzz!("crd_schema");
