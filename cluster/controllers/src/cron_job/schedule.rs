//! Cron's way to write times. No input or output here.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// How far ahead a time is looked for; `30 2 29 2 *` may be eight years away.
const HORIZON_DAYS: usize = 366 * 9;

/// A parsed schedule: five sets of allowed values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day fits if either field fits, as soon as both are restricted.
    either_day: bool,
}

impl Schedule {
    /// Parses five fields, or one of `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {text:?}", fields.len()));
        };
        let any = |field: &str| field.starts_with('*') || field == "?";
        let mut weekday_set = set(weekdays, 0, 7, &DAY_NAMES)?;
        if weekday_set & (1 << 7) != 0 {
            weekday_set |= 1;
        }
        Ok(Self {
            minutes: set(minutes, 0, 59, &[])?,
            hours: set(hours, 0, 23, &[])?,
            days: set(days, 1, 31, &[])?,
            months: set(months, 1, 12, &MONTH_NAMES)?,
            weekdays: weekday_set,
            either_day: !any(days) && !any(weekdays),
        })
    }

    /// The first time after `after`.
    pub(crate) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = after.to_zoned(zone.clone()).checked_add(1.minute()).ok()?;
        let mut day = start.date();
        let mut from = (start.hour(), start.minute());
        for _ in 0..HORIZON_DAYS {
            if self.has_day(day) {
                for hour in (from.0..24).filter(|hour| has(self.hours, *hour)) {
                    let first = if hour == from.0 { from.1 } else { 0 };
                    for minute in (first..60).filter(|minute| has(self.minutes, *minute)) {
                        let time = day.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?;
                        // A time that a clock change skips is moved; it must still be in the future.
                        if time.timestamp() > after {
                            return Some(Zoned::timestamp(&time));
                        }
                    }
                }
            }
            day = day.tomorrow().ok()?;
            from = (0, 0);
        }
        None
    }

    fn has_day(&self, day: jiff::civil::Date) -> bool {
        let date = has(self.days, day.day());
        let weekday = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        has(self.months, day.month()) && if self.either_day { date || weekday } else { date && weekday }
    }
}

const DAY_NAMES: [(&str, u32); 7] = [("sun", 0), ("mon", 1), ("tue", 2), ("wed", 3), ("thu", 4), ("fri", 5), ("sat", 6)];
const MONTH_NAMES: [(&str, u32); 12] = [
    ("jan", 1),
    ("feb", 2),
    ("mar", 3),
    ("apr", 4),
    ("may", 5),
    ("jun", 6),
    ("jul", 7),
    ("aug", 8),
    ("sep", 9),
    ("oct", 10),
    ("nov", 11),
    ("dec", 12),
];

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| set & (1 << value) != 0)
}

/// The values of one field, as bits.
fn set(field: &str, least: u32, most: u32, names: &[(&str, u32)]) -> Result<u64, String> {
    let value = |text: &str| {
        let named = names.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        let value = named.or_else(|| text.parse().ok()).filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| format!("{text:?} is not a number from {least} to {most} in {field:?}"))
    };
    let mut bits = 0_u64;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: u32 = step.parse().ok().filter(|step| *step > 0).ok_or_else(|| format!("bad step in {field:?}"))?;
                (range, Some(step))
            }
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (least, most),
            Some((first, last)) => (value(first)?, value(last)?),
            None => {
                let first = value(range)?;
                (first, if step.is_some() { most } else { first })
            }
        };
        if first > last {
            return Err(format!("{range:?} begins after its end in {field:?}"));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(1);
        (first..=last).step_by(step).for_each(|value| bits |= 1 << value);
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        schedule.next(after.parse().unwrap(), &TimeZone::UTC).map_or("never".into(), |time| time.to_string())
    }

    #[test]
    fn the_next_time_of_usual_schedules() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:45:00Z", "2026-01-01T01:00:00Z"),
            ("0 9 * * mon-fri", "2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z"),
            ("@monthly", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"),
            ("30 2 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T02:30:00Z"),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(Schedule::parse("* * *").unwrap_err(), "expected exactly 5 fields, found 3: \"* * *\"");
        assert_eq!(Schedule::parse("61 * * * *").unwrap_err(), "\"61\" is not a number from 0 to 59 in \"61\"");
        assert!(Schedule::parse("*/0 * * * *").is_err());
        assert!(Schedule::parse("5-1 * * * *").is_err());
    }
}
