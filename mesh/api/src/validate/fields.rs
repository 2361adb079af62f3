//! Headers and weights.

use super::check::Check;
use crate::{HeaderOperations, Headers};

/// Names and values of header changes. The authority may be set on requests; it becomes a rewrite.
pub(super) fn headers(headers: &Headers, path: &str, check: &mut Check) {
    if let Some(request) = &headers.request {
        operations(request, &format!("{path}.request"), true, check);
    }
    if let Some(response) = &headers.response {
        operations(response, &format!("{path}.response"), false, check);
    }
}

fn operations(operations: &HeaderOperations, path: &str, authority: bool, check: &mut Check) {
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in map {
            let place = format!("{path}.{field}[{name}]");
            header_name(name, authority, &place, check);
            header_value(value, &place, check);
        }
    }
    for (index, name) in operations.remove.iter().enumerate() {
        header_name(name, false, &format!("{path}.remove[{index}]"), check);
    }
}

fn header_name(name: &str, authority: bool, path: &str, check: &mut Check) {
    if name.is_empty() {
        check.error(path, "a header name cannot be empty");
    } else if authority && name == ":authority" {
    } else if name.starts_with(':') {
        check.error(path, format!("pseudo-header {name} cannot be changed"));
    } else if !authority && name.eq_ignore_ascii_case("host") {
        check.error(path, "Host can be set on requests only, and not removed");
    }
}

/// `%` begins one of the proxy's variables, or is doubled.
fn header_value(value: &str, path: &str, check: &mut Check) {
    if value.chars().any(|c| matches!(c, '\r' | '\n' | '\0')) {
        check.error(path, "a header value has no line breaks");
    }
    if !value.replace("%%", "").matches('%').count().is_multiple_of(2) {
        check.error(path, format!("{value:?} has a single %; write %% for the character itself"));
    }
}

/// A token of RFC 9110.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.!#$&'*+^`|~".contains(c))
}

/// Weights of several destinations.
pub(super) fn weights(weights: impl Iterator<Item = i32>, path: &str, check: &mut Check) {
    let weights: Vec<i32> = weights.collect();
    for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight < 0) {
        check.error(format!("{path}[{index}].weight"), format!("a weight cannot be negative, but is {weight}"));
    }
    if weights.len() > 1 && weights.iter().all(|weight| *weight == 0) {
        check.error(path, "of several destinations one at least needs a weight");
    }
}
