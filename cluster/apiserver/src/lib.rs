//! The API server of the embedded cluster.
//!
//! A request is authenticated and authorized ([`auth`]), routed ([`route`]), and answered from the [`store`] by [`rest`]. All writes
//! go through one pipeline, `rest/mutate.rs`; [`admission`] is a part of it. How objects are shaped, patched, validated and printed
//! is `meshlab_objects`' knowledge; what is served, [`registry`]'s.

mod admission;
mod api;
mod auth;
mod background;
mod client;
mod discovery;
mod http;
mod metrics;
mod node;
mod registry;
mod rest;
mod route;
mod server;
mod store;
mod subresource;

pub use auth::{BoundObject, IssuedToken, PkiError, TokenError, TokenRequest, UserInfo};
pub use http::TlsError;
pub use node::{ExecOptions, ExecSession, LogOptions, NodeAgent, PodRef, Reader, SharedNodeAgent, Writer};
pub use server::{ApiServer, ApiServerOptions, StartError, Starting};
pub use store::OpenError;
