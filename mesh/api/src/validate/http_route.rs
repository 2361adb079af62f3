//! The HTTP rules of a VirtualService.

use super::check::{Check, is_dns_label};
use super::{fields, virtual_service};
use crate::{
    CorsPolicy, Headers, HttpDirectResponse, HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite,
    HttpRoute, StringMatch,
};

/// Above this a fixed body is refused, and from a tenth of it on warned of.
const MAX_DIRECT_RESPONSE: usize = 1024 * 1024;
const LARGE_DIRECT_RESPONSE: usize = 100 * 1024;

pub(super) fn check(rule: &HttpRoute, in_delegate: bool, path: &str, check: &mut Check) {
    conflicts(rule, in_delegate, path, check);
    for (index, m) in rule.r#match.iter().enumerate() {
        match_request(m, &format!("{path}.match[{index}]"), check);
    }
    if let Some(headers) = &rule.headers {
        fields::headers(headers, &format!("{path}.headers"), check);
    }
    if let Some(cors) = &rule.cors_policy {
        cors_policy(cors, &format!("{path}.corsPolicy"), check);
    }
    if let Some(fault) = &rule.fault {
        fault_injection(fault, &format!("{path}.fault"), check);
    }
    mirrors(rule, path, check);
    if let Some(wanted) = &rule.redirect {
        redirect(wanted, &rule.r#match, &format!("{path}.redirect"), check);
    }
    if let Some(response) = &rule.direct_response {
        direct_response(response, &format!("{path}.directResponse"), check);
    }
    if let Some(policy) = &rule.retries {
        retries(policy, &format!("{path}.retries"), check);
    }
    if let Some(wanted) = &rule.rewrite {
        rewrite(wanted, &format!("{path}.rewrite"), check);
    }
    authority(rule.rewrite.as_ref(), rule.headers.as_ref(), path, check);
    for (index, route) in rule.route.iter().enumerate() {
        let place = format!("{path}.route[{index}]");
        check.destination(&route.destination, &format!("{place}.destination"));
        if let Some(headers) = &route.headers {
            fields::headers(headers, &format!("{place}.headers"), check);
        }
    }
    fields::weights(rule.route.iter().map(|route| route.weight), &format!("{path}.route"), check);
}

/// What cannot stand in one rule.
fn conflicts(rule: &HttpRoute, in_delegate: bool, path: &str, check: &mut Check) {
    let both = |check: &mut Check, one: &str, other: &str, set: bool| {
        if set {
            check.error(path, format!("{one} and {other} exclude each other"));
        }
    };
    let route = !rule.route.is_empty();
    if rule.delegate.is_some() {
        if in_delegate {
            check.error(format!("{path}.delegate"), "a delegate cannot delegate any further");
        }
        both(check, "delegate", "redirect", rule.redirect.is_some());
        both(check, "delegate", "route", route);
        return;
    }
    if rule.redirect.is_some() {
        both(check, "redirect", "route", route);
        both(check, "redirect", "fault", rule.fault.is_some());
        both(check, "redirect", "rewrite", rule.rewrite.is_some());
        both(check, "redirect", "directResponse", rule.direct_response.is_some());
    } else if rule.direct_response.is_some() {
        both(check, "directResponse", "route", route);
        both(check, "directResponse", "fault", rule.fault.is_some());
        both(check, "directResponse", "rewrite", rule.rewrite.is_some());
    } else if !route {
        check.error(path, "one of route, redirect, directResponse and delegate is needed");
    }
    both(check, "mirror", "mirrors", rule.mirror.is_some() && !rule.mirrors.is_empty());
}

fn match_request(m: &HttpMatchRequest, path: &str, check: &mut Check) {
    for (name, wanted) in &m.headers {
        let place = format!("{path}.headers[{name}]");
        header_or_claim(name, &place, check);
        presence_or_match(wanted, &place, check);
    }
    for (name, wanted) in &m.without_headers {
        let place = format!("{path}.withoutHeaders[{name}]");
        header_or_claim(name, &place, check);
        presence_or_match(wanted, &place, check);
    }
    if let Some(uri) = &m.uri {
        check.string_match_form(uri, &format!("{path}.uri"));
        if let Some(prefix) = uri.prefix.as_deref().filter(|prefix| prefix.len() > 1 && prefix.ends_with('*')) {
            check.warning(format!("{path}.uri.prefix"), format!("{prefix:?} ends in a literal *; a prefix needs none"));
        }
    }
    for (field, wanted) in [("scheme", &m.scheme), ("method", &m.method), ("authority", &m.authority)] {
        if let Some(wanted) = wanted {
            check.string_match(wanted, &format!("{path}.{field}"));
        }
    }
    for (name, wanted) in &m.query_params {
        presence_or_match(wanted, &format!("{path}.queryParams[{name}]"), check);
    }
    if m.port != 0 {
        check.port(m.port, format!("{path}.port"));
    }
    check.labels(&m.source_labels, &format!("{path}.sourceLabels"));
    virtual_service::gateways(&m.gateways, &format!("{path}.gateways"), check);
    if !m.source_namespace.is_empty() && !is_dns_label(&m.source_namespace) {
        check.error(format!("{path}.sourceNamespace"), format!("{:?} is not a namespace", m.source_namespace));
    }
}

