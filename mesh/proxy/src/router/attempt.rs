//! One attempt: a connection, the request, the response's head.

use std::borrow::Cow;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use meshlab_proxy_config::{Direction, UpstreamProtocol};
use tokio::sync::Notify;

use super::outgoing::Outgoing;
use crate::cluster::Cluster;
use crate::cluster::breaker::Resource;
use crate::cluster::connect::ConnectError;
use crate::cluster::host::Host;
use crate::cluster::outlier::{self, HostOutcome};
use crate::cluster::pool::PoolError;
use crate::flags::Flags;
use crate::http::body::{BodyError, RequestBody};
use crate::http::exchange::UpstreamStream;
use crate::http::local_reply::LocalReply;
use crate::stream::StreamInfo;

/// A response's head, with what its body occupies.
pub(crate) struct Attempted {
    pub(crate) response: Response<Incoming>,
    pub(crate) stream: UpstreamStream,
}

/// Why an attempt has no response: Envoy's stream reset reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetReason {
    Overflow,
    ConnectFailure,
    ConnectTimeout,
    ConnectionTermination,
    RemoteReset,
    RefusedStream,
    ProtocolError,
    PerTryTimeout,
    /// The client's body broke off.
    ClientBody,
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: ResetReason,
    transport: Option<String>,
    /// A connection was there.
    connected: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.text())?;
        match &self.transport {
            Some(transport) => write!(f, ": {transport}"),
            None => Ok(()),
        }
    }
}

impl ResetReason {
    fn text(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::ConnectFailure => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RefusedStream => "remote refused stream reset",
            Self::ProtocolError => "protocol error",
            Self::PerTryTimeout => "per try timeout",
            Self::ClientBody => "local reset",
        }
    }

    fn flag(self) -> Flags {
        match self {
            Self::Overflow => Flags::UPSTREAM_OVERFLOW,
            Self::ConnectFailure | Self::ConnectTimeout => Flags::UPSTREAM_CONNECTION_FAILURE,
            Self::ConnectionTermination => Flags::UPSTREAM_CONNECTION_TERMINATION,
            Self::RemoteReset | Self::RefusedStream => Flags::UPSTREAM_REMOTE_RESET,
            Self::ProtocolError => Flags::UPSTREAM_PROTOCOL_ERROR,
            Self::PerTryTimeout => Flags::UPSTREAM_REQUEST_TIMEOUT,
            Self::ClientBody => Flags::DOWNSTREAM_CONNECTION_TERMINATION,
        }
    }
}

impl Failure {
    pub(crate) fn new(reason: ResetReason) -> Self {
        Self { reason, transport: None, connected: true }
    }

    /// Envoy's answer.
    pub(crate) fn into_reply(self, info: &mut StreamInfo, retried: bool) -> LocalReply {
        if self.reason == ResetReason::PerTryTimeout {
            return LocalReply::new(504, "upstream_per_try_timeout").body("upstream request timeout").flag(self.reason.flag());
        }
        if self.reason == ResetReason::ClientBody {
            return LocalReply::new(400, "downstream_remote_reset").flag(self.reason.flag()).close();
        }
        if self.reason == ResetReason::Overflow && !self.connected {
            info.host = None;
        }
        let status = if self.reason == ResetReason::ProtocolError { 502 } else { 503 };
        let latest = if retried { "retried and the latest reset reason" } else { "reset reason" };
        let text = self.reason.text();
        let body = format!("upstream connect error or disconnect/reset before headers. {latest}: {text}");
        let mut details = format!("upstream_reset_before_response_started{{{}", text.replace(' ', "_"));
        if let Some(transport) = self.transport {
            // The body does not tell: it would show the inside of the mesh to the outside.
            let transport = transport.replace(' ', "_");
            details.push_str(&format!("|{transport}"));
            info.transport_failure = Some(transport);
        }
        details.push('}');
        let reply = LocalReply::new(status, details).body(body).flag(self.reason.flag());
        if self.reason == ResetReason::Overflow { reply.overloaded() } else { reply }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Overflow => Self { reason: ResetReason::Overflow, transport: None, connected: false },
            PoolError::Connect(ConnectError::Timeout) => Self::new(ResetReason::ConnectTimeout),
            PoolError::Connect(error) => {
                Self { reason: ResetReason::ConnectFailure, transport: Some(error.to_string()), connected: false }
            }
        }
    }
}

/// Whether an HTTP/2 peer reset one stream, as opposed to closing the connection.
pub(crate) fn is_stream_reset(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| error.is_reset())
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref::<h2::Error>())
}

