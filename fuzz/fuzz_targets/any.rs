//! The target that `MESHLAB_FUZZ_TARGET` names: one binary to build where all of them are to be run.
#![no_main]

meshlab_fuzz::fuzz!(std::env::var("MESHLAB_FUZZ_TARGET").expect("MESHLAB_FUZZ_TARGET names a target"));
