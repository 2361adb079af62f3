//! Matching of strings, headers and shares, as every other part uses it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a string is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// The whole string matches this RE2 expression.
    Regex(String),
    /// Present and not empty (Istio's `*`).
    Present,
}

/// One condition on a header, a query parameter or a claim. A missing value only matches when `invert` says so,
/// or when `missing_as_empty` is set and the empty string matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueMatch {
    /// Header (lower case), parameter or claim path.
    pub name: String,
    /// What its value must be; `None` only asks that it is there.
    pub value: Option<StringMatch>,
    /// The condition is that it does *not* match.
    #[serde(default)]
    pub invert: bool,
    /// Treat a missing value as empty before matching (Istio's `withoutHeaders`).
    #[serde(default)]
    pub missing_as_empty: bool,
    /// Compare without regard to ASCII case.
    #[serde(default)]
    pub ignore_case: bool,
}

/// A share of requests in millionths: 500_000 is one half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fraction(pub u32);

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// From a percentage as the Istio API has it, 0.0 to 100.0; kept to a ten-thousandth of a percent.
    pub fn from_percent(percent: f64) -> Self {
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }
}

/// Changes to a set of headers: all of `remove` first, then `set` (overwrite), then `add` (append), as Envoy does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderOperations {
    /// Replace or create.
    pub set: BTreeMap<String, String>,
    /// Append another value.
    pub add: BTreeMap<String, String>,
    /// Delete every value.
    pub remove: Vec<String>,
}

impl HeaderOperations {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}