/// The expression `*`, which is none, asks for presence.
fn presence_or_match(wanted: &StringMatch, path: &str, check: &mut Check) {
    if wanted.regex.as_deref() != Some("*") {
        check.string_match(wanted, path);
    }
}

fn header_or_claim(name: &str, path: &str, check: &mut Check) {
    let claim = name.get(..20).is_some_and(|start| start.eq_ignore_ascii_case("@request.auth.claims"));
    let pseudo = matches!(name, ":authority" | ":method" | ":path" | ":scheme");
    if !claim && !pseudo && !fields::is_header_name(name) {
        check.error(path, format!("{name:?} is not a header name"));
    }
}

fn cors_policy(cors: &CorsPolicy, path: &str, check: &mut Check) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let place = format!("{path}.allowOrigins[{index}]");
        let text = origin.exact.as_deref().or(origin.prefix.as_deref()).or(origin.regex.as_deref());
        if text.unwrap_or_default().is_empty() {
            check.error(&place, "one of exact, prefix and regex is needed");
        } else {
            check.string_match_form(origin, &place);
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if !matches!(
            method.as_str(),
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "*"
        ) {
            check.error(format!("{path}.allowMethods[{index}]"), format!("{method:?} is not an HTTP method"));
        }
    }
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            if name != "*" && !fields::is_header_name(name) {
                check.error(format!("{path}.{field}[{index}]"), format!("{name:?} is not a header name"));
            }
        }
    }
    if cors.max_age.is_some_and(|age| age.nanos() % 1_000_000_000 != 0) {
        check.error(format!("{path}.maxAge"), "has whole seconds only");
    }
}

fn fault_injection(fault: &HttpFaultInjection, path: &str, check: &mut Check) {
    if fault.abort.is_none() && fault.delay.is_none() {
        check.error(path, "one of delay and abort is needed");
    }
    if let Some(delay) = &fault.delay {
        let path = format!("{path}.delay");
        check.percentage(delay.percentage, format!("{path}.percentage"));
        check.at_most_one(
            &path,
            &[("fixedDelay", delay.fixed_delay.is_some()), ("exponentialDelay", delay.exponential_delay.is_some())],
        );
        if delay.exponential_delay.is_some() {
            check.error(format!("{path}.exponentialDelay"), "is not supported");
        }
        if !(0..=100).contains(&delay.percent) {
            check.error(format!("{path}.percent"), "a percentage is between 0 and 100");
        }
        if delay.percentage.is_none() && delay.percent == 0 {
            check.warning(&path, "without a percentage no request is delayed");
        }
    }
    if let Some(abort) = &fault.abort {
        let path = format!("{path}.abort");
        check.percentage(abort.percentage, format!("{path}.percentage"));
        check.at_most_one(
            &path,
            &[
                ("httpStatus", abort.http_status.is_some()),
                ("grpcStatus", abort.grpc_status.is_some()),
                ("http2Error", abort.http2_error.is_some()),
            ],
        );
        if let Some(status) = abort.http_status {
            http_status(i64::from(status), format!("{path}.httpStatus"), check);
        } else if let Some(status) = &abort.grpc_status {
            if !is_grpc_status(status) {
                check.error(
                    format!("{path}.grpcStatus"),
                    format!("{status:?} is not a gRPC status such as UNAVAILABLE or NOT_FOUND"),
                );
            }
        } else if abort.http2_error.is_some() {
            check.error(format!("{path}.http2Error"), "is not supported");
        } else {
            check.warning(&path, "without a status nothing is aborted");
        }
        if abort.percentage.is_none() {
            check.warning(&path, "without a percentage no request is aborted");
        }
    }
}

fn http_status(status: i64, path: impl Into<String>, check: &mut Check) {
    if !(200..=600).contains(&status) {
        check.error(path, format!("an HTTP status is between 200 and 599, not {status}"));
    }
}

fn is_grpc_status(status: &str) -> bool {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.contains(&status)
}

fn mirrors(rule: &HttpRoute, path: &str, check: &mut Check) {
    if let Some(percent) = rule.mirror_percent {
        check.warning(format!("{path}.mirrorPercent"), "is deprecated; use mirrorPercentage");
        if percent > 100 {
            check.error(format!("{path}.mirrorPercent"), format!("a percentage is at most 100, not {percent}"));
        }
    }
    if let Some(percentage) = rule.mirror_percentage.filter(|percentage| !(0.0..=100.0).contains(&percentage.value)) {
        check.error(format!("{path}.mirrorPercentage"), format!("a percentage is between 0 and 100, not {}", percentage.value));
    }
    if let Some(mirror) = &rule.mirror {
        check.destination(mirror, &format!("{path}.mirror"));
    }
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        let place = format!("{path}.mirrors[{index}]");
        check.destination(&mirror.destination, &format!("{place}.destination"));
        if let Some(percentage) = mirror.percentage.filter(|percentage| !(0.0..=100.0).contains(&percentage.value)) {
            check.error(format!("{place}.percentage"), format!("a percentage is between 0 and 100, not {}", percentage.value));
        }
    }
}

