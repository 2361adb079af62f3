//! Traces: received as OTLP or from Zipkin's clients, kept in memory, asked for as Jaeger is.

mod api;
pub(crate) mod fuzzing;
mod model;
mod otlp;
mod packed;
mod page;
mod receive;
mod store;
mod zipkin;

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use jiff::Timestamp;
use meshlab_net::Net;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server;
use store::Store;

pub use store::TraceLimits;

/// Where a Jaeger listens.
#[derive(Debug, Clone)]
pub struct JaegerOptions {
    /// The address of every port.
    pub address: IpAddr,
    /// Query API and pages.
    pub query: u16,
    /// OTLP over gRPC.
    pub otlp_grpc: u16,
    /// OTLP over HTTP.
    pub otlp_http: u16,
    /// Zipkin's JSON.
    pub zipkin: u16,
    /// Health and metrics.
    pub admin: u16,
    /// Jaeger's own protocols, of which only the refusal is spoken.
    pub legacy: Vec<u16>,
    /// How much is kept.
    pub limits: TraceLimits,
}

impl Default for JaegerOptions {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED.into(),
            query: 16686,
            otlp_grpc: 4317,
            otlp_http: 4318,
            zipkin: 9411,
            admin: 14269,
            legacy: vec![14250, 14268],
            limits: TraceLimits::default(),
        }
    }
}

/// Serves a Jaeger until `shutdown`.
///
/// # Errors
/// A port cannot be listened on, or a listener ends.
pub async fn jaeger<N: Net>(net: N, options: JaegerOptions, shutdown: CancellationToken) -> io::Result<()> {
    let store = Arc::new(Store::new(options.limits.clone()));
    let refused = async || {
        (StatusCode::NOT_IMPLEMENTED, "Jaeger's Thrift and gRPC model are not supported here: send OTLP to port 4317 or 4318\n")
    };
    let mut servers = vec![
        (options.query, query(&store)),
        (options.otlp_grpc, receive::grpc(store.clone())),
        (options.otlp_http, receive::http(store.clone())),
        (options.zipkin, receive::zipkin(store.clone())),
        (options.admin, admin(&store)),
    ];
    servers.extend(options.legacy.iter().map(|port| (*port, Router::new().fallback(refused))));
    // All ports are bound before one is served, so that health means all of them.
    let mut listeners = Vec::with_capacity(servers.len());
    for (port, router) in servers {
        listeners.push((server::bind(&net, SocketAddr::new(options.address, port)).await?, router));
    }
    let mut tasks = JoinSet::new();
    for (listener, router) in listeners {
        tasks.spawn(server::serve(listener, router, shutdown.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

/// The API and the pages, below `/jaeger` as in Istio's addon, and below `/`.
fn query(store: &Arc<Store>) -> Router {
    let below = || api::router(store.clone()).merge(page::router(store.clone()));
    Router::new().nest("/jaeger", below()).merge(below()).merge(page::home())
}

fn admin(store: &Arc<Store>) -> Router {
    let (started, store) = (Timestamp::now(), store.clone());
    let health = move || async move {
        let uptime = Timestamp::now().duration_since(started);
        axum::Json(json!({"status": "Server available", "upSince": started.to_string(), "uptime": format!("{uptime:#}")}))
    };
    let metrics = move || async move {
        let counts = store.counts();
        let mut text = String::new();
        for (name, kind, help, value) in [
            ("jaeger_traces", "gauge", "Traces in memory.", counts.traces as u64),
            ("jaeger_spans", "gauge", "Spans in memory.", counts.spans as u64),
            ("jaeger_spans_bytes", "gauge", "Bytes of spans in memory, about.", counts.bytes as u64),
            ("jaeger_collector_spans_received_total", "counter", "Spans received.", counts.received),
            ("jaeger_collector_spans_rejected_total", "counter", "Spans that were malformed or found no room.", counts.refused),
            ("jaeger_collector_spans_dropped_total", "counter", "Spans forgotten for newer ones.", counts.forgotten),
        ] {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        text
    };
    Router::new().route("/", get(health)).route("/metrics", get(metrics))
}

#[cfg(test)]
mod tests;
