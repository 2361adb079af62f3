#![no_main]

meshlab_fuzz::fuzz!("otlp_grpc");
