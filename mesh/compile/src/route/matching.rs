//! Conditions of a route.

use std::collections::BTreeMap;

use meshlab_istio_api::{HttpMatchRequest, StringMatch};
use meshlab_proxy_config::{PathMatch, Route, RouteMatch, StringMatch as Wanted, ValueMatch};

use super::{RoutesInputs, everything};
use crate::registry::selects;

/// Whether an entry holds for this proxy and port, which is known now. An entry that names gateways is not asked for its
/// source labels and namespace.
pub(super) fn applies(entry: &HttpMatchRequest, inputs: &RoutesInputs) -> bool {
    if entry.port != 0 && entry.port != u32::from(inputs.port) {
        return false;
    }
    if !entry.gateways.is_empty() {
        return entry.gateways.contains(&inputs.gateway);
    }
    selects(&entry.source_labels, &inputs.client.labels)
        && (entry.source_namespace.is_empty() || entry.source_namespace == inputs.client.namespace)
}

/// The conditions that are left for the proxy to look at.
pub(super) fn route_match(entry: Option<&HttpMatchRequest>) -> RouteMatch {
    let mut out = everything();
    let Some(entry) = entry else { return out };
    if let Some(path) = entry.uri.as_ref().and_then(path_match) {
        out.path = path;
    }
    out.ignore_path_case = entry.ignore_uri_case;
    values(&entry.headers, false, &mut out);
    values(&entry.without_headers, true, &mut out);
    out.headers.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, wanted) in [(":method", &entry.method), (":authority", &entry.authority), (":scheme", &entry.scheme)] {
        out.headers.extend(wanted.as_ref().map(|wanted| value_match(name.into(), wanted, false)));
    }
    out.query = entry.query_params.iter().map(|(name, wanted)| value_match(name.clone(), wanted, false)).collect();
    out
}

fn values(conditions: &BTreeMap<String, StringMatch>, invert: bool, out: &mut RouteMatch) {
    for (name, wanted) in conditions {
        match claim_path(name) {
            Some(path) => out.claims.push(value_match(path, wanted, invert)),
            None => out.headers.push(value_match(name.to_ascii_lowercase(), wanted, invert)),
        }
    }
}

fn path_match(wanted: &StringMatch) -> Option<PathMatch> {
    match wanted {
        StringMatch { exact: Some(exact), .. } => Some(PathMatch::Exact(exact.clone())),
        StringMatch { prefix: Some(prefix), .. } => Some(PathMatch::Prefix(prefix.clone())),
        StringMatch { regex: Some(regex), .. } => Some(PathMatch::Regex(regex.clone())),
        _ => None,
    }
}

/// An empty match, and the expression `*`, only ask that the value is there. A missing value counts as empty for inverted
/// conditions of any other form.
fn value_match(name: String, wanted: &StringMatch, invert: bool) -> ValueMatch {
    let value = string_match(wanted);
    ValueMatch { name, missing_as_empty: invert && value.is_some(), value, invert, ignore_case: false }
}

/// `None`: present.
pub(super) fn string_match(wanted: &StringMatch) -> Option<Wanted> {
    match wanted {
        StringMatch { exact: Some(exact), .. } => Some(Wanted::Exact(exact.clone())),
        StringMatch { prefix: Some(prefix), .. } => Some(Wanted::Prefix(prefix.clone())),
        StringMatch { regex: Some(regex), .. } if regex != "*" => Some(Wanted::Regex(regex.clone())),
        _ => None,
    }
}

/// `@request.auth.claims.a.b` and `@request.auth.claims[a][b]` name claims of a token.
fn claim_path(name: &str) -> Option<String> {
    let rest = name.get(..20).filter(|start| start.eq_ignore_ascii_case("@request.auth.claims")).map(|_| &name[20..])?;
    if let Some(path) = rest.strip_prefix('.') {
        return Some(path.to_owned());
    }
    let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.replace("][", "."))
}

/// Whether a route takes every request.
pub(crate) fn is_catch_all(route: &Route) -> bool {
    let matches = &route.matches;
    let path = match &matches.path {
        PathMatch::Prefix(prefix) | PathMatch::SegmentPrefix(prefix) => prefix == "/",
        PathMatch::Regex(regex) => regex == ".*",
        PathMatch::Exact(_) => false,
    };
    path && matches.headers.is_empty() && matches.query.is_empty() && matches.claims.is_empty()
}
