//! Whether a proxy can use a rule. What validation refuses can still be in the store, from before the webhook was there.

use std::collections::BTreeMap;

use meshlab_istio_api::{Headers, HttpRoute, StringMatch};
use regex::Regex;

/// Why a proxy could not use an HTTP rule.
pub(crate) fn objection(rule: &HttpRoute) -> Option<String> {
    let matches = rule.r#match.iter().find_map(|entry| {
        let path = entry.uri.as_ref().and_then(|uri| uri.regex.as_deref()).and_then(regex);
        let single = [&entry.scheme, &entry.method, &entry.authority].into_iter().flatten().find_map(expression);
        let named =
            [&entry.headers, &entry.without_headers].into_iter().find_map(|map| names(map.keys()).or_else(|| expressions(map)));
        path.or(single).or(named).or_else(|| expressions(&entry.query_params))
    });
    let cors = rule.cors_policy.as_ref().and_then(|cors| cors.allow_origins.iter().find_map(expression));
    let rewrite =
        rule.rewrite.as_ref().and_then(|rewrite| rewrite.uri_regex_rewrite.as_ref()).and_then(|rewrite| regex(&rewrite.r#match));
    let own = rule.headers.iter().chain(rule.route.iter().filter_map(|route| route.headers.as_ref())).find_map(headers);
    matches.or(cors).or(rewrite).or(own)
}

fn expressions(map: &BTreeMap<String, StringMatch>) -> Option<String> {
    map.values().find_map(expression)
}

fn expression(wanted: &StringMatch) -> Option<String> {
    // Alone it asks for presence.
    wanted.regex.as_deref().filter(|text| *text != "*").and_then(regex)
}

fn regex(text: &str) -> Option<String> {
    Regex::new(text).err().map(|_| format!("{text:?} is not an RE2 expression"))
}

fn headers(headers: &Headers) -> Option<String> {
    [&headers.request, &headers.response].into_iter().flatten().find_map(|operations| {
        let bad_value = operations.set.values().chain(operations.add.values()).find(|value| value.chars().any(char::is_control));
        names(operations.set.keys().chain(operations.add.keys()).chain(&operations.remove))
            .or_else(|| bad_value.map(|value| format!("{value:?} is not a header value")))
    })
}

fn names<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    // Pseudo-headers and claims have names of their own.
    let fine = |name: &str| name.starts_with(':') || name.starts_with('@') || (!name.is_empty() && name.chars().all(token));
    names.find(|name| !fine(name)).map(|name| format!("{name:?} is not a header name"))
}
