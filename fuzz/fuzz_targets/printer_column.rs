#![no_main]

meshlab_fuzz::fuzz!("printer_column");
