#![no_main]

meshlab_fuzz::fuzz!("trace_context");
