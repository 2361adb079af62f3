//! The parsers of what a learner writes, for the fuzz targets in `fuzz/`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cron_job::schedule::Schedule;

/// A CronJob's schedule, and a time zone on the second line.
///
/// # Panics
/// The next time is not later than the one before.
pub fn cron_schedule(text: &str) {
    let (schedule, zone) = text.split_once('\n').unwrap_or((text, "UTC"));
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let Ok(schedule) = Schedule::parse(schedule) else { return };
    let mut time = Timestamp::UNIX_EPOCH;
    for _ in 0..20 {
        let Some(next) = schedule.next(time, &zone) else { return };
        assert!(next > time, "{next} comes after {time}");
        time = next;
    }
}
