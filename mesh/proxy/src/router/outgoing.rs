//! The request as it is sent.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use hyper::upgrade::OnUpgrade;

use super::Target;
use crate::http::body::{ClientBody, Counted, Progress, Replay, RequestBody};
use crate::http::edge;
use crate::http::exchange::Exchange;
use crate::http::handler::Received;
use crate::route::headers::{HeaderChanges, Side};
use crate::telemetry::format::View;
use crate::telemetry::{export, grpc};

/// A protocol change that the client asks for.
pub(crate) struct UpgradeRequest {
    pub(crate) protocol: HeaderValue,
    pub(crate) client: OnUpgrade,
}

/// A request on its way out.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) authority: HeaderValue,
    pub(crate) scheme: Scheme,
    /// Of the client.
    pub(crate) version: Version,
    /// Without `host`.
    pub(crate) headers: HeaderMap,
    pub(crate) upgrade: Option<UpgradeRequest>,
    body: OutgoingBody,
}

enum OutgoingBody {
    Empty,
    /// Not sent yet.
    Fresh(Box<Counted>, Arc<Progress>),
    /// Sent, or being sent, and not kept.
    Gone(Arc<Progress>),
    Kept(Replay),
}

impl Outgoing {
    pub(crate) fn new(received: Received, scheme: Scheme, body: ClientBody, grpc: bool) -> Self {
        let Received { method, version, authority, path, headers } = received;
        let body = if body.is_empty() {
            OutgoingBody::Empty
        } else {
            let counted = Counted::new(body, grpc);
            let progress = counted.progress();
            OutgoingBody::Fresh(Box::new(counted), progress)
        };
        Self { method, path, authority, scheme, version, headers, upgrade: None, body }
    }

    pub(crate) fn authority_text(&self) -> &str {
        self.authority.to_str().unwrap_or("")
    }

    /// The limit of the whole exchange: the route's. A gRPC request may tell a shorter one itself; without one of the route's, any
    /// (Envoy's `max_grpc_timeout`).
    pub(crate) fn timeout(&self, route: Option<Duration>) -> Option<Duration> {
        let told = self.is_grpc().then(|| grpc::timeout(&self.headers)).flatten();
        match (told, route) {
            (Some(told), Some(route)) => Some(told.min(route)),
            (told, route) => told.or(route),
        }
    }

    fn is_grpc(&self) -> bool {
        grpc::is_grpc(&self.headers)
    }

    /// Makes the changes that route and destination want.
    pub(crate) fn change(&mut self, exchange: &mut Exchange, target: Target<'_>) {
        let Target { route, forward, destination } = target;
        let (outer, own) = (&route.request_headers, &destination.request_headers);
        let mut changed = !outer.is_empty() || !own.is_empty();
        if changed {
            let view =
                View { info: &exchange.info, telemetry: &exchange.telemetry, request_headers: None, response_headers: None };
            if forward.destinations.len() == 1 {
                HeaderChanges::apply_all(&[outer, own], Side::Request, &mut self.headers, view);
            } else {
                // Of several, Envoy makes a destination's first.
                own.apply(Side::Request, &mut self.headers, view);
                outer.apply(Side::Request, &mut self.headers, view);
            }
        }
        if let Some(authority) = forward.authority_rewrite.as_ref().or(destination.authority_rewrite.as_ref()) {
            let original = std::mem::replace(&mut self.authority, authority.clone());
            self.headers.insert(edge::ORIGINAL_HOST, original);
            if let Some(http) = &mut exchange.info.http {
                http.authority = String::from_utf8_lossy(authority.as_bytes()).into_owned();
            }
            changed = true;
        }
        if let Some(rewrite) = &forward.rewrite {
            let rewritten = rewrite.apply(&route.matcher.path, &self.path);
            if let Ok(original) = HeaderValue::from_str(&self.path) {
                self.headers.insert(edge::ORIGINAL_PATH, original);
            }
            self.path = rewritten;
            changed = true;
        }
        if changed {
            // Logs see the request as it is sent.
            let names = &exchange.telemetry.request_captures;
            exchange.info.request_captures = names.iter().map(|name| self.headers.get(name).cloned()).collect();
            if let (Some(open), Some(tracing)) = (&mut exchange.span, &exchange.telemetry.config.tracing) {
                open.headers = export::for_tags(tracing, &self.headers);
            }
        }
        self.headers.remove(header::EXPECT);
        if exchange.is_client_side() {
            self.headers.insert(edge::PEER_METADATA, exchange.telemetry.workload_header.clone());
            self.headers.insert(edge::PEER_METADATA_ID, exchange.telemetry.node_header.clone());
            if let Some(operation) = &route.decorator {
                self.headers.insert(edge::DECORATOR, operation.clone());
            }
        }
    }

