//! Forwarding a request: cluster, endpoint, connection, attempts, and the response's way back.

mod attempt;
mod mirror;
mod outgoing;
pub(crate) mod retry;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::attempt::{Attempted, Failure, ResetReason};
pub(crate) use self::attempt::{ends_early, is_stream_reset};
pub(crate) use self::outgoing::{Outgoing, UpgradeRequest};
use self::retry::{RetryDecision, RetryState};
use crate::cluster::Cluster;
use crate::cluster::members::Choice;
use crate::cluster::outlier::{self, HostOutcome};
use crate::flags::Flags;
use crate::http::body::Progress;
use crate::http::edge;
use crate::http::exchange::{Exchange, ResponseBody, UpstreamStream};
use crate::http::handler::{ResponseContext, finish_headers};
use crate::http::local_reply::LocalReply;
use crate::http::upgrade;
use crate::matching::drawn;
use crate::route::Route;
use crate::route::action::{Destination, Forward};
use crate::route::headers::Side;
use crate::snapshot::Snapshot;
use crate::telemetry::format::View;
use crate::telemetry::grpc;

/// The route's limit on the whole exchange, counted from the end of the request.
struct RouteTimeout {
    limit: Duration,
    deadline: Option<Instant>,
}

impl RouteTimeout {
    async fn expired(&mut self, progress: Option<&Arc<Progress>>) {
        let deadline = match (self.deadline, progress) {
            (Some(deadline), _) => deadline,
            (None, Some(progress)) => {
                progress.wait().await;
                Instant::now() + self.limit
            }
            (None, None) => Instant::now() + self.limit,
        };
        self.deadline = Some(deadline);
        tokio::time::sleep_until(deadline).await;
    }
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) route: &'a Route,
    pub(crate) forward: &'a Forward,
    pub(crate) destination: &'a Destination,
}

impl Target<'_> {
    /// Whether changes to the response have operators, which may read the request's headers.
    fn reads_request_for_response(self) -> bool {
        self.route.response_headers.has_operators() || self.destination.response_headers.has_operators()
    }
}

/// Forwards a request as its route says.
pub(crate) async fn forward(
    mut exchange: Box<Exchange>,
    snapshot: &Snapshot,
    target: Target<'_>,
    mut outgoing: Outgoing,
    context: ResponseContext,
) -> Response<ResponseBody> {
    let Target { forward, destination, .. } = target;
    let Some(cluster) = exchange.info.cluster.clone() else {
        trail(&mut exchange, |trail| trail.cluster(&destination.cluster, None));
        let reply = LocalReply::new(503, "cluster_not_found").flag(Flags::NO_CLUSTER);
        return failed(exchange, target, &context, reply);
    };
    trail(&mut exchange, |trail| trail.cluster(&destination.cluster, Some(&cluster.config.origins)));
    cluster.stats.upstream_rq_total.increment();
    cluster.warmed().await;

    let limit = outgoing.timeout(forward.timeout);
    let timeout = limit.map(|limit| RouteTimeout { limit, deadline: None });
    let (hash, cookie) =
        forward.hash(&outgoing.headers, outgoing.authority_text(), &outgoing.path, exchange.info.connection.peer.ip());
    outgoing.change(&mut exchange, target);
    let mut policy = retry::policy(forward.retry.as_ref(), &mut outgoing.headers);
    // An attempt may not take longer than all of them.
    let too_long = |per_try: Duration| limit.is_some_and(|limit| per_try >= limit);
    if let Some(policy) = policy.as_mut().filter(|policy| policy.per_try_timeout.is_some_and(too_long)) {
        Arc::make_mut(policy).per_try_timeout = None;
    }
    outgoing.announce(policy.as_ref().and_then(|policy| policy.per_try_timeout).or(limit));
    let request_headers = target.reads_request_for_response().then(|| outgoing.headers.clone());

    let mirrors: Vec<Arc<Cluster>> = forward
        .mirrors
        .iter()
        .filter(|mirror| drawn(mirror.fraction))
        .filter_map(|mirror| snapshot.clusters.get(&mirror.cluster).cloned())
        .collect();
    outgoing.keep_body(policy.is_some() || !mirrors.is_empty(), exchange.proxy.limits.max_replay_bytes);
    exchange.progress = outgoing.progress();
    if !mirrors.is_empty() {
        mirror::send(&outgoing, exchange.proxy.own_address(), mirrors);
    }
    let retries = RetryState::new(policy);
    let progress = exchange.progress.clone();
    let sent = {
        // Pinned where it is made: the future of an attempt is large, and would be copied into whatever polls it.
        let sending = pin!(attempts(&mut exchange, &cluster, &mut outgoing, retries, timeout, hash));
        match context.stream_idle_timeout {
            None => sending.await,
            Some(limit) => tokio::select! {
                biased;
                sent = sending => sent,
                () = idle(progress, limit) => Err(stream_timeout()),
            },
        }
    };
    match sent {
        Ok(sent) => respond(exchange, target, outgoing, context, sent, Addition { cookie, request_headers }),
        Err(reply) => failed(exchange, target, &context, reply),
    }
}

