//! Compiled matchers: regular expressions are built once, when configuration is applied.

use http::{HeaderMap, HeaderName, Method};
use meshlab_proxy_config::{Fraction, StringMatch, ValueMatch};
use rand::Rng;
use regex::Regex;

/// Why a matcher could not be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MatchError {
    #[error("regular expression {pattern:?} is not valid RE2: {reason}")]
    Regex { pattern: String, reason: String },
    #[error("{0:?} is not a valid header name")]
    HeaderName(String),
    #[error("{0:?} is not a valid header value")]
    HeaderValue(String),
}

/// A compiled [`StringMatch`].
#[derive(Debug, Clone)]
pub(crate) enum StringMatcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Regex(Regex),
    Present,
}

/// Compiles an expression that must match a whole string.
pub(crate) fn full_regex(pattern: &str) -> Result<Regex, MatchError> {
    build_regex(&format!("^(?:{pattern})$"), pattern)
}

/// Compiles an expression that may match anywhere.
pub(crate) fn partial_regex(pattern: &str) -> Result<Regex, MatchError> {
    build_regex(pattern, pattern)
}

fn build_regex(source: &str, pattern: &str) -> Result<Regex, MatchError> {
    // A bound on the compiled size, as Envoy bounds RE2's program.
    regex::RegexBuilder::new(source)
        .size_limit(1 << 20)
        .dfa_size_limit(1 << 20)
        .build()
        .map_err(|error| MatchError::Regex { pattern: pattern.to_owned(), reason: error.to_string() })
}

impl StringMatcher {
    pub(crate) fn new(config: &StringMatch) -> Result<Self, MatchError> {
        Ok(match config {
            StringMatch::Exact(value) => Self::Exact(value.clone()),
            StringMatch::Prefix(value) => Self::Prefix(value.clone()),
            StringMatch::Suffix(value) => Self::Suffix(value.clone()),
            StringMatch::Regex(pattern) => Self::Regex(full_regex(pattern)?),
            StringMatch::Present => Self::Present,
        })
    }

    fn ignoring_case(config: &StringMatch) -> Result<Self, MatchError> {
        Ok(match config {
            StringMatch::Exact(value) => Self::Regex(full_regex(&format!("(?i:{})", regex::escape(value)))?),
            StringMatch::Prefix(value) => Self::Regex(full_regex(&format!("(?i:{})(?s:.*)", regex::escape(value)))?),
            StringMatch::Suffix(value) => Self::Regex(full_regex(&format!("(?s:.*)(?i:{})", regex::escape(value)))?),
            other => Self::new(other)?,
        })
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => value == wanted,
            Self::Prefix(wanted) => value.starts_with(wanted.as_str()),
            Self::Suffix(wanted) => value.ends_with(wanted.as_str()),
            Self::Regex(regex) => regex.is_match(value),
            Self::Present => !value.is_empty(),
        }
    }

    /// Compares as host names are compared.
    pub(crate) fn matches_ignoring_case(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => value.eq_ignore_ascii_case(wanted),
            Self::Prefix(wanted) => value.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted)),
            Self::Suffix(wanted) => value
                .len()
                .checked_sub(wanted.len())
                .and_then(|from| value.get(from..))
                .is_some_and(|end| end.eq_ignore_ascii_case(wanted)),
            Self::Regex(regex) => regex.is_match(value) || regex.is_match(&value.to_ascii_lowercase()),
            Self::Present => !value.is_empty(),
        }
    }
}

/// A compiled [`ValueMatch`], without the place where the value is looked up.
#[derive(Debug, Clone)]
pub(crate) struct ValueMatcher {
    value: Option<StringMatcher>,
    invert: bool,
    missing_as_empty: bool,
}

impl ValueMatcher {
    pub(crate) fn new(config: &ValueMatch) -> Result<Self, MatchError> {
        let compile = if config.ignore_case { StringMatcher::ignoring_case } else { StringMatcher::new };
        Ok(Self {
            value: config.value.as_ref().map(compile).transpose()?,
            invert: config.invert,
            missing_as_empty: config.missing_as_empty,
        })
    }

    /// `value` is `None` when it is missing.
    pub(crate) fn matches(&self, value: Option<&str>) -> bool {
        let value = if self.missing_as_empty { Some(value.unwrap_or("")) } else { value };
        let matched = match (&self.value, value) {
            (None, value) => value.is_some(),
            (Some(_), None) => false,
            (Some(matcher), Some(value)) => matcher.matches(value),
        };
        matched != self.invert
    }

    /// Any line of a header, each by itself (Envoy 1.39, `match_headers_individually`).
    fn matches_lines(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let mut lines = headers.get_all(name).iter();
        let (Some(first), second) = (lines.next(), lines.next()) else { return self.matches(None) };
        if second.is_none() {
            return self.matches(Some(&String::from_utf8_lossy(first.as_bytes())));
        }
        let lines: Vec<String> =
            headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect();
        self.matches_any(&lines)
    }

