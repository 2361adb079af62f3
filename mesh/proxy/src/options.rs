//! What the host of a proxy decides: names, limits, where logs and spans go, who may ask for a decision trail.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::span::Span;

/// Options of a proxy.
#[derive(Clone)]
pub struct ProxyOptions {
    /// Its identity as a node: `sidecar~10.244.0.7~reviews-v1-abc.default~default.svc.cluster.local`.
    pub node_id: String,
    /// The environment variables of its container, which logs (`%ENVIRONMENT(X)%`) and custom tags may show.
    pub environment: Arc<BTreeMap<String, String>>,
    /// Where the administration interface listens. `None`: nowhere.
    pub admin_address: Option<SocketAddr>,
    /// Where access log lines go.
    pub access_log: Arc<dyn AccessLogSink>,
    /// Where finished spans go, besides the collector that the configuration names.
    pub span_sink: Option<Arc<dyn SpanSink>>,
    /// Finite bounds on what clients can make the proxy do.
    pub limits: Limits,
    /// Who may ask for a decision trail.
    pub trail: TrailAccess,
    /// Answers `/quitquitquit`: the host stops the proxy when this is notified.
    pub quit: Arc<tokio::sync::Notify>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            node_id: "sidecar~127.0.0.1~proxy.default~default.svc.cluster.local".to_owned(),
            environment: Arc::default(),
            admin_address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 15000))),
            access_log: Arc::new(|_: &str| {}),
            span_sink: None,
            limits: Limits::default(),
            trail: TrailAccess::default(),
            quit: Arc::new(tokio::sync::Notify::new()),
        }
    }
}

/// Takes access log lines, each with its newline. Called on the data path: it must not block.
pub trait AccessLogSink: Send + Sync + 'static {
    /// Takes one line.
    fn write(&self, line: &str);
}

impl<F: Fn(&str) + Send + Sync + 'static> AccessLogSink for F {
    fn write(&self, line: &str) {
        self(line);
    }
}

/// Takes finished spans. Called on the data path: it must not block.
pub trait SpanSink: Send + Sync + 'static {
    /// Takes one span.
    fn record(&self, span: &Span);
}

impl<F: Fn(&Span) + Send + Sync + 'static> SpanSink for F {
    fn record(&self, span: &Span) {
        self(span);
    }
}

/// As many header lines as hyper takes where nothing is said. Saying the same makes it clear room for so many with each message, which is
/// 2 % of a request's CPU.
pub(crate) const HYPER_MAX_HEADERS: usize = 100;

/// Bounds. The defaults are Envoy's and Istio's where those have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections per listening socket; further ones are closed at once.
    pub max_connections: usize,
    /// Bytes of a request or response head (Envoy's `max_request_headers_kb`, 60 KiB).
    pub max_head_bytes: usize,
    /// Header lines of a head (Envoy's default).
    pub max_headers: usize,
    /// Streams a client may have open on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// HTTP/2 streams reset before they were accepted, before the connection is closed (CVE-2023-44487).
    pub max_pending_resets: usize,
    /// Time to the end of a request's head.
    pub head_timeout: Duration,
    /// Time to the end of a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// Time a client has to show what it speaks, before the connection is taken for raw bytes.
    pub sniff_timeout: Duration,
    /// Downstream HTTP connections without a request are closed after this.
    pub connection_idle_timeout: Duration,
    /// Bytes of a request body kept for a retry or a mirror; a longer body is sent once (Envoy's buffer limit).
    pub max_replay_bytes: usize,
    /// Different peers, workloads and label sets remembered for metrics; what is beyond shares one.
    pub max_metric_series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            max_head_bytes: 60 * 1024,
            max_headers: HYPER_MAX_HEADERS,
            max_concurrent_streams: 1024,
            max_pending_resets: 20,
            head_timeout: Duration::from_secs(60),
            tls_handshake_timeout: Duration::from_secs(15),
            sniff_timeout: Duration::from_secs(5),
            connection_idle_timeout: Duration::from_secs(3600),
            max_replay_bytes: 1024 * 1024,
            max_metric_series: 10_000,
        }
    }
}

/// A duration from configuration or a header, of at most a year: clocks cannot be moved on without end.
pub(crate) fn milliseconds(value: u64) -> Duration {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    Duration::from_millis(value.min(YEAR))
}

/// Who may ask for a decision trail with the header `x-meshlab-trail`. Everybody else's header is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrailAccess {
    /// SPIFFE identities: of a mutual TLS peer, or of this proxy's own workload on its outbound side.
    pub identities: Vec<String>,
    /// Secret header values that are honoured from anyone.
    pub tokens: Vec<String>,
    /// Honoured from anyone (a lab on one's own machine).
    pub anyone: bool,
}
