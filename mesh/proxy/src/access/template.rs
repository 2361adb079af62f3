//! Istio's path templates: `{*}` is one segment, `{**}` any number of them.

use regex::Regex;

use crate::matching::{MatchError, full_regex};

/// Compiles a template.
pub(super) fn compile(template: &str) -> Result<Regex, MatchError> {
    let mut pattern = String::new();
    for (index, segment) in template.split('/').enumerate() {
        if index > 0 {
            pattern.push('/');
        }
        pattern.push_str(&segment_pattern(segment));
    }
    full_regex(&pattern)
}

fn segment_pattern(segment: &str) -> String {
    match segment {
        "{*}" | "*" => "[^/]+".to_owned(),
        "{**}" | "**" => ".*".to_owned(),
        literal => regex::escape(literal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_is_one_segment_and_two_are_any_number() {
        let matches = |template: &str, path: &str| compile(template).unwrap().is_match(path);
        assert!(matches("/foo/{*}/baz", "/foo/bar/baz"));
        assert!(!matches("/foo/{*}/baz", "/foo/bar/x/baz"));
        assert!(matches("/foo/{**}", "/foo/bar/x"));
        assert!(matches("/foo/{**}/end", "/foo/a/b/end"));
        assert!(!matches("/foo/{*}", "/foo/"));
    }
}
