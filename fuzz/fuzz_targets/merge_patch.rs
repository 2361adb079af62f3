#![no_main]

meshlab_fuzz::fuzz!("merge_patch");
