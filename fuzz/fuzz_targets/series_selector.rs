#![no_main]

meshlab_fuzz::fuzz!("series_selector");