/// What a response is given besides what the upstream sent.
struct Addition {
    cookie: Option<HeaderValue>,
    /// The request's headers, where changes to the response read them.
    request_headers: Option<HeaderMap>,
}

/// The answer where there is none of an upstream.
fn failed(
    exchange: Box<Exchange>,
    target: Target<'_>,
    context: &ResponseContext,
    mut reply: LocalReply,
) -> Response<ResponseBody> {
    context.decorate(target.route, &mut reply.headers);
    reply.into_response(exchange)
}

/// What came of the attempts.
struct Sent {
    response: Response<Incoming>,
    stream: UpstreamStream,
    deadline: Option<Instant>,
}

async fn attempts(
    exchange: &mut Exchange,
    cluster: &Arc<Cluster>,
    outgoing: &mut Outgoing,
    mut retries: RetryState,
    mut timeout: Option<RouteTimeout>,
    hash: Option<u64>,
) -> Result<Sent, LocalReply> {
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut permit = None;
    let original_destination = Some(exchange.info.connection.local);
    let progress = exchange.progress.clone();
    loop {
        exchange.info.attempts += 1;
        let avoid = if retries.prefers_other_hosts() { &tried[..] } else { &[] };
        let Some(host) = cluster.choose(Choice { hash, avoid, original_destination }) else {
            trail(exchange, |trail| trail.no_endpoint());
            return Err(LocalReply::new(503, "no_healthy_upstream").body("no healthy upstream").flag(Flags::NO_HEALTHY_UPSTREAM));
        };
        exchange.body_unread = false;
        exchange.info.host = Some(host.clone());
        exchange.info.upstream = None;
        let started = Instant::now();
        let may_retry = retries.remaining() > 0;
        let attempted = {
            let connected = Notify::new();
            let sending = pin!(attempt::send(&mut exchange.info, cluster, &host, outgoing, may_retry, &connected));
            let per_try = retries.per_try_timeout().map(|limit| (limit, &connected));
            limited(sending, timeout.as_mut(), per_try, progress.as_ref()).await
        };
        let failure = match attempted {
            Limited::Done(Ok(Attempted { response, mut stream })) => {
                exchange.info.service_time_ms = Some(started.elapsed().as_millis() as u64);
                let status = response.status().as_u16();
                let judged = judged_status(status, response.headers(), exchange);
                outlier::observe(cluster, &host, HostOutcome::Status(judged));
                count_host(&host, judged);
                trail(exchange, |trail| trail.attempt(host.address, &format!("status {status}")));
                match retries.on_response(status, response.headers(), outgoing.can_repeat(), cluster) {
                    RetryDecision::No => {}
                    RetryDecision::LimitExceeded => exchange.info.flag(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED),
                    RetryDecision::Overflow => exchange.info.flag(Flags::UPSTREAM_OVERFLOW),
                    RetryDecision::Yes { backoff, permit: retry } => {
                        drop((response, stream));
                        permit = Some(retry);
                        tried.push(host.address);
                        pause(backoff, timeout.as_mut(), exchange).await?;
                        continue;
                    }
                }
                if exchange.info.attempts > 1 && status < 500 {
                    cluster.stats.upstream_rq_retry_success.increment();
                }
                cluster.stats.completed(status);
                stream._retry = permit.take();
                let deadline = timeout.and_then(|timeout| {
                    let ended = exchange.progress.as_ref().is_none_or(|progress| progress.ended());
                    timeout.deadline.or_else(|| ended.then(|| started + timeout.limit))
                });
                return Ok(Sent { response, stream, deadline });
            }
            Limited::Done(Err(failure)) => failure,
            Limited::RouteTimeout => {
                cluster.stats.upstream_rq_timeout.increment();
                host.stats.rq_timeout.increment();
                outlier::observe(cluster, &host, HostOutcome::LocalFailure);
                trail(exchange, |trail| trail.attempt(host.address, "route timeout"));
                return Err(route_timeout());
            }
            Limited::PerTryTimeout => {
                cluster.stats.upstream_rq_per_try_timeout.increment();
                host.stats.rq_timeout.increment();
                Failure::new(ResetReason::PerTryTimeout)
            }
        };
        if failure.reason != ResetReason::Overflow && failure.reason != ResetReason::ClientBody {
            outlier::observe(cluster, &host, HostOutcome::LocalFailure);
            host.stats.rq_error.increment();
        }
        trail(exchange, |trail| trail.attempt(host.address, &failure.to_string()));
        let decision = retries.on_reset(failure.reason, outgoing.can_repeat(), cluster);
        match decision {
            RetryDecision::Yes { backoff, permit: retry } => {
                permit = Some(retry);
                tried.push(host.address);
                pause(backoff, timeout.as_mut(), exchange).await?;
                continue;
            }
            RetryDecision::LimitExceeded => exchange.info.flag(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED),
            RetryDecision::Overflow => exchange.info.flag(Flags::UPSTREAM_OVERFLOW),
            RetryDecision::No => {}
        }
        let retried = exchange.info.attempts > 1;
        let reply = failure.into_reply(&mut exchange.info, retried);
        cluster.stats.completed(reply.status);
        return Err(reply);
    }
}

