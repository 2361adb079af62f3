#![no_main]

meshlab_fuzz::fuzz!("tool_arguments");
