//! One request and its response, from the first header to the last byte, and what is reported of it at the end.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use meshlab_proxy_config::Direction;
use tokio::time::{Instant, Sleep};

use super::body::{BodyError, Progress};
use crate::cluster::Cluster;
use crate::cluster::breaker::Permit;
use crate::cluster::host::{ActiveRequest, Host};
use crate::cluster::pool::Http1;
use crate::flags::Flags;
use crate::proxy::Shared;
use crate::stream::StreamInfo;
use crate::telemetry::Telemetry;
use crate::telemetry::format::View;
use crate::telemetry::grpc::{self, MessageCounter};
use crate::telemetry::span;
use crate::trail::Trail;

/// The state of one request. Dropping it reports it: as complete, or as given up by the client.
pub(crate) struct Exchange {
    pub(crate) info: StreamInfo,
    pub(crate) proxy: Arc<Shared>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) progress: Option<Arc<Progress>>,
    pub(crate) span: Option<OpenSpan>,
    pub(crate) trail: Option<Box<Trail>>,
    /// The client told who it is, so it is told who we are.
    pub(crate) tells_peer: bool,
    /// What the caller's proxy calls the operation.
    pub(crate) operation: Option<String>,
    /// The request has a body of which nothing was asked for yet: an answer to its head alone ends the connection, as the rest of
    /// the request would have to be thrown away.
    pub(crate) body_unread: bool,
    /// The response is out, or never will be for a reason that is recorded.
    pub(crate) complete: bool,
}

/// A span that has begun.
pub(crate) struct OpenSpan {
    pub(crate) context: span::Context,
    pub(crate) name: Option<String>,
    /// What of the request's headers its tags may show.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Exchange {
    /// Ends the request with what is recorded.
    fn report(&mut self) {
        let info = &mut self.info;
        if let Some(progress) = &self.progress {
            info.bytes_received = progress.bytes();
            info.request_messages = progress.messages();
        }
        if !self.complete {
            info.flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION);
            if info.details.is_empty() || info.details == "via_upstream" {
                info.details = Cow::Borrowed("downstream_remote_disconnect");
            }
        }
        let view = View { info, telemetry: &self.telemetry, request_headers: None, response_headers: None };
        let service = info.cluster.as_ref().map(|cluster| &cluster.service);
        if let Some(series) = self.proxy.metrics.series(view, service) {
            series.request(
                info.started.elapsed().as_secs_f64() * 1000.0,
                info.bytes_received + info.request_head_bytes,
                info.bytes_sent + info.response_head_bytes,
                (info.request_messages, info.response_messages),
            );
        }
        for log in self.telemetry.logs_on(info.connection.direction) {
            if let Some(line) = log.line(view) {
                self.proxy.options.access_log.write(&line);
            }
        }
        if let Some(open) = self.span.take() {
            crate::telemetry::export::finish(&self.proxy, view, open);
        }
    }

    /// Remembers the response's head for logs and metrics.
    pub(crate) fn responded(&mut self, status: u16, headers: &HeaderMap) {
        self.info.status = status;
        self.info.response_head_bytes = head_bytes(headers);
        self.info.grpc_status = grpc::status(headers);
        self.info.response_captures = self.telemetry.response_captures.iter().map(|name| headers.get(name).cloned()).collect();
    }

    pub(crate) fn is_client_side(&self) -> bool {
        self.info.connection.direction != Direction::Inbound
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.report();
    }
}

/// The bytes of a head on the wire, roughly as Envoy counts them.
pub(crate) fn head_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value): (_, &HeaderValue)| (name.as_str().len() + value.len()) as u64).sum()
}

/// What a request occupies upstream until its response has ended.
pub(crate) struct UpstreamStream {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) host: Arc<Host>,
    pub(crate) http1: Option<Http1>,
    /// Whether the request was sent whole: its connection cannot be used again otherwise.
    pub(crate) progress: Option<Arc<Progress>>,
    pub(crate) _active: ActiveRequest,
    pub(crate) _request: Permit,
    pub(crate) _retry: Option<Permit>,
}

impl UpstreamStream {
    /// The response has ended well: the connection may serve the next request.
    pub(crate) fn release(mut self) {
        if let Some(connection) = self.http1.take()
            && self.progress.as_ref().is_none_or(|progress| progress.ended())
        {
            self.cluster.release(&self.host, connection);
        }
    }
}