/// Ends when a request that is whole has had no answer for `limit`.
async fn idle(progress: Option<Arc<Progress>>, limit: Duration) {
    if let Some(progress) = progress {
        progress.wait().await;
    }
    tokio::time::sleep(limit).await;
}

fn stream_timeout() -> LocalReply {
    LocalReply::new(504, "stream_idle_timeout").body("stream timeout").flag(Flags::STREAM_IDLE_TIMEOUT)
}

fn route_timeout() -> LocalReply {
    LocalReply::new(504, "response_timeout").body("upstream request timeout").flag(Flags::UPSTREAM_REQUEST_TIMEOUT)
}

/// Waits before the next attempt, unless the route's time runs out first.
async fn pause(backoff: Duration, timeout: Option<&mut RouteTimeout>, exchange: &Exchange) -> Result<(), LocalReply> {
    let waiting = tokio::time::sleep(backoff);
    match timeout {
        None => {
            waiting.await;
            Ok(())
        }
        Some(timeout) => tokio::select! {
            () = waiting => Ok(()),
            () = timeout.expired(exchange.progress.as_ref()) => Err(route_timeout()),
        },
    }
}

enum Limited<T> {
    Done(T),
    RouteTimeout,
    PerTryTimeout,
}

/// Runs one attempt within the route's limit and its own, which begins when it has a connection. Without limits no timer is made.
async fn limited<T>(
    attempt: impl Future<Output = T>,
    timeout: Option<&mut RouteTimeout>,
    per_try: Option<(Duration, &Notify)>,
    progress: Option<&Arc<Progress>>,
) -> Limited<T> {
    if timeout.is_none() && per_try.is_none() {
        return Limited::Done(attempt.await);
    }
    let route_limit = async {
        match timeout {
            Some(timeout) => timeout.expired(progress).await,
            None => std::future::pending().await,
        }
    };
    let try_limit = async {
        let Some((per_try, connected)) = per_try else { return std::future::pending().await };
        connected.notified().await;
        if let Some(progress) = progress {
            progress.wait().await;
        }
        tokio::time::sleep(per_try).await;
    };
    tokio::select! {
        biased;
        done = attempt => Limited::Done(done),
        () = route_limit => Limited::RouteTimeout,
        () = try_limit => Limited::PerTryTimeout,
    }
}

