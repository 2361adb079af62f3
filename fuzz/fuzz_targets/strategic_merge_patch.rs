#![no_main]

meshlab_fuzz::fuzz!("strategic_merge_patch");
