//! Which series are meant: `label="value"`, `!=`, `=~` and `!~`.

use regex::Regex;

/// One condition on a label.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    pub(crate) name: String,
    pub(crate) condition: Condition,
}

/// What the value has to be.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    MatchesNot(Regex),
}

/// A selector's conditions, all of which must hold.
pub(crate) type Matchers = Vec<Matcher>;

impl Matcher {
    /// A regular expression as Prometheus means it: of the whole value, the dot matches a line break.
    pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
        Regex::new(&format!("^(?s:{pattern})$")).map_err(|error| format!("error parsing regexp {pattern:?}: {error}"))
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match &self.condition {
            Condition::Equal(wanted) => value == wanted,
            Condition::NotEqual(unwanted) => value != unwanted,
            Condition::Matches(regex) => regex.is_match(value),
            Condition::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}