    /// Tells the upstream how long it has.
    pub(crate) fn announce(&mut self, expected: Option<Duration>) {
        let Some(expected) = expected else {
            self.headers.remove(edge::EXPECTED_TIMEOUT);
            return;
        };
        let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        self.headers.insert(edge::EXPECTED_TIMEOUT, HeaderValue::from(milliseconds));
        if self.is_grpc() {
            self.headers.insert(grpc::TIMEOUT, grpc::timeout_value(milliseconds));
        }
    }

    /// Keeps the body while it is sent, for retries and mirrors.
    pub(crate) fn keep_body(&mut self, keep: bool, limit: usize) {
        if !keep {
            return;
        }
        self.body = match std::mem::replace(&mut self.body, OutgoingBody::Empty) {
            OutgoingBody::Fresh(counted, _) => OutgoingBody::Kept(Replay::new(*counted, limit)),
            other => other,
        };
    }

    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match &self.body {
            OutgoingBody::Empty => None,
            OutgoingBody::Fresh(_, progress) | OutgoingBody::Gone(progress) => Some(progress.clone()),
            OutgoingBody::Kept(replay) => Some(replay.progress()),
        }
    }

    /// The body's copy, for a mirror; `None` where there is no body.
    pub(crate) fn kept(&self) -> Option<&Replay> {
        match &self.body {
            OutgoingBody::Kept(replay) => Some(replay),
            _ => None,
        }
    }

    /// Whether the request could be sent once more.
    pub(crate) fn can_repeat(&self) -> bool {
        match &self.body {
            OutgoingBody::Empty | OutgoingBody::Fresh(..) => self.upgrade.is_none(),
            OutgoingBody::Gone(_) => false,
            OutgoingBody::Kept(replay) => replay.is_whole(),
        }
    }

    fn take_body(&mut self) -> RequestBody {
        match &self.body {
            OutgoingBody::Empty => RequestBody::Empty,
            OutgoingBody::Kept(replay) => RequestBody::Replayed(replay.read()),
            OutgoingBody::Gone(_) | OutgoingBody::Fresh(..) => {
                let progress = self.progress().unwrap_or_default();
                match std::mem::replace(&mut self.body, OutgoingBody::Gone(progress)) {
                    OutgoingBody::Fresh(counted, _) => RequestBody::Streamed(counted),
                    _ => RequestBody::Empty,
                }
            }
        }
    }

    /// The request for one attempt. The headers are given away unless another attempt may follow.
    pub(crate) fn request(&mut self, http2: bool, attempt: Option<u32>, keep_headers: bool) -> Option<Request<RequestBody>> {
        let mut headers = std::mem::take(&mut self.headers);
        if keep_headers {
            // What was received has room for what is added, a copy has not: so the copy is what is kept.
            self.headers = headers.clone();
        }
        if let Some(attempt) = attempt {
            headers.insert(edge::ATTEMPT_COUNT, edge::decimal(attempt.into()));
        }
        // As Envoy has it: where a request usually has a body, an empty one is told of.
        let silent = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE, Method::CONNECT];
        if !http2 && matches!(self.body, OutgoingBody::Empty) && self.upgrade.is_none() && !silent.contains(&self.method) {
            headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
        }
        let path = PathAndQuery::try_from(self.path.as_str()).ok()?;
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(path);
        if http2 {
            parts.scheme = Some(self.scheme.clone());
            parts.authority = Some(Authority::try_from(self.authority.as_bytes()).ok()?);
        } else {
            headers.insert(header::HOST, self.authority.clone());
            if let Some(upgrade) = &self.upgrade {
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, upgrade.protocol.clone());
            }
        }
        let mut request = Request::new(self.take_body());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.headers_mut() = headers;
        Some(request)
    }
}