/// Records for the decision trail, if one was asked for.
fn trail(exchange: &mut Exchange, record: impl FnOnce(&mut crate::trail::Trail)) {
    if let Some(trail) = &mut exchange.trail {
        record(trail);
    }
}

/// The status that health is judged by: a gRPC error counts as the HTTP status that stands for it.
fn judged_status(status: u16, headers: &http::HeaderMap, exchange: &Exchange) -> u16 {
    if !exchange.info.http.as_ref().is_some_and(|http| http.grpc) {
        return status;
    }
    grpc::status(headers).map_or(status, grpc::http_of_status)
}

fn count_host(host: &crate::cluster::host::Host, status: u16) {
    if status >= 500 {
        host.stats.rq_error.increment();
    } else {
        host.stats.rq_success.increment();
    }
}

/// The upstream's response on its way to the client.
fn respond(
    mut exchange: Box<Exchange>,
    target: Target<'_>,
    mut outgoing: Outgoing,
    context: ResponseContext,
    sent: Sent,
    addition: Addition,
) -> Response<ResponseBody> {
    let Target { route, forward, destination } = target;
    let Sent { response, stream, deadline } = sent;
    let (mut parts, incoming) = response.into_parts();
    exchange.info.details = Cow::Borrowed("via_upstream");
    let upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = upgraded.then(|| parts.headers.get(header::UPGRADE).cloned()).flatten();
    edge::remove_hop_by_hop_of_response(&mut parts.headers);
    learn_peer(&mut exchange, &mut parts.headers);
    let client_side = exchange.is_client_side();
    if client_side {
        parts.headers.remove(edge::DECORATOR);
    }
    if let Some(milliseconds) = exchange.info.service_time_ms {
        parts.headers.insert(edge::SERVICE_TIME, edge::decimal(milliseconds));
    }
    exchange.info.status = parts.status.as_u16();
    {
        let request_headers = addition.request_headers.as_ref();
        let view = View { info: &exchange.info, telemetry: &exchange.telemetry, request_headers, response_headers: None };
        if forward.destinations.len() > 1 {
            // Of several, Envoy makes a destination's first.
            destination.response_headers.apply(Side::Response, &mut parts.headers, view);
        }
        route.change_response(&mut parts.headers, view);
    }
    if let Some(cookie) = addition.cookie {
        parts.headers.append(header::SET_COOKIE, cookie);
    }
    context.decorate(route, &mut parts.headers);
    finish_headers(&mut exchange, &mut parts.headers);
    exchange.responded(parts.status.as_u16(), &parts.headers);
    if upgraded {
        return upgrade::tunnel(exchange, parts, incoming, stream, outgoing.upgrade.take(), protocol);
    }
    let idle = context.stream_idle_timeout;
    parts.version = http::Version::HTTP_11;
    Response::from_parts(parts, ResponseBody::upstream(incoming, exchange, stream, deadline, idle))
}

/// Takes note of the workload at the other end, and of its trail.
fn learn_peer(exchange: &mut Exchange, headers: &mut http::HeaderMap) {
    headers.remove(edge::PEER_METADATA_ID);
    if let Some(told) = headers.remove(edge::PEER_METADATA)
        && exchange.is_client_side()
    {
        exchange.info.peer = exchange.proxy.metrics.peers.decode(told.as_bytes());
    }
    if let Some(hops) = headers.remove(crate::trail::HEADER) {
        trail(exchange, |trail| trail.upstream(&hops));
    }
}
