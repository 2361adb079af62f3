//! How a check ends.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::{ObjectEdit, Text};

/// The four ways a check can end. What could not be measured is an error, never a pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not hold.
    #[serde(rename_all = "camelCase")]
    Fail {
        /// Where expectation and observation part, one line each.
        mismatches: Vec<Text>,
        /// What was looked at: an object with namespace and name, a request, a query.
        about: Text,
        /// What must be seen; null if it is a secret, and for splits.
        expected: Value,
        /// What was seen, cut down to what the expectation speaks of.
        seen: Value,
        /// The smallest edit that would pass, where that can be known.
        #[serde(skip_serializing_if = "Option::is_none")]
        edit: Option<Box<ObjectEdit>>,
        /// Misconceptions that fit what was seen: id and hint.
        hints: Vec<(String, Text)>,
    },
    /// Not looked at, because a check that it needs did not pass.
    Skipped {
        /// That check.
        because: String,
    },
    /// Could not be measured.
    Error {
        /// Why.
        message: Text,
        /// How to mend it.
        hint: Option<Text>,
    },
}

impl Verdict {
    /// A failure of which no more is known than where it parts from what was expected.
    pub fn fail(mismatches: Vec<Text>) -> Self {
        let (expected, seen) = (Value::Null, Value::Null);
        Self::Fail { mismatches, about: Text::same(""), expected, seen, edit: None, hints: Vec::new() }
    }
}

/// A check's verdict, with what a report needs of the check.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// Check id.
    pub id: String,
    /// Step it belongs to.
    pub step: String,
    /// Title.
    pub title: Text,
    /// Why it matters.
    pub why: Text,
    /// What to do when it fails.
    pub fix: Text,
    /// Weight.
    pub weight: u32,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took, in milliseconds.
    #[serde(rename = "durationMs", serialize_with = "milliseconds")]
    pub duration: Duration,
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// All results of one run, in the lab's order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the lab.
    pub lab: String,
    /// One for each check.
    pub results: Vec<CheckResult>,
}

/// How many checks ended in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Could not be measured.
    pub errors: usize,
}

impl Report {
    /// Counts.
    pub fn tally(&self) -> Tally {
        self.results.iter().fold(Tally::default(), |mut tally, result| {
            match result.verdict {
                Verdict::Pass => tally.passed += 1,
                Verdict::Fail { .. } => tally.failed += 1,
                Verdict::Skipped { .. } => tally.skipped += 1,
                Verdict::Error { .. } => tally.errors += 1,
            }
            tally
        })
    }

    /// Points reached and points that could be measured. An error is in neither: it is said beside the score.
    pub fn score(&self) -> (u32, u32) {
        self.results.iter().fold((0, 0), |(reached, possible), result| match result.verdict {
            Verdict::Pass => (reached + result.weight, possible + result.weight),
            Verdict::Fail { .. } | Verdict::Skipped { .. } => (reached, possible + result.weight),
            Verdict::Error { .. } => (reached, possible),
        })
    }

    /// True when every check passed, and there was at least one.
    pub fn all_passed(&self) -> bool {
        !self.results.is_empty() && self.results.iter().all(|result| result.verdict == Verdict::Pass)
    }
}
