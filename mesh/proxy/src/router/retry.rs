//! When a request is tried again (facts 17 to 19).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use meshlab_proxy_config::RetryOn;
use rand::Rng;

use super::attempt::ResetReason;
use crate::cluster::Cluster;
use crate::cluster::breaker::{Permit, Resource};
use crate::http::edge;
use crate::options::milliseconds;
use crate::route::action::Retry;
use crate::telemetry::grpc;

/// What applies to one request: the route's policy with what the request's own headers change.
pub(crate) type Policy = Arc<Retry>;

/// The first back-off that Envoy takes where nothing is configured.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
/// Back-off stops to grow at so many times its base.
const MAXIMUM_BACKOFF: u32 = 10;
/// Retries that a request can ask for itself.
const MAXIMUM_HEADER_RETRIES: u32 = 32;

/// The policy of one request. `x-envoy-retry-on`, `x-envoy-retry-grpc-on`, `x-envoy-max-retries`,
/// `x-envoy-retriable-status-codes` and the per-try timeout header go before the route's. Clients' own were removed: these are
/// headers that the route sets. They end here.
pub(crate) fn policy(route: Option<&Policy>, headers: &mut HeaderMap) -> Option<Policy> {
    // One look at all names is cheaper than one for each of these headers, and few requests have any.
    if !headers.keys().any(is_about_retries) {
        return route.cloned();
    }
    let policy = with_headers(route, headers);
    for name in [
        edge::RETRY_ON,
        edge::RETRY_GRPC_ON,
        edge::MAX_RETRIES,
        edge::PER_TRY_TIMEOUT,
        HeaderName::from_static(RETRIABLE_STATUS_CODES),
    ] {
        headers.remove(name);
    }
    policy
}

const RETRIABLE_STATUS_CODES: &str = "x-envoy-retriable-status-codes";

fn is_about_retries(name: &HeaderName) -> bool {
    let rest = name.as_str().strip_prefix("x-envoy-");
    rest.is_some_and(|rest| ["retr", "max-retries", "upstream-rq-per-try"].iter().any(|start| rest.starts_with(start)))
}

fn with_headers(route: Option<&Policy>, headers: &HeaderMap) -> Option<Policy> {
    let text = |name| headers.get(name).map(HeaderValue::to_str).and_then(Result::ok);
    let header_on: Vec<&str> =
        [text(edge::RETRY_ON), text(edge::RETRY_GRPC_ON)].into_iter().flatten().flat_map(|list| list.split(',')).collect();
    let max_retries = text(edge::MAX_RETRIES).and_then(|value| value.parse().ok());
    let per_try = text(edge::PER_TRY_TIMEOUT).and_then(|value| value.parse().ok()).map(milliseconds);
    let codes: Vec<u16> = headers
        .get(RETRIABLE_STATUS_CODES)
        .and_then(|value| value.to_str().ok())
        .map(|list| list.split(',').filter_map(|code| code.trim().parse().ok()).collect())
        .unwrap_or_default();
    if header_on.is_empty() && max_retries.is_none() && per_try.is_none() && codes.is_empty() {
        return route.cloned();
    }
    let mut policy = route.map(|policy| Retry::clone(policy)).unwrap_or(Retry {
        attempts: 1,
        on: Vec::new(),
        status_codes: Vec::new(),
        per_try_timeout: None,
        backoff: DEFAULT_BACKOFF,
        prefer_other_hosts: false,
    });
    policy.on.extend(header_on.iter().filter_map(|name| condition(name.trim())));
    policy.status_codes.extend(codes);
    policy.attempts = max_retries.map_or(policy.attempts, |wanted: u32| wanted.min(MAXIMUM_HEADER_RETRIES));
    policy.per_try_timeout = per_try.or(policy.per_try_timeout);
    Some(Arc::new(policy))
}

fn condition(name: &str) -> Option<RetryOn> {
    serde_json::from_value(serde_json::Value::from(name)).ok()
}

/// The retries of one request.
pub(crate) struct RetryState {
    policy: Option<Policy>,
    used: u32,
}

/// Whether there is another attempt.
pub(crate) enum RetryDecision {
    No,
    /// There would be, but all are used up.
    LimitExceeded,
    /// There would be, but too many are under way in the cluster.
    Overflow,
    Yes {
        backoff: Duration,
        permit: Permit,
    },
}

impl RetryState {
    pub(crate) fn new(policy: Option<Policy>) -> Self {
        Self { policy, used: 0 }
    }

    pub(crate) fn remaining(&self) -> u32 {
        self.policy.as_ref().map_or(0, |policy| policy.attempts.saturating_sub(self.used))
    }

