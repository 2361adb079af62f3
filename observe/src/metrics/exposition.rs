//! Prometheus' text format, version 0.0.4 (OpenMetrics' `# EOF` and `# UNIT` are let through).
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::Serialize;
use thiserror::Error;

use super::chunk::Millis;
use super::labels::is_label_name;

/// Why a scrape's body cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}: {reason}: {text:?}")]
pub(crate) struct SyntaxError {
    line: usize,
    reason: &'static str,
    text: String,
}

/// One sample, its labels not taken apart yet (most are known from the scrape before).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line<'a> {
    /// `name{label="value"}`.
    pub(crate) series: &'a str,
    pub(crate) value: f64,
    pub(crate) time: Option<Millis>,
}

/// What a target says about a metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Metadata {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) unit: String,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { kind: "unknown".to_owned(), help: String::new(), unit: String::new() }
    }
}

/// A body, read.
#[derive(Debug, Default)]
pub(crate) struct Exposition<'a> {
    pub(crate) lines: Vec<Line<'a>>,
    pub(crate) metadata: IndexMap<&'a str, Metadata>,
}

/// Longest help text kept, in bytes.
const MAX_HELP: usize = 1024;
/// Metrics whose metadata is kept for one target.
const MAX_METADATA: usize = 4096;

impl<'a> Exposition<'a> {
    /// Reads a whole body; one malformed line makes all of it invalid, as with Prometheus.
    pub(crate) fn parse(body: &'a str) -> Result<Self, SyntaxError> {
        let mut exposition = Self::default();
        for (index, line) in body.lines().enumerate() {
            let text = line.trim_matches([' ', '\t', '\r']);
            if text.is_empty() {
                continue;
            }
            if let Some(comment) = text.strip_prefix('#') {
                exposition.comment(comment.trim_start());
                continue;
            }
            let sample =
                sample(text).map_err(|reason| SyntaxError { line: index + 1, reason, text: text.chars().take(120).collect() })?;
            exposition.lines.push(sample);
        }
        Ok(exposition)
    }

    fn comment(&mut self, comment: &'a str) {
        let Some((keyword, rest)) = comment.split_once([' ', '\t']) else { return };
        let (name, text) = rest.trim_start().split_once([' ', '\t']).unwrap_or((rest, ""));
        if !matches!(keyword, "HELP" | "TYPE" | "UNIT")
            || (self.metadata.len() >= MAX_METADATA && !self.metadata.contains_key(name))
        {
            return;
        }
        let metadata = self.metadata.entry(name).or_default();
        match keyword {
            "HELP" => metadata.help = unescape(&text[..text.floor_char_boundary(MAX_HELP)]).into_owned(),
            "UNIT" => text.trim().clone_into(&mut metadata.unit),
            _ => match text.trim() {
                "untyped" => "unknown".clone_into(&mut metadata.kind),
                kind => metadata.kind = kind.chars().take(32).collect(),
            },
        }
    }
}

fn sample(text: &str) -> Result<Line<'_>, &'static str> {
    let end = series_end(text)?;
    let (series, rest) = text.split_at(end);
    let mut rest = rest.split_ascii_whitespace();
    let value = rest.next().ok_or("a value is missing")?;
    let value = number(value).ok_or("the value is not a number")?;
    let time = match rest.next() {
        None => None,
        // An exemplar, which OpenMetrics puts behind the value.
        Some("#") => return Ok(Line { series: series.trim_end(), value, time: None }),
        Some(time) => Some(time.parse().map_err(|_| "the time stamp is not a whole number")?),
    };
    match rest.next() {
        None | Some("#") => Ok(Line { series: series.trim_end(), value, time }),
        Some(_) => Err("there is something after the sample"),
    }
}

/// Where name and labels end.
fn series_end(text: &str) -> Result<usize, &'static str> {
    let name_end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    if name_end == 0 || text.as_bytes()[0].is_ascii_digit() {
        return Err("a metric's name is missing");
    }
    let braces = text[name_end..].trim_start_matches([' ', '\t']);
    if !braces.starts_with('{') {
        return if name_end < text.len() && !text[name_end..].starts_with([' ', '\t']) {
            Err("the metric's name has a character that it must not have")
        } else {
            Ok(name_end)
        };
    }
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in text.bytes().enumerate().skip(name_end) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Ok(index + 1),
            _ => {}
        }
    }
    Err("the labels are not closed")
}

