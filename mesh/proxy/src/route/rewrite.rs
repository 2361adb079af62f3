//! Rewriting of paths (fact 14).

use meshlab_proxy_config::PathRewrite;
use regex::Regex;

use super::matcher::PathMatcher;
use crate::matching::{MatchError, partial_regex};

/// A compiled [`PathRewrite`].
pub(crate) enum Rewrite {
    Matched(String),
    Full(String),
    Regex { pattern: Regex, substitution: String },
}

impl Rewrite {
    pub(crate) fn new(config: &PathRewrite) -> Result<Self, MatchError> {
        Ok(match config {
            PathRewrite::Matched(replacement) => Self::Matched(replacement.clone()),
            PathRewrite::Full(path) => Self::Full(path.clone()),
            PathRewrite::Regex { pattern, substitution } => {
                Self::Regex { pattern: partial_regex(pattern)?, substitution: expand_references(substitution) }
            }
        })
    }

    /// The new path and query. The query is kept, unless a full path brings its own.
    pub(crate) fn apply(&self, matcher: &PathMatcher, path_and_query: &str) -> String {
        let (path, query) = match path_and_query.find('?') {
            Some(at) => path_and_query.split_at(at),
            None => (path_and_query, ""),
        };
        let new = match self {
            Self::Full(new) if new.contains('?') => return new.clone(),
            Self::Full(new) => new.clone(),
            Self::Regex { pattern, substitution } => pattern.replace_all(path, substitution.as_str()).into_owned(),
            Self::Matched(replacement) => {
                let rest = &path[matcher.matched_length(path).min(path.len())..];
                match matcher {
                    // Whole segments are replaced: neither a doubled slash nor an empty path may come of it.
                    PathMatcher::SegmentPrefix(_) => {
                        let joined = format!("{}{rest}", replacement.trim_end_matches('/'));
                        if joined.is_empty() { "/".to_owned() } else { joined }
                    }
                    _ => format!("{replacement}{rest}"),
                }
            }
        };
        format!("{new}{query}")
    }
}

/// RE2's `\1` as the regex crate's `${1}`.
fn expand_references(substitution: &str) -> String {
    let mut expanded = String::with_capacity(substitution.len());
    let mut characters = substitution.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => expanded.push_str("$$"),
            '\\' => match characters.next() {
                Some(digit @ '0'..='9') => expanded.push_str(&format!("${{{digit}}}")),
                Some(other) => expanded.push(other),
                None => expanded.push('\\'),
            },
            other => expanded.push(other),
        }
    }
    expanded
}
