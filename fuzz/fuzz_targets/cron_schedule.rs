#![no_main]

meshlab_fuzz::fuzz!("cron_schedule");
