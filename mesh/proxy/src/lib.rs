//! The data plane: a proxy for sidecars and gateways, HTTP/1.1, HTTP/2, gRPC, TCP, with mutual TLS inside the mesh.
//!
//! [`Proxy`] is started on a network ([`meshlab_net::Net`]), given its configuration ([`meshlab_proxy_config::ProxyConfig`]) and its
//! identity, and serves. How a request passes, and where that is written down:
//!
//! | step | module |
//! |---|---|
//! | accept, original destination, filter chain, sniffing | `listener` |
//! | TLS, SPIFFE identities | `tls`, `identity` |
//! | HTTP framing, headers, local replies, upgrades | `http` |
//! | tokens, external authorization, policies | `access` |
//! | virtual host, route, rewrite, redirect, CORS | `route` |
//! | attempts, retries, timeouts, mirrors | `router` |
//! | endpoints, load balancing, pools, breakers, outliers, DNS | `cluster` |
//! | bytes | `tcp` |
//! | metrics, logs, spans, peers | `telemetry` |
//! | why | `trail` |
//!
//! The data path reads one snapshot that is swapped as a whole, and takes no lock that connections share.

mod access;
mod admin;
mod cluster;
mod drain;
mod flags;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod identity;
mod io;
mod listener;
mod matching;
mod options;
mod proxy;
mod route;
mod router;
mod snapshot;
mod stream;
mod tcp;
mod telemetry;
mod tls;
mod trail;

pub use flags::Flags;
pub use identity::{IdentityError, WorkloadIdentity};
pub use options::{AccessLogSink, Limits, ProxyOptions, SpanSink, TrailAccess};
pub use proxy::Proxy;
pub use snapshot::ApplyErrors;
pub use telemetry::buffered_log::BufferedLog;
pub use telemetry::span::{Span, SpanKind};
