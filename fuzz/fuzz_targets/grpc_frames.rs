#![no_main]

meshlab_fuzz::fuzz!("grpc_frames");
