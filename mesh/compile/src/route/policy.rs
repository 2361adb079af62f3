//! Retries, faults, cross-origin sharing, header changes and hashing.

use meshlab_istio_api::{
    ConsistentHashLb, CorsPolicy, HeaderOperations as Operations, HttpFaultInjection, HttpRetry, UnmatchedPreflights,
};
use meshlab_proxy_config::{
    AbortStatus, Cors, Fault, FaultAbort, FaultDelay, Fraction, HashPolicy, HeaderOperations, RetryOn, RetryPolicy, StringMatch,
};

use super::matching::string_match;

/// Envoy's first back-off.
const BACKOFF_BASE_MS: u64 = 25;

/// What is retried unless a rule says otherwise.
pub(crate) fn default_retry(hashed: bool) -> RetryPolicy {
    RetryPolicy {
        attempts: 2,
        on: vec![
            RetryOn::ConnectFailure,
            RetryOn::RefusedStream,
            RetryOn::Unavailable,
            RetryOn::Cancelled,
            RetryOn::RetriableStatusCodes,
        ],
        status_codes: Vec::new(),
        per_try_timeout_ms: 0,
        backoff_base_ms: BACKOFF_BASE_MS,
        // A hashed request belongs to one host, so the same host is tried again.
        prefer_other_hosts: !hashed,
    }
}

/// What a sidecar retries towards its own application.
pub(crate) fn inbound_retry() -> RetryPolicy {
    RetryPolicy { on: vec![RetryOn::ResetBeforeRequest], prefer_other_hosts: false, ..default_retry(false) }
}

pub(super) fn retry(retries: Option<&HttpRetry>, hashed: bool) -> Option<RetryPolicy> {
    let mut out = default_retry(hashed);
    let Some(retries) = retries else { return Some(out) };
    out.attempts = u32::try_from(retries.attempts).ok().filter(|attempts| *attempts > 0)?;
    if !retries.retry_on.is_empty() {
        (out.on, out.status_codes) = parse_retry_on(&retries.retry_on);
    }
    if let Some(timeout) = retries.per_try_timeout {
        out.per_try_timeout_ms = timeout.millis();
    }
    if let Some(prefer) = retries.retry_ignore_previous_hosts {
        out.prefer_other_hosts = prefer;
    }
    if let Some(backoff) = retries.backoff {
        out.backoff_base_ms = backoff.millis();
    }
    Some(out)
}

/// Conditions and status codes; numbers among the words are codes.
fn parse_retry_on(text: &str) -> (Vec<RetryOn>, Vec<u16>) {
    let mut on = Vec::new();
    let mut codes = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word.parse::<u16>() {
            Ok(code) if (100..600).contains(&code) => codes.push(code),
            _ => on.extend(retry_on(word)),
        }
    }
    if !codes.is_empty() && !on.contains(&RetryOn::RetriableStatusCodes) {
        on.push(RetryOn::RetriableStatusCodes);
    }
    (on, codes)
}

/// A word of `retryOn`.
fn retry_on(word: &str) -> Option<RetryOn> {
    serde_json::from_value(word.into()).ok()
}

pub(super) fn fault(fault: &HttpFaultInjection) -> Option<Fault> {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let percent = delay.percentage.map_or(f64::from(delay.percent), |percentage| percentage.value);
        Some(FaultDelay { delay_ms: delay.fixed_delay?.millis(), fraction: Fraction::from_percent(percent) })
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let status = match (abort.http_status, &abort.grpc_status) {
            (Some(status), _) => AbortStatus::Http(u16::try_from(status).ok()?),
            (None, Some(name)) => AbortStatus::Grpc(grpc_status(name)?),
            (None, None) => return None,
        };
        // An abort without a percentage aborts nothing.
        let percent = abort.percentage.map_or(0.0, |percentage| percentage.value);
        Some(FaultAbort { status, fraction: Fraction::from_percent(percent) })
    });
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

/// A gRPC status code by name.
fn grpc_status(name: &str) -> Option<u32> {
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
    NAMES.iter().position(|known| *known == name).and_then(|code| u32::try_from(code).ok())
}

pub(super) fn cors(policy: &CorsPolicy) -> Cors {
    let allow_origins = if policy.allow_origins.is_empty() {
        policy.allow_origin.iter().map(|origin| StringMatch::Exact(origin.clone())).collect()
    } else {
        policy.allow_origins.iter().map(|origin| string_match(origin).unwrap_or(StringMatch::Present)).collect()
    };
    Cors {
        allow_origins,
        allow_methods: policy.allow_methods.clone(),
        allow_headers: policy.allow_headers.clone(),
        expose_headers: policy.expose_headers.clone(),
        max_age_s: policy.max_age.map(|age| age.seconds()),
        allow_credentials: policy.allow_credentials,
        forward_unmatched_preflights: policy.unmatched_preflights != UnmatchedPreflights::Ignore,
    }
}

/// Header changes without those of the authority, which become a rewrite and are returned beside them.
pub(super) fn headers(operations: Option<&Operations>) -> (HeaderOperations, Option<String>) {
    let Some(operations) = operations else { return Default::default() };
    let authority = |map: &std::collections::BTreeMap<String, String>| {
        map.iter()
            .find(|(key, _)| key.eq_ignore_ascii_case("host") || key.eq_ignore_ascii_case(":authority"))
            .map(|(_, value)| value.clone())
    };
    let ours = |key: &str| !key.starts_with(':') && !key.eq_ignore_ascii_case("host");
    let keep = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().filter(|(key, _)| ours(key)).map(|(key, value)| (key.to_ascii_lowercase(), value.clone())).collect()
    };
    let out = HeaderOperations {
        set: keep(&operations.set),
        add: keep(&operations.add),
        remove: operations.remove.iter().filter(|key| ours(key)).map(|key| key.to_ascii_lowercase()).collect(),
    };
    (out, authority(&operations.set).or_else(|| authority(&operations.add)))
}

pub(super) fn hash_policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    if let Some(header) = &hash.http_header_name {
        return Some(HashPolicy::Header(header.to_ascii_lowercase()));
    }
    if let Some(cookie) = &hash.http_cookie {
        return Some(HashPolicy::Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl_s: cookie.ttl.map(|ttl| ttl.0.seconds()),
        });
    }
    if let Some(parameter) = &hash.http_query_parameter_name {
        return Some(HashPolicy::Query(parameter.clone()));
    }
    hash.use_source_ip.filter(|used| *used).map(|_| HashPolicy::SourceIp)
}
