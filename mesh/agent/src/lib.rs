//! pilot-agent: the process beside every proxy.
//!
//! - [`run`] with `proxy sidecar` or `proxy router`: starts the proxy, gets it a certificate and configuration, answers probes,
//!   merges metrics, and drains it at the end;
//! - with `istio-iptables`: redirects the pod's traffic to the proxy ([`redirect`]), which is what `istio-init` does;
//! - with `request`, `wait`, `version`: what a shell in the container asks for.

mod backoff;
mod certificate;
mod control_plane;
mod discovery;
mod environment;
mod local;
mod probe;
mod prometheus;
mod proxy;
pub mod redirect;
mod run;
mod status_server;

pub use environment::EnvironmentError;
pub use meshlab_proxy::BufferedLog;
pub use run::{Host, run};
