//! Serving HTTP on a connection.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::exchange::ResponseBody;
use super::guard::Guarded;
use super::handler;
use crate::drain::DrainState;
use crate::flags::Flags;
use crate::io::BoxIo;
use crate::listener::chain::{ChainKind, HttpChain};
use crate::options::HYPER_MAX_HEADERS;
use crate::proxy::Shared;
use crate::route::RouteTable;
use crate::snapshot::Snapshot;
use crate::stream::{Downstream, StreamInfo};

/// One client connection that speaks HTTP.
pub(crate) struct HttpContext {
    pub(crate) proxy: Arc<Shared>,
    pub(crate) connection: Arc<Downstream>,
    pub(crate) listener: Arc<str>,
    pub(crate) chain: Arc<str>,
    /// The configuration as this connection last saw it.
    resolved: ArcSwap<Resolved>,
    /// Requests begun and ended, to tell when the connection is idle.
    begun: AtomicU64,
    ended: AtomicU64,
}

/// What a connection's requests are served by, looked up again only when the configuration has changed.
pub(crate) struct Resolved {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) http: Arc<HttpChain>,
    pub(crate) table: Option<Arc<RouteTable>>,
    /// The chain is gone: the connection ends after its next response.
    pub(crate) drain: bool,
}

impl HttpContext {
    pub(crate) fn new(proxy: Arc<Shared>, connection: Arc<Downstream>, chain: Arc<str>, http: Arc<HttpChain>) -> Self {
        let snapshot = proxy.snapshot.load_full();
        let table = snapshot.routes.get(&http.config.route_config).cloned();
        Self {
            listener: connection.listener.clone(),
            resolved: ArcSwap::from_pointee(Resolved { snapshot, http, table, drain: false }),
            proxy,
            connection,
            chain,
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// The current configuration for this connection.
    pub(crate) fn resolve(&self) -> Arc<Resolved> {
        let current = self.proxy.snapshot.load();
        let resolved = self.resolved.load_full();
        if resolved.snapshot.version == current.version {
            return resolved;
        }
        let snapshot = Arc::clone(&current);
        let chain = snapshot.listeners.get(&self.listener).and_then(|listener| listener.chain(&self.chain));
        let (http, drain) = match chain.as_deref().map(|chain| &chain.kind) {
            Some(ChainKind::Http(http)) => (http.clone(), false),
            // Gone, or no longer HTTP: what is under way ends by the rules it began with.
            _ => (resolved.http.clone(), true),
        };
        let table = snapshot.routes.get(&http.config.route_config).cloned();
        let resolved = Arc::new(Resolved { snapshot, http, table, drain });
        self.resolved.store(resolved.clone());
        resolved
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let http1 = request.version() < http::Version::HTTP_2;
        let mut response = handler::handle(&self, request).await;
        self.ended.fetch_add(1, Ordering::Relaxed);
        if http1 && (self.proxy.is_draining() || self.resolved.load().drain) && response.status() != 101 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// Serves HTTP/1.1 until the client goes, is idle for too long, or the proxy drains.
pub(crate) async fn serve_http1(context: HttpContext, io: BoxIo) {
    let context = Arc::new(context);
    let limits = context.proxy.limits.clone();
    let service = {
        let context = context.clone();
        service_fn(move |request| context.clone().serve(request))
    };
    let server = super::edge::server_text(context.connection.direction);
    let mut builder = http1::Builder::new();
    if limits.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    let connection = builder
        .max_header_size(limits.max_head_bytes)
        .max_buf_size((limits.max_head_bytes + 4096).max(64 * 1024))
        .half_close(false)
        .serve_connection(TokioIo::new(Guarded::new(io, limits.max_head_bytes, limits.head_timeout, server)), service)
        .with_upgrades();
    drive(connection, |connection| connection.graceful_shutdown(), &context).await;
}

/// The same for HTTP/2.
pub(crate) async fn serve_http2(context: HttpContext, io: BoxIo) {
    let context = Arc::new(context);
    let limits = context.proxy.limits.clone();
    let service = {
        let context = context.clone();
        service_fn(move |request| context.clone().serve(request))
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_head_bytes as u32)
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(1024)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(60))
        .serve_connection(TokioIo::new(io), service);
    drive(connection, |connection| connection.graceful_shutdown(), &context).await;
}

/// What the codec refused never became a request; it is logged and counted all the same.
fn report_malformed(context: &HttpContext, error: &hyper::Error) {
    let mut info = StreamInfo::new(context.connection.clone());
    info.flag(Flags::DOWNSTREAM_PROTOCOL_ERROR);
    (info.status, info.details) =
        if error.is_parse_too_large() { (431, "http1.headers_too_large".into()) } else { (400, "http1.codec_error".into()) };
    context.proxy.counters.malformed_requests.increment();
    crate::tcp::proxy::log_refused(&context.proxy, info);
}

/// Runs a connection, with an eye on idleness and draining.
async fn drive<C>(connection: C, shut_down: impl Fn(Pin<&mut C>), context: &HttpContext)
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::pin!(connection);
    let limit = context.proxy.limits.connection_idle_timeout;
    // One coarse timer for a connection's life, rather than one for each request.
    let period = (limit / 4).max(Duration::from_millis(10));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    let registration = &context.connection.registration;
    let (mut last_begun, mut idle_since) = (0, Instant::now());
    let (mut shutting_down, mut drained) = (false, DrainState::Serving);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, peer = %context.connection.peer, "client connection ended");
                    if error.is_parse() {
                        report_malformed(context, &error);
                    }
                }
                return;
            }
            state = registration.beyond(drained) => {
                if state == DrainState::Forced {
                    return;
                }
                drained = state;
                if !shutting_down {
                    shutting_down = true;
                    shut_down(connection.as_mut());
                }
            }
            _ = ticks.tick(), if !shutting_down => {
                let begun = context.begun.load(Ordering::Relaxed);
                if begun != last_begun || begun != context.ended.load(Ordering::Relaxed) {
                    last_begun = begun;
                    idle_since = Instant::now();
                } else if idle_since.elapsed() >= limit {
                    shutting_down = true;
                    shut_down(connection.as_mut());
                }
            }
        }
    }
}