    /// Any of several values (a claim that is a list).
    pub(crate) fn matches_any(&self, values: &[String]) -> bool {
        let matched = match &self.value {
            None => !values.is_empty(),
            Some(matcher) => values.iter().any(|value| matcher.matches(value)),
        };
        matched != self.invert
    }
}

/// Where a header condition looks.
#[derive(Debug, Clone)]
enum HeaderPlace {
    Method,
    Authority,
    Scheme,
    Path,
    Header(HeaderName),
}

/// A compiled condition on a request header or pseudo header.
#[derive(Debug, Clone)]
pub(crate) struct HeaderMatcher {
    place: HeaderPlace,
    matcher: ValueMatcher,
    /// For decision trails.
    pub(crate) description: String,
}

/// What header conditions see of a request.
#[derive(Clone, Copy)]
pub(crate) struct RequestView<'a> {
    pub(crate) method: &'a Method,
    pub(crate) authority: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) path_and_query: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

impl HeaderMatcher {
    pub(crate) fn new(config: &ValueMatch) -> Result<Self, MatchError> {
        let place = match config.name.as_str() {
            ":method" => HeaderPlace::Method,
            ":authority" | "host" => HeaderPlace::Authority,
            ":scheme" => HeaderPlace::Scheme,
            ":path" => HeaderPlace::Path,
            name => HeaderPlace::Header(header_name(name)?),
        };
        Ok(Self { place, matcher: ValueMatcher::new(config)?, description: describe("header", config) })
    }

    pub(crate) fn matches(&self, request: RequestView<'_>) -> bool {
        match &self.place {
            HeaderPlace::Method => self.matcher.matches(Some(request.method.as_str())),
            HeaderPlace::Authority => self.matcher.matches(Some(request.authority)),
            HeaderPlace::Scheme => self.matcher.matches(Some(request.scheme)),
            HeaderPlace::Path => self.matcher.matches(Some(request.path_and_query)),
            HeaderPlace::Header(name) => self.matcher.matches_lines(request.headers, name),
        }
    }
}

/// Whether any line of a header is as wanted, each by itself.
pub(crate) fn any_line(headers: &HeaderMap, name: &HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().any(|line| match std::str::from_utf8(line.as_bytes()) {
        Ok(text) => wanted(text),
        Err(_) => wanted(&String::from_utf8_lossy(line.as_bytes())),
    })
}

/// A condition in words, for decision trails.
pub(crate) fn describe(what: &str, config: &ValueMatch) -> String {
    let not = if config.invert { "not " } else { "" };
    match &config.value {
        None => format!("{what} {} {not}present", config.name),
        Some(StringMatch::Exact(value)) => format!("{what} {} {not}exactly {value:?}", config.name),
        Some(StringMatch::Prefix(value)) => format!("{what} {} {not}prefix {value:?}", config.name),
        Some(StringMatch::Suffix(value)) => format!("{what} {} {not}suffix {value:?}", config.name),
        Some(StringMatch::Regex(value)) => format!("{what} {} {not}regex {value:?}", config.name),
        Some(StringMatch::Present) => format!("{what} {} {not}non-empty", config.name),
    }
}

/// Parses a header name from configuration.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, MatchError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| MatchError::HeaderName(name.to_owned()))
}

/// Decides a share at random.
pub(crate) fn drawn(fraction: Fraction) -> bool {
    match fraction.0 {
        0 => false,
        1_000_000.. => true,
        millionths => rand::rng().random_range(0..1_000_000) < millionths,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: Option<StringMatch>) -> ValueMatch {
        ValueMatch { name: "x".into(), value, invert: false, missing_as_empty: false, ignore_case: false }
    }

    #[test]
    fn a_regex_must_match_the_whole_string() {
        let matcher = StringMatcher::new(&StringMatch::Regex("a|b+".into())).unwrap();
        assert!(matcher.matches("a") && matcher.matches("bbb"));
        assert!(!matcher.matches("ab") && !matcher.matches("xa"));
    }

    #[test]
    fn fact_04_without_headers_treats_a_missing_header_as_empty() {
        let without = ValueMatch { invert: true, missing_as_empty: true, ..value(Some(StringMatch::Exact("v".into()))) };
        let matcher = ValueMatcher::new(&without).unwrap();
        assert!(matcher.matches(None), "missing is the empty string, which is not v");
        assert!(!matcher.matches(Some("v")));
        let present = ValueMatcher::new(&ValueMatch { invert: true, ..value(None) }).unwrap();
        assert!(present.matches(None), "the presence form has no empty default");
        assert!(!present.matches(Some("")), "an empty header is present");
    }

    #[test]
    fn a_fraction_of_nothing_is_never_drawn_and_of_all_always() {
        assert!((0..1000).all(|_| !drawn(Fraction(0)) && drawn(Fraction::ALL)));
    }
}
