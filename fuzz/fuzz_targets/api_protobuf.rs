#![no_main]

meshlab_fuzz::fuzz!("api_protobuf");
