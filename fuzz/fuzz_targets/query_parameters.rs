#![no_main]

meshlab_fuzz::fuzz!("query_parameters");