/// A body on its way to the client.
pub(crate) enum ResponseBody {
    /// Made here.
    Local { data: Option<Bytes>, exchange: Option<Box<Exchange>> },
    /// From an upstream.
    Upstream(Box<UpstreamBody>),
}

/// An upstream's body.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    exchange: Box<Exchange>,
    stream: Option<UpstreamStream>,
    /// The route's timeout covers the whole response.
    deadline: Option<Deadline>,
    idle: Option<Idle>,
    grpc: Option<MessageCounter>,
    ended: bool,
}

/// The timer is only made when the body has to be waited for: most responses are there with their head.
struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(crate) fn local(data: Bytes, mut exchange: Box<Exchange>) -> Self {
        let head_only = exchange.info.http.as_ref().is_some_and(|http| http.method == http::Method::HEAD);
        exchange.info.bytes_sent = if head_only { 0 } else { data.len() as u64 };
        Self::Local { data: (!data.is_empty()).then_some(data), exchange: Some(exchange) }
    }

    pub(crate) fn upstream(
        incoming: Incoming,
        exchange: Box<Exchange>,
        stream: UpstreamStream,
        deadline: Option<Instant>,
        idle: Option<Duration>,
    ) -> Self {
        let grpc = exchange.info.http.as_ref().is_some_and(|http| http.grpc).then(MessageCounter::default);
        let mut body = UpstreamBody {
            incoming,
            exchange,
            stream: Some(stream),
            deadline: deadline.map(|at| Deadline { at, sleep: None }),
            idle: idle.map(|limit| Idle { limit, sleep: None }),
            grpc,
            ended: false,
        };
        if body.incoming.is_end_stream() {
            body.end();
        }
        Self::Upstream(Box::new(body))
    }
}

impl UpstreamBody {
    fn end(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.exchange.complete = true;
        if let Some(stream) = self.stream.take() {
            stream.release();
        }
    }

    fn fail(&mut self, flags: Flags, details: &'static str) {
        self.ended = true;
        self.exchange.complete = true;
        self.exchange.info.flag(flags);
        self.exchange.info.details = Cow::Borrowed(details);
        self.stream = None;
    }

    fn timers(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if let Some(deadline) = &mut self.deadline
            && deadline.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.at))).as_mut().poll(cx).is_ready()
        {
            if let Some(stream) = &self.stream {
                stream.cluster.stats.upstream_rq_timeout.increment();
            }
            self.fail(Flags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout");
            return Poll::Ready(BodyError::Timeout);
        }
        if let Some(idle) = &mut self.idle {
            // Armed only while there is nothing to pass on: a body that flows pays nothing.
            let limit = idle.limit;
            let sleep = idle.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            if sleep.as_mut().poll(cx).is_ready() {
                self.fail(Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
                return Poll::Ready(BodyError::Idle);
            }
        }
        Poll::Pending
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => self.timers(cx).map(|error| Some(Err(error))),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let (flags, details) = if crate::router::is_stream_reset(&error) {
                    (Flags::UPSTREAM_REMOTE_RESET, "upstream_reset_after_response_started{connection_termination}")
                } else if crate::router::ends_early(&error) {
                    (Flags::UPSTREAM_PROTOCOL_ERROR, "upstream_reset_after_response_started{protocol_error}")
                } else {
                    (Flags::UPSTREAM_CONNECTION_TERMINATION, "upstream_reset_after_response_started{connection_termination}")
                };
                self.fail(flags, details);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(idle) = &mut self.idle {
                    idle.sleep = None;
                }
                let info = &mut self.exchange.info;
                if let Some(data) = frame.data_ref() {
                    info.bytes_sent += data.len() as u64;
                    if let Some(counter) = &mut self.grpc {
                        info.response_messages = counter.feed(data);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    info.grpc_status = grpc::status(trailers).or(info.grpc_status);
                    self.end();
                }
                if self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Local { data, .. } => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Upstream(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local { data, .. } => data.is_none(),
            Self::Upstream(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local { data, .. } => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Upstream(body) => body.incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Self::Local { exchange: Some(exchange), .. } = self {
            exchange.complete = true;
        }
    }
}