    pub(crate) fn prefers_other_hosts(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.prefer_other_hosts)
    }

    pub(crate) fn per_try_timeout(&self) -> Option<Duration> {
        self.policy.as_ref().and_then(|policy| policy.per_try_timeout)
    }

    pub(crate) fn on_response(
        &mut self,
        status: u16,
        headers: &HeaderMap,
        repeatable: bool,
        cluster: &Arc<Cluster>,
    ) -> RetryDecision {
        let wanted = self.policy.as_ref().is_some_and(|policy| wants_after_response(policy, status, headers));
        self.decide(wanted, repeatable, cluster)
    }

    pub(crate) fn on_reset(&mut self, reason: ResetReason, repeatable: bool, cluster: &Arc<Cluster>) -> RetryDecision {
        let wanted = self.policy.as_ref().is_some_and(|policy| wants_after_reset(policy, reason));
        self.decide(wanted, repeatable, cluster)
    }

    fn decide(&mut self, wanted: bool, repeatable: bool, cluster: &Arc<Cluster>) -> RetryDecision {
        let Some(policy) = self.policy.as_ref().filter(|_| wanted) else { return RetryDecision::No };
        if self.used >= policy.attempts {
            cluster.stats.upstream_rq_retry_limit_exceeded.increment();
            return RetryDecision::LimitExceeded;
        }
        // The body is longer than what is kept: the request cannot be made again.
        if !repeatable {
            return RetryDecision::No;
        }
        let Some(permit) = cluster.breaker.acquire(Resource::Retries) else {
            cluster.stats.upstream_rq_retry_overflow.increment();
            return RetryDecision::Overflow;
        };
        cluster.stats.upstream_rq_retry.increment();
        let backoff = jittered(policy.backoff, self.used);
        self.used += 1;
        RetryDecision::Yes { backoff, permit }
    }
}

/// Full jitter over an interval that doubles with every retry.
fn jittered(base: Duration, retry: u32) -> Duration {
    let interval = base.saturating_mul((1 << retry.min(4)).min(MAXIMUM_BACKOFF));
    Duration::from_micros(rand::rng().random_range(0..interval.as_micros().max(1) as u64))
}

fn wants_after_response(policy: &Policy, status: u16, headers: &HeaderMap) -> bool {
    let on = |condition| policy.on.contains(&condition);
    if headers.contains_key("x-envoy-ratelimited") {
        return on(RetryOn::EnvoyRatelimited);
    }
    let by_status = on(RetryOn::ServerError) && status >= 500
        || on(RetryOn::GatewayError) && matches!(status, 502..=504)
        || on(RetryOn::Retriable4xx) && status == 409
        || on(RetryOn::RetriableStatusCodes) && policy.status_codes.contains(&status);
    by_status
        || match grpc::status(headers) {
            Some(1) => on(RetryOn::Cancelled),
            Some(4) => on(RetryOn::DeadlineExceeded),
            Some(8) => on(RetryOn::ResourceExhausted),
            Some(13) => on(RetryOn::Internal),
            Some(14) => on(RetryOn::Unavailable),
            _ => false,
        }
}

fn wants_after_reset(policy: &Policy, reason: ResetReason) -> bool {
    let on = |condition| policy.on.contains(&condition);
    match reason {
        ResetReason::Overflow | ResetReason::ClientBody => false,
        // No answer at all counts as the 5xx that the client would get.
        _ if on(RetryOn::ServerError) || on(RetryOn::GatewayError) || on(RetryOn::Reset) => true,
        ResetReason::ConnectFailure | ResetReason::ConnectTimeout => {
            on(RetryOn::ConnectFailure) || on(RetryOn::ResetBeforeRequest)
        }
        ResetReason::RefusedStream => on(RetryOn::RefusedStream) || on(RetryOn::ResetBeforeRequest),
        // The request was on its way by then.
        ResetReason::ConnectionTermination
        | ResetReason::RemoteReset
        | ResetReason::ProtocolError
        | ResetReason::PerTryTimeout => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy_on(on: &[RetryOn]) -> Policy {
        Arc::new(Retry {
            attempts: 2,
            on: on.to_vec(),
            status_codes: vec![418],
            per_try_timeout: None,
            backoff: DEFAULT_BACKOFF,
            prefer_other_hosts: true,
        })
    }

    #[test]
    fn fact_17_the_default_conditions_do_not_include_503_or_a_per_try_timeout() {
        let default = policy_on(&[
            RetryOn::ConnectFailure,
            RetryOn::RefusedStream,
            RetryOn::Unavailable,
            RetryOn::Cancelled,
            RetryOn::RetriableStatusCodes,
        ]);
        let none = HeaderMap::new();
        assert!(!wants_after_response(&default, 503, &none));
        assert!(wants_after_response(&default, 418, &none), "a status named in retryOn");
        assert!(wants_after_reset(&default, ResetReason::ConnectFailure));
        assert!(wants_after_reset(&default, ResetReason::RefusedStream));
        assert!(!wants_after_reset(&default, ResetReason::ConnectionTermination));
        assert!(!wants_after_reset(&default, ResetReason::PerTryTimeout));
        let mut unavailable = HeaderMap::new();
        unavailable.insert("grpc-status", HeaderValue::from_static("14"));
        assert!(wants_after_response(&default, 200, &unavailable));
    }

    #[test]
    fn fact_19_inbound_retries_only_where_the_request_was_not_taken() {
        let inbound = policy_on(&[RetryOn::ResetBeforeRequest]);
        assert!(wants_after_reset(&inbound, ResetReason::ConnectFailure));
        assert!(!wants_after_reset(&inbound, ResetReason::ConnectionTermination), "it was sent by then");
        assert!(!wants_after_reset(&inbound, ResetReason::RemoteReset));
        assert!(!wants_after_response(&inbound, 503, &HeaderMap::new()));
    }

    #[test]
    fn an_overflow_is_never_retried() {
        assert!(!wants_after_reset(&policy_on(&[RetryOn::ServerError, RetryOn::Reset]), ResetReason::Overflow));
    }

    #[test]
    fn back_off_doubles_up_to_ten_times_the_base() {
        let base = Duration::from_millis(25);
        for (retry, most) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250)] {
            assert!((0..200).all(|_| jittered(base, retry) <= Duration::from_millis(most)), "retry {retry}");
        }
    }
}
