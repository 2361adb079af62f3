#![no_main]

meshlab_fuzz::fuzz!("redirect_annotations");