/// A number as Go reads it.
pub(crate) fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => text.parse().ok(),
    }
}

/// Labels as they are written.
pub(crate) type Written<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Takes `name{label="value",…}` apart.
pub(crate) fn labels(series: &str) -> Result<(&str, Written<'_>), &'static str> {
    let Some((name, rest)) = series.split_once('{') else { return Ok((series, Vec::new())) };
    let mut rest = rest.strip_suffix('}').ok_or("the labels are not closed")?.trim();
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (label, value) = rest.split_once('=').ok_or("\"=\" is missing after a label's name")?;
        let label = label.trim();
        if !is_label_name(label) {
            return Err("a label's name has a character that it must not have");
        }
        let value = value.trim_start().strip_prefix('"').ok_or("a label's value is not in quotes")?;
        let mut escaped = false;
        let end = value.bytes().position(|byte| {
            let found = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            found
        });
        let end = end.ok_or("a label's value is not closed")?;
        if pairs.iter().any(|(known, _)| *known == label) {
            return Err("a label is there twice");
        }
        pairs.push((label, unescape(&value[..end])));
        rest = value[end + 1..].trim_start();
        rest = match rest.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err("a comma is missing between labels"),
        };
    }
    Ok((name.trim_end(), pairs))
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, if character == '\\' { characters.next() } else { None }) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some(next @ ('\\' | '"'))) => plain.push(next),
            ('\\', Some(other)) => plain.extend(['\\', other]),
            (other, _) => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_formats_own_example() {
        let body = "# HELP http_requests_total The total number of HTTP requests.\n# TYPE http_requests_total counter\n\
            http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\n\
            msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9\n\
            metric_without_timestamp_and_labels 12.47\nsomething_weird{problem=\"division by zero\"} +Inf -3982045\n\
            braces{path=\"/a}b{c\",} 1\n";
        let exposition = Exposition::parse(body).unwrap();
        let lines: Vec<_> = exposition.lines.iter().map(|line| (line.value, line.time)).collect();
        assert_eq!(
            lines,
            [
                (1027.0, Some(1_395_066_363_000)),
                (1.458_255_915e9, None),
                (12.47, None),
                (f64::INFINITY, Some(-3_982_045)),
                (1.0, None)
            ]
        );
        let (name, pairs) = labels(exposition.lines[1].series).unwrap();
        assert_eq!(name, "msdos_file_access_time_seconds");
        assert_eq!(pairs[1].1, "Cannot find file:\n\"FILE.TXT\"");
        assert_eq!(labels(exposition.lines[4].series).unwrap().1[0].1, "/a}b{c");
        assert_eq!(exposition.metadata["http_requests_total"].kind, "counter");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let error = |body| Exposition::parse(body).unwrap_err().to_string();
        insta::assert_snapshot!(error("a 1\nb{x=\"1\" 2"), @r#"line 2: the labels are not closed: "b{x=\"1\" 2""#);
        insta::assert_snapshot!(error("a one"), @r#"line 1: the value is not a number: "a one""#);
        insta::assert_snapshot!(error("a-b 1"), @r#"line 1: the metric's name has a character that it must not have: "a-b 1""#);
        insta::assert_snapshot!(error("a"), @r#"line 1: a value is missing: "a""#);
        assert_eq!(labels("a{x=\"1\"y=\"2\"}").unwrap_err(), "a comma is missing between labels");
        assert_eq!(labels("a{x=\"1\",x=\"2\"}").unwrap_err(), "a label is there twice");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in "[a-z{}=\"\\\\#, \n0-9+é]{0,80}") {
            if let Ok(exposition) = Exposition::parse(&body) {
                exposition.lines.iter().for_each(|line| drop(labels(line.series)));
            }
        }
    }
}
