//! Durations as the Istio API writes them: Go's notation, `1h`, `250ms`, `1m30s`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// A duration, kept in nanoseconds. Negative values parse (and are refused by validation), as in Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Duration(i64);

/// Why a duration could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration; write a number and a unit, as in 500ms, 1.5s or 1h")]
pub struct DurationError {
    text: String,
}

impl Duration {
    /// A whole number of milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Whole milliseconds, rounded down; a negative duration is 0.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0 / 1_000_000).unwrap_or(0)
    }

    /// Whole seconds, rounded down; a negative duration is 0.
    pub fn seconds(self) -> u64 {
        self.millis() / 1000
    }

    /// Nanoseconds.
    pub fn nanos(self) -> i64 {
        self.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let error = || DurationError { text: text.to_owned() };
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(error());
        }
        let mut total = 0f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
            let number: f64 = rest[..digits].parse().map_err(|_| error())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let unit = match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(error()),
            };
            total += number * unit;
            rest = &rest[end..];
        }
        if total > i64::MAX as f64 {
            return Err(error());
        }
        let nanos = total.round() as i64;
        Ok(Self(if negative { -nanos } else { nanos }))
    }
}

impl fmt::Display for Duration {
    /// Seconds with as many decimals as are needed: `1.5s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0 as f64 / 1e9)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let duration = DurationOrZero::deserialize(deserializer)?.0;
        if duration.0 < 1_000_000 {
            return Err(serde::de::Error::custom("a duration of at least 1ms is needed"));
        }
        Ok(duration)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-kubernetes-validations": [{ "message": "a duration of at least 1ms is needed", "rule": "duration(self) >= duration('1ms')" }],
        })
    }
}

/// A duration for which zero has a meaning, so that the schema does not ask for a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct DurationOrZero(pub Duration);

impl<'de> Deserialize<'de> for DurationOrZero {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for DurationOrZero {
    fn schema_name() -> Cow<'static, str> {
        "DurationOrZero".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_durations() {
        for (text, millis) in
            [("1s", 1000), ("1.5s", 1500), ("1m30s", 90_000), ("250ms", 250), ("1h", 3_600_000), ("0", 0), (".5s", 500)]
        {
            assert_eq!(text.parse::<Duration>().map(Duration::millis), Ok(millis), "{text}");
        }
        for text in ["", "5", "s", "1 s", "1x", "1s5", "-", "1..5s"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
