//! From one VirtualService rule to one route.

use base64::Engine;
use meshlab_istio_api::{
    Destination as ApiDestination, HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRewrite, HttpRoute,
    HttpRouteDestination, RedirectPort as ApiRedirectPort,
};
use meshlab_proxy_config::{
    Destination, Forward, Fraction, HeaderOperations, Mirror, PathMatch, PathRewrite, Redirect, RedirectPort, Route, RouteAction,
};

use super::matching::{applies, route_match};
use super::{RoutesInputs, plain_forward, policy};
use crate::cluster::cluster_name;
use crate::virtual_service::ResolvedRoute;

/// The route of one rule and one of its match entries. `None`: it does not apply to this proxy or port.
pub(super) fn translate(
    resolved: &ResolvedRoute,
    entry: Option<(usize, &HttpMatchRequest)>,
    inputs: &RoutesInputs,
) -> Option<Route> {
    if entry.is_some_and(|(_, entry)| !applies(entry, inputs)) {
        return None;
    }
    let rule = &resolved.rule;
    let mut name = rule.name.clone();
    let mut origin = resolved.origin.clone();
    if let Some((index, entry)) = entry {
        if !entry.name.is_empty() {
            name = format!("{name}.{}", entry.name);
        }
        origin.path = format!("{}.match[{index}]", origin.path);
    }
    let (mut request_headers, authority) = policy::headers(rule.headers.as_ref().and_then(|headers| headers.request.as_ref()));
    let (mut response_headers, _) = policy::headers(rule.headers.as_ref().and_then(|headers| headers.response.as_ref()));
    let action = if let Some(wanted) = &rule.redirect {
        RouteAction::Redirect(redirect(wanted, inputs)?)
    } else if let Some(wanted) = &rule.direct_response {
        direct_response(wanted)?
    } else {
        RouteAction::Forward(Box::new(forward(rule, authority, &mut request_headers, &mut response_headers, inputs)))
    };
    let matches = route_match(entry.map(|(_, entry)| entry));
    let operation = operation(&action, &matches.path, &inputs.virtual_service.name, inputs.port);
    Some(Route {
        name,
        matches,
        action,
        request_headers,
        response_headers,
        fault: rule.fault.as_ref().and_then(policy::fault),
        cors: rule.cors_policy.as_ref().map(policy::cors),
        operation,
        origin: Some(origin),
    })
}

fn forward(
    rule: &HttpRoute,
    authority: Option<String>,
    request_headers: &mut HeaderOperations,
    response_headers: &mut HeaderOperations,
    inputs: &RoutesInputs,
) -> Forward {
    let mut out = plain_forward();
    let rewrite = rule.rewrite.as_ref();
    out.authority_rewrite =
        rewrite.map(|rewrite| rewrite.authority.clone()).filter(|authority| !authority.is_empty()).or(authority);
    out.rewrite = rewrite.and_then(path_rewrite);
    out.timeout_ms = rule.timeout.map_or(0, |timeout| timeout.millis());
    out.mirrors = mirrors(rule, inputs);

    // One destination takes all; of several, those without a weight get nothing.
    let single = rule.route.len() == 1;
    let mut hashed = false;
    for route in rule.route.iter().filter(|route| single || route.weight > 0) {
        let (cluster, hash) = cluster_of(&route.destination, inputs);
        hashed |= single && hash.is_some();
        out.hash_policy.extend(hash);
        out.destinations.push(weighted(route, cluster, single, request_headers, response_headers));
    }
    if single && out.authority_rewrite.is_none() {
        out.authority_rewrite = out.destinations[0].authority_rewrite.take();
    }
    let default = inputs.mesh.default_http_retry_policy.as_ref();
    out.retry = policy::retry(rule.retries.as_ref().or(default), hashed);
    out
}

/// A destination with its header changes. Those of a single one come after the route's and win; among several Envoy lets the
/// route's come last, so what the route overwrites is left out.
fn weighted(
    route: &HttpRouteDestination,
    cluster: String,
    single: bool,
    route_request: &mut HeaderOperations,
    route_response: &mut HeaderOperations,
) -> Destination {
    let headers = route.headers.as_ref();
    let (mut request_headers, authority_rewrite) = policy::headers(headers.and_then(|headers| headers.request.as_ref()));
    let (mut response_headers, _) = policy::headers(headers.and_then(|headers| headers.response.as_ref()));
    if !single {
        for (own, outer) in [(&mut request_headers, &*route_request), (&mut response_headers, &*route_response)] {
            own.set.retain(|key, _| !outer.set.contains_key(key));
            own.add.retain(|key, _| !outer.set.contains_key(key));
        }
    }
    let weight = if single { 1 } else { u32::try_from(route.weight).unwrap_or(0) };
    Destination { cluster, weight, request_headers, response_headers, authority_rewrite }
}