/// Whether a body ended before its announced end, which is the peer's fault.
pub(crate) fn ends_early(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message() || io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof)
}

fn classify(error: &hyper::Error) -> ResetReason {
    if error.is_user() {
        // The body that we were sending failed: the client's fault, or a newer attempt has taken it over.
        return ResetReason::ClientBody;
    }
    if let Some(source) = error.source()
        && source.downcast_ref::<BodyError>().is_some()
    {
        return ResetReason::ClientBody;
    }
    if error.is_parse() {
        return ResetReason::ProtocolError;
    }
    match h2_error(error) {
        Some(error) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => ResetReason::RefusedStream,
        Some(error) if error.is_reset() => ResetReason::RemoteReset,
        _ => ResetReason::ConnectionTermination,
    }
}

/// Stale connections that are tried before the failure counts: the request was not sent on any of them.
const STALE_CONNECTIONS: usize = 8;

/// Sends the request to `host` and waits for the response's head. Tells when there is a connection.
pub(crate) async fn send(
    info: &mut StreamInfo,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    outgoing: &mut Outgoing,
    may_retry: bool,
    connected: &Notify,
) -> Result<Attempted, Failure> {
    let http2 = outgoing.upgrade.is_none()
        && match cluster.config.protocol {
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::SameAsDownstream => outgoing.version == Version::HTTP_2,
            UpstreamProtocol::Http1 | UpstreamProtocol::Tcp => false,
        };
    // Istio counts attempts where it retries: on the caller's side.
    let attempt = (info.connection.direction != Direction::Inbound).then_some(info.attempts);
    let progress = outgoing.progress();
    let active = host.start_request();
    let request_permit = |cluster: &Arc<Cluster>| {
        cluster.breaker.acquire(Resource::Requests).ok_or_else(|| {
            cluster.stats.upstream_rq_pending_overflow.increment();
            Failure::new(ResetReason::Overflow)
        })
    };
    if http2 {
        let connection = cluster.http2(host).await?;
        outlier::observe(cluster, host, HostOutcome::Connected);
        connected.notify_one();
        let permit = request_permit(cluster)?;
        info.upstream = Some(connection.facts.clone());
        let request = outgoing.request(true, attempt, may_retry).ok_or(Failure::new(ResetReason::ProtocolError))?;
        let response = connection.sender.clone().send_request(request).await.map_err(|error| failed(&error, cluster))?;
        let stream = UpstreamStream {
            cluster: cluster.clone(),
            host: host.clone(),
            http1: None,
            progress,
            _active: active,
            _request: permit,
            _retry: None,
        };
        return Ok(Attempted { response, stream });
    }
    let mut permit = None;
    let mut unsent: Option<Request<RequestBody>> = None;
    for _ in 0..STALE_CONNECTIONS {
        let mut connection = cluster.http1(host).await?;
        outlier::observe(cluster, host, HostOutcome::Connected);
        connected.notify_one();
        if permit.is_none() {
            match request_permit(cluster) {
                Ok(granted) => permit = Some(granted),
                Err(overflow) => {
                    cluster.release(host, connection);
                    return Err(overflow);
                }
            }
        }
        info.upstream = Some(connection.facts.clone());
        let request = match unsent.take() {
            Some(request) => request,
            None => outgoing.request(false, attempt, may_retry).ok_or(Failure::new(ResetReason::ProtocolError))?,
        };
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let Some(permit) = permit.take() else { break };
                let stream = UpstreamStream {
                    cluster: cluster.clone(),
                    host: host.clone(),
                    http1: Some(connection),
                    progress,
                    _active: active,
                    _request: permit,
                    _retry: None,
                };
                return Ok(Attempted { response, stream });
            }
            // The upstream closed an idle connection at this very moment, before the request was written.
            Err(mut error) => match error.take_message() {
                Some(request) => unsent = Some(request),
                None => return Err(failed(error.error(), cluster)),
            },
        }
    }
    Err(Failure::new(ResetReason::ConnectionTermination))
}

fn failed(error: &hyper::Error, cluster: &Cluster) -> Failure {
    let reason = classify(error);
    if matches!(reason, ResetReason::RemoteReset | ResetReason::RefusedStream) {
        cluster.stats.upstream_rq_rx_reset.increment();
    }
    tracing::debug!(cluster = %cluster.name, error = %Cow::from(error.to_string()), "no response");
    Failure::new(reason)
}
