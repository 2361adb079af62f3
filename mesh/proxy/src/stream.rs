//! What is known of a stream (an HTTP request or a TCP connection) while it passes: Envoy's `StreamInfo`.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderValue, Method, Version};
use meshlab_proxy_config::Direction;

use crate::cluster::Cluster;
use crate::cluster::host::Host;
use crate::cluster::pool::ConnectionFacts;
use crate::drain::Registration;
use crate::flags::Flags;
use crate::route::Route;
use crate::telemetry::peer::Peer;
use crate::tls::peer::PeerCertificate;

/// A client's connection.
pub(crate) struct Downstream {
    pub(crate) id: u64,
    /// The direct peer.
    pub(crate) peer: SocketAddr,
    pub(crate) peer_text: String,
    /// Where the client wanted to go.
    pub(crate) local: SocketAddr,
    pub(crate) local_text: String,
    pub(crate) listener: Arc<str>,
    pub(crate) direction: Direction,
    /// Through it the connection hears that the proxy drains.
    pub(crate) registration: Registration,
    pub(crate) tls: Option<TlsFacts>,
    /// The TLS server name, whether TLS was terminated or only looked at.
    pub(crate) server_name: Option<String>,
}

/// TLS that was terminated.
pub(crate) struct TlsFacts {
    pub(crate) version: &'static str,
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
    /// The peer's SPIFFE identity, as metrics keep it.
    pub(crate) principal: Option<Arc<str>>,
    /// Our own identity in this handshake.
    pub(crate) local_identity: Option<Arc<str>>,
    /// Metadata is exchanged before the application's bytes.
    pub(crate) peer_exchange: bool,
}

impl Downstream {
    pub(crate) fn peer_identity(&self) -> Option<&str> {
        self.tls.as_ref()?.principal.as_deref()
    }

    /// A verified client certificate was presented.
    pub(crate) fn is_mutual_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.certificate.is_some())
    }
}

/// The HTTP side of a stream.
pub(crate) struct HttpFacts {
    pub(crate) method: Method,
    /// Path and query, normalized.
    pub(crate) path: String,
    pub(crate) authority: String,
    pub(crate) scheme: &'static str,
    pub(crate) version: Version,
    pub(crate) grpc: bool,
    pub(crate) request_id: Option<HeaderValue>,
}

/// The whole record.
pub(crate) struct StreamInfo {
    pub(crate) connection: Arc<Downstream>,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// The client as trusted proxies tell it, where it is not the direct peer.
    pub(crate) remote: Option<IpAddr>,
    pub(crate) http: Option<HttpFacts>,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) host: Option<Arc<Host>>,
    pub(crate) upstream: Option<Arc<ConnectionFacts>>,
    pub(crate) attempts: u32,
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u32>,
    pub(crate) flags: Flags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) termination_details: Option<Cow<'static, str>>,
    pub(crate) transport_failure: Option<String>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) request_head_bytes: u64,
    pub(crate) response_head_bytes: u64,
    pub(crate) request_messages: u64,
    pub(crate) response_messages: u64,
    pub(crate) request_captures: Vec<Option<HeaderValue>>,
    pub(crate) response_captures: Vec<Option<HeaderValue>>,
    /// The workload at the other end, if it told.
    pub(crate) peer: Option<Arc<Peer>>,
    /// Milliseconds from the request's end to the upstream's response head.
    pub(crate) service_time_ms: Option<u64>,
}

impl StreamInfo {
    pub(crate) fn new(connection: Arc<Downstream>) -> Self {
        Self {
            connection,
            started: Instant::now(),
            started_at: SystemTime::now(),
            remote: None,
            http: None,
            route: None,
            cluster: None,
            host: None,
            upstream: None,
            attempts: 0,
            status: 0,
            grpc_status: None,
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            termination_details: None,
            transport_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            request_head_bytes: 0,
            response_head_bytes: 0,
            request_messages: 0,
            response_messages: 0,
            request_captures: Vec::new(),
            response_captures: Vec::new(),
            peer: None,
            service_time_ms: None,
        }
    }

    /// The status that gRPC makes of the response: the upstream's, or the one that stands for the HTTP status. 200 without a status
    /// is none of gRPC's: unknown.
    pub(crate) fn grpc_status_in_effect(&self) -> Option<u32> {
        const UNKNOWN: u32 = 2;
        let is_grpc = self.http.as_ref().is_some_and(|http| http.grpc);
        let implied = || if self.status == 200 { UNKNOWN } else { crate::telemetry::grpc::status_of_http(self.status) };
        self.grpc_status.or_else(|| is_grpc.then(implied))
    }

    /// Flags the stream.
    pub(crate) fn flag(&mut self, flags: Flags) {
        self.flags.insert(flags);
    }
}