fn redirect(redirect: &HttpRedirect, matches: &[HttpMatchRequest], path: &str, check: &mut Check) {
    check.at_most_one(path, &[("uri", !redirect.uri.is_empty()), ("prefixRewrite", !redirect.prefix_rewrite.is_empty())]);
    check.at_most_one(path, &[("port", redirect.port.is_some()), ("derivePort", redirect.derive_port.is_some())]);
    if !redirect.prefix_rewrite.is_empty() && matches.iter().any(|m| m.uri.as_ref().is_none_or(|uri| uri.prefix.is_none())) {
        check.error(format!("{path}.prefixRewrite"), "needs a uri.prefix in every match");
    }
    let says_something = !redirect.uri.is_empty()
        || !redirect.authority.is_empty()
        || !redirect.scheme.is_empty()
        || !redirect.prefix_rewrite.is_empty()
        || redirect.port.is_some()
        || redirect.derive_port.is_some();
    if !says_something {
        check.error(path, "one of uri, authority, scheme and port is needed");
    }
    if redirect.redirect_code != 0 && !(300..=399).contains(&redirect.redirect_code) {
        check.error(
            format!("{path}.redirectCode"),
            format!("{} is not a redirect; use 301, 302, 303, 307 or 308", redirect.redirect_code),
        );
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        check.error(format!("{path}.scheme"), format!("{:?} is not http or https", redirect.scheme));
    }
    if let Some(port) = redirect.port {
        check.port(port, format!("{path}.port"));
    }
}

fn direct_response(response: &HttpDirectResponse, path: &str, check: &mut Check) {
    http_status(i64::from(response.status), format!("{path}.status"), check);
    let Some(body) = &response.body else { return };
    check.at_most_one(&format!("{path}.body"), &[("string", body.string.is_some()), ("bytes", body.bytes.is_some())]);
    let size = body.string.as_ref().map_or(0, String::len).max(body.bytes.as_ref().map_or(0, |bytes| bytes.len() * 3 / 4));
    if size >= MAX_DIRECT_RESPONSE {
        check.error(format!("{path}.body"), format!("has {size} bytes, and may have less than 1 MB"));
    } else if size >= LARGE_DIRECT_RESPONSE {
        check.warning(format!("{path}.body"), format!("has {size} bytes, which every proxy is sent"));
    }
}

fn retries(retries: &HttpRetry, path: &str, check: &mut Check) {
    check.non_negative(format!("{path}.attempts"), retries.attempts);
    if retries.attempts == 0
        && (retries.per_try_timeout.is_some() || !retries.retry_on.is_empty() || retries.retry_remote_localities.is_some())
    {
        check.error(path, "attempts: 0 turns retries off, so nothing else can stand beside it");
    }
    for word in retries.retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let code = word.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        if !code && !is_retry_condition(word) {
            check.error(format!("{path}.retryOn"), format!("{word:?} is neither a retry condition nor a status code"));
        }
    }
}

fn is_retry_condition(word: &str) -> bool {
    matches!(
        word,
        "5xx"
            | "gateway-error"
            | "reset"
            | "reset-before-request"
            | "connect-failure"
            | "retriable-4xx"
            | "refused-stream"
            | "retriable-status-codes"
            | "retriable-headers"
            | "envoy-ratelimited"
            | "http3-post-connect-failure"
            | "cancelled"
            | "deadline-exceeded"
            | "internal"
            | "resource-exhausted"
            | "unavailable"
    )
}

fn rewrite(rewrite: &HttpRewrite, path: &str, check: &mut Check) {
    check.at_most_one(path, &[("uri", !rewrite.uri.is_empty()), ("uriRegexRewrite", rewrite.uri_regex_rewrite.is_some())]);
    match &rewrite.uri_regex_rewrite {
        Some(regex) if regex.r#match.is_empty() || regex.rewrite.is_empty() => {
            check.error(format!("{path}.uriRegexRewrite"), "match and rewrite are both needed");
        }
        Some(regex) => check.regex(&regex.r#match, format!("{path}.uriRegexRewrite.match")),
        None if rewrite.uri.is_empty() && rewrite.authority.is_empty() => {
            check.error(path, "one of uri, uriRegexRewrite and authority is needed");
        }
        None => {}
    }
}

/// The authority can be given in one place only.
fn authority(rewrite: Option<&HttpRewrite>, headers: Option<&Headers>, path: &str, check: &mut Check) {
    let request = headers.and_then(|headers| headers.request.as_ref());
    let is_authority = |name: &&String| name.eq_ignore_ascii_case("host") || *name == ":authority";
    let in_headers = request.map_or(0, |request| request.set.keys().chain(request.add.keys()).filter(is_authority).count());
    let in_rewrite = usize::from(rewrite.is_some_and(|rewrite| !rewrite.authority.is_empty()));
    if in_headers + in_rewrite > 1 {
        check.error(path, "the authority is set more than once, by rewrite.authority or headers.request");
    }
}