fn mirrors(rule: &HttpRoute, inputs: &RoutesInputs) -> Vec<Mirror> {
    let percent = rule.mirror_percentage.map(|p| p.value).or(rule.mirror_percent.map(f64::from));
    let single = rule.mirror.iter().map(|destination| (destination, percent));
    let several = rule.mirrors.iter().map(|mirror| (&mirror.destination, mirror.percentage.map(|p| p.value)));
    single
        .chain(several)
        // Not told is all; an explicit zero is none.
        .map(|(destination, percent)| (destination, Fraction::from_percent(percent.unwrap_or(100.0))))
        .filter(|(_, fraction)| fraction.0 > 0)
        .map(|(destination, fraction)| Mirror { cluster: cluster_of(destination, inputs).0, fraction })
        .collect()
}

/// The cluster of a destination: its port, else the service's only port, else the port of the request.
fn cluster_of(destination: &ApiDestination, inputs: &RoutesInputs) -> (String, Option<meshlab_proxy_config::HashPolicy>) {
    let target = inputs.target(&destination.host);
    let port = destination_port(destination, target.map(|target| target.service.ports.as_slice()), inputs.port);
    let hash = target.and_then(|target| target.hash_policy(&destination.subset, port));
    (cluster_name(port, &destination.subset, &destination.host), hash)
}

/// The port that a destination means.
pub(crate) fn destination_port(
    destination: &ApiDestination,
    ports: Option<&[crate::registry::MeshPort]>,
    listener_port: u16,
) -> u16 {
    match (destination.port, ports) {
        (Some(port), _) => u16::try_from(port.number).unwrap_or(0),
        (None, Some([only])) => only.number,
        (None, _) => listener_port,
    }
}

fn path_rewrite(rewrite: &HttpRewrite) -> Option<PathRewrite> {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        return Some(PathRewrite::Regex { pattern: regex.r#match.clone(), substitution: regex.rewrite.clone() });
    }
    (!rewrite.uri.is_empty()).then(|| PathRewrite::Matched(rewrite.uri.clone()))
}

fn redirect(wanted: &HttpRedirect, inputs: &RoutesInputs) -> Option<Redirect> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let status = match wanted.redirect_code {
        0 => 301,
        code @ (301 | 302 | 303 | 307 | 308) => u16::try_from(code).ok()?,
        _ => return None,
    };
    let scheme = match (wanted.scheme.as_str(), inputs.tls) {
        ("", true) => "https",
        ("", false) => "http",
        (scheme, _) => scheme,
    };
    let not_default =
        |port: u16| (!matches!((scheme, port), ("http", 80) | ("https", 443))).then_some(RedirectPort::Number(port));
    let port = match (wanted.port, wanted.derive_port) {
        (Some(port), _) => not_default(u16::try_from(port).ok()?),
        // Envoy cannot derive it, so Istio writes the port that the route is compiled for.
        (None, Some(ApiRedirectPort::FromRequestPort)) => not_default(inputs.port),
        (None, Some(ApiRedirectPort::FromProtocolDefault)) => Some(RedirectPort::FromProtocol),
        (None, None) => None,
    };
    let path = text(&wanted.prefix_rewrite).map(PathRewrite::Matched).or_else(|| text(&wanted.uri).map(PathRewrite::Full));
    Some(Redirect { status, scheme: text(&wanted.scheme), authority: text(&wanted.authority), port, path })
}

fn direct_response(wanted: &HttpDirectResponse) -> Option<RouteAction> {
    let body = match wanted.body.as_ref() {
        None => String::new(),
        Some(body) => match (&body.string, &body.bytes) {
            (Some(text), _) => text.clone(),
            (None, Some(encoded)) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            (None, None) => String::new(),
        },
    };
    Some(RouteAction::DirectResponse { status: u16::try_from(wanted.status).ok()?, body })
}

/// What spans call a route: its only destination, or the VirtualService, with the path.
fn operation(action: &RouteAction, path: &PathMatch, virtual_service: &str, port: u16) -> String {
    let path = match path {
        PathMatch::Prefix(prefix) | PathMatch::SegmentPrefix(prefix) => format!("{prefix}*"),
        PathMatch::Exact(path) | PathMatch::Regex(path) => path.clone(),
    };
    if let RouteAction::Forward(forward) = action
        && let [only] = forward.destinations.as_slice()
    {
        let mut parts = only.cluster.split('|');
        if let (Some(_), Some(port), Some(_), Some(host)) = (parts.next(), parts.next(), parts.next(), parts.next()) {
            return format!("{host}:{port}{path}");
        }
    }
    format!("{virtual_service}:{port}{path}")
}
