//! Which requests a route takes.

use std::sync::Arc;

use meshlab_proxy_config::{PathMatch, RouteMatch};
use regex::Regex;

use crate::matching::{HeaderMatcher, MatchError, RequestView, ValueMatcher, describe, full_regex};

/// Claims of a validated token.
pub(crate) type Claims = Arc<serde_json::Value>;

/// A compiled [`RouteMatch`].
pub(crate) struct RouteMatcher {
    pub(crate) path: PathMatcher,
    ignore_case: bool,
    headers: Vec<HeaderMatcher>,
    query: Vec<(String, ValueMatcher, String)>,
    claims: Vec<(String, ValueMatcher, String)>,
}

/// A compiled [`PathMatch`].
pub(crate) enum PathMatcher {
    Prefix(String),
    SegmentPrefix(String),
    Exact(String),
    Regex(Regex, String),
}

impl RouteMatcher {
    pub(crate) fn new(config: &RouteMatch) -> Result<Self, MatchError> {
        let place = |what: &str, entry: &meshlab_proxy_config::ValueMatch| {
            Ok((entry.name.clone(), ValueMatcher::new(entry)?, describe(what, entry)))
        };
        Ok(Self {
            path: match &config.path {
                PathMatch::Prefix(prefix) => PathMatcher::Prefix(prefix.clone()),
                PathMatch::SegmentPrefix(prefix) => PathMatcher::SegmentPrefix(prefix.trim_end_matches('/').to_owned()),
                PathMatch::Exact(path) => PathMatcher::Exact(path.clone()),
                PathMatch::Regex(pattern) if config.ignore_path_case => {
                    PathMatcher::Regex(full_regex(&format!("(?i:{pattern})"))?, pattern.clone())
                }
                PathMatch::Regex(pattern) => PathMatcher::Regex(full_regex(pattern)?, pattern.clone()),
            },
            ignore_case: config.ignore_path_case,
            headers: config.headers.iter().map(HeaderMatcher::new).collect::<Result<_, _>>()?,
            query: config.query.iter().map(|entry| place("query parameter", entry)).collect::<Result<_, MatchError>>()?,
            claims: config.claims.iter().map(|entry| place("claim", entry)).collect::<Result<_, MatchError>>()?,
        })
    }

    pub(crate) fn matches(&self, request: RequestView<'_>, claims: Option<&Claims>) -> bool {
        self.path.matches(path_of(request.path_and_query), self.ignore_case)
            && self.headers.iter().all(|header| header.matches(request))
            && self.query.iter().all(|(name, matcher, _)| matches_query(request, name, matcher))
            && self.claims.iter().all(|(path, matcher, _)| matcher.matches_any(&claim_values(claims, path)))
    }

    /// Why a request is not taken, in words; `None` if it is.
    pub(crate) fn rejection(&self, request: RequestView<'_>, claims: Option<&Claims>) -> Option<String> {
        let path = path_of(request.path_and_query);
        if !self.path.matches(path, self.ignore_case) {
            return Some(format!("path {path} is not {}", self.path.describe()));
        }
        if let Some(header) = self.headers.iter().find(|header| !header.matches(request)) {
            return Some(format!("wanted: {}", header.description));
        }
        if let Some((.., wanted)) = self.query.iter().find(|(name, matcher, _)| !matches_query(request, name, matcher)) {
            return Some(format!("wanted: {wanted}"));
        }
        self.claims
            .iter()
            .find(|(path, matcher, _)| !matcher.matches_any(&claim_values(claims, path)))
            .map(|(.., wanted)| format!("wanted: {wanted}"))
    }
}

impl PathMatcher {
    fn matches(&self, path: &str, ignore_case: bool) -> bool {
        let starts = |prefix: &str| {
            if ignore_case {
                path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            } else {
                path.starts_with(prefix)
            }
        };
        match self {
            Self::Prefix(prefix) => starts(prefix),
            Self::SegmentPrefix(prefix) => starts(prefix) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/')),
            Self::Exact(wanted) if ignore_case => path.eq_ignore_ascii_case(wanted),
            Self::Exact(wanted) => path == wanted,
            Self::Regex(regex, _) => regex.is_match(path),
        }
    }

    /// How many bytes of a matching path were matched.
    pub(crate) fn matched_length(&self, path: &str) -> usize {
        match self {
            Self::Prefix(prefix) | Self::SegmentPrefix(prefix) => prefix.len(),
            Self::Exact(_) | Self::Regex(..) => path.len(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Prefix(prefix) => format!("prefix {prefix:?}"),
            Self::SegmentPrefix(prefix) => format!("path prefix {:?}", if prefix.is_empty() { "/" } else { prefix }),
            Self::Exact(path) => format!("exactly {path:?}"),
            Self::Regex(_, pattern) => format!("regex {pattern:?}"),
        }
    }
}

/// The path without its query.
pub(crate) fn path_of(path_and_query: &str) -> &str {
    path_and_query.split(['?', '#']).next().unwrap_or("")
}

/// The value of a query parameter as it came: Envoy does not decode what it compares or hashes. The first one counts.
pub(crate) fn query_parameter<'a>(path_and_query: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path_and_query.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn matches_query(request: RequestView<'_>, name: &str, matcher: &ValueMatcher) -> bool {
    matcher.matches(query_parameter(request.path_and_query, name))
}

/// The values of a claim, found by its dotted path; a list gives all of its strings.
pub(crate) fn claim_values(claims: Option<&Claims>, path: &str) -> Vec<String> {
    let Some(claims) = claims else { return Vec::new() };
    // A claim whose name has a dot itself (a URL) is found whole before it is taken apart.
    match claims.get(path) {
        Some(found) => claim_strings(path, found),
        None => path.split('.').try_fold(&**claims, |value, key| value.get(key)).map(value_strings).unwrap_or_default(),
    }
}

/// A claim as the strings that policies compare. Istio has Envoy take apart two claims that are lists of words by custom.
pub(crate) fn claim_strings(name: &str, value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::String(words) if matches!(name, "scope" | "permission") => {
            words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        value => value_strings(value),
    }
}

/// A JSON value as the strings that policies compare: numbers and truth values are none.
pub(crate) fn value_strings(value: &serde_json::Value) -> Vec<String> {
    use serde_json::Value as V;
    match value {
        V::String(text) => vec![text.clone()],
        V::Array(values) => values.iter().filter_map(V::as_str).map(str::to_owned).collect(),
        V::Bool(_) | V::Number(_) | V::Null | V::Object(_) => Vec::new(),
    }
}
