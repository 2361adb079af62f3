//! The overview, the service graph and the access logs: Kiali's place among the addons.

mod json;
mod layout;
mod model;
mod overview;
mod page;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use meshlab_net::Net;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::access_logs;
use crate::pages::{Entry, Language, Product, Query, assets, live, number, parameter};
use crate::prometheus_client::Prometheus;
use crate::server;
use model::{Graph, GraphType, compute};

/// How a Kiali is run.
#[derive(Debug, Clone)]
pub struct KialiOptions {
    /// Where its API and pages are served.
    pub listen: SocketAddr,
    /// Host and port of the Prometheus it asks.
    pub prometheus: (String, u16),
}

impl Default for KialiOptions {
    fn default() -> Self {
        Self { listen: server::any(20001), prometheus: ("prometheus.istio-system".to_owned(), 9090) }
    }
}

/// Its pages.
pub(crate) const PRODUCT: Product = Product {
    name: "Kiali",
    pages: &[
        Entry { path: "console/overview", title: "overview", templates: &["overview.html"] },
        Entry { path: "console/graph", title: "graph", templates: &["graph.html"] },
        Entry { path: "console/logs", title: "logs", templates: &["logs.html"] },
    ],
};

/// Time from one picture of the graph to the next.
const LIVE: Duration = Duration::from_secs(5);

/// Serves the overview, the service graph and the access logs of `client`'s cluster until `shutdown`.
///
/// # Errors
/// Its port cannot be listened on, or its listener ends.
pub async fn kiali<N: Net>(net: N, client: kube::Client, options: KialiOptions, shutdown: CancellationToken) -> io::Result<()> {
    let listener = server::bind(&net, options.listen).await?;
    let prometheus = Prometheus::new(net, &options.prometheus.0, options.prometheus.1);
    server::serve(listener, router(Sources { prometheus, client }), shutdown).await
}

/// Where pages have what they show from.
#[derive(Clone)]
struct Sources {
    prometheus: Prometheus,
    client: kube::Client,
}

impl FromRef<Sources> for Prometheus {
    fn from_ref(sources: &Sources) -> Self {
        sources.prometheus.clone()
    }
}

impl FromRef<Sources> for kube::Client {
    fn from_ref(sources: &Sources) -> Self {
        sources.client.clone()
    }
}

fn router(sources: Sources) -> Router {
    let kiali = Router::new()
        .route("/healthz", get(""))
        .route("/api", get(async || axum::Json(json!({"status": {"Kiali state": "running", "Kiali version": concat!("meshlab-", env!("CARGO_PKG_VERSION"))}, "externalServices": [], "warningMessages": []}))))
        .route("/api/healthz", get(""))
        .route("/api/namespaces", get(namespaces))
        .route("/api/namespaces/graph", get(graph))
        .route("/console/overview", get(overview::page))
        .route("/console/overview/live", get(overview::updates))
        .route("/console/graph", get(page::page))
        .route("/console/live", get(updates))
        .route("/console/logs", get(access_logs::page))
        .route("/console/logs/live", get(access_logs::updates))
        .merge(assets())
        .with_state(sources);
    Router::new()
        .nest("/kiali", kiali)
        .route("/healthz", get(""))
        .route("/", get(async || Redirect::temporary("kiali/console/overview")))
        .route("/kiali/", get(async || Redirect::temporary("console/overview")))
        .route("/kiali", get(async || Redirect::temporary("kiali/console/overview")))
}

/// What is to be shown.
#[derive(Debug, Clone)]
struct Question {
    namespaces: Vec<String>,
    kind: GraphType,
    /// Seconds.
    duration: u64,
}

impl Question {
    fn of(query: &Query) -> Result<Self, String> {
        let namespaces = parameter(query, "namespaces").unwrap_or_default().split(',');
        Ok(Self {
            namespaces: namespaces.map(str::trim).filter(|name| !name.is_empty()).take(100).map(str::to_owned).collect(),
            kind: GraphType::parse(parameter(query, "graphType").unwrap_or_default())?,
            duration: number(query, "duration", 60, 10..=3600),
        })
    }

    async fn answer(&self, prometheus: &Prometheus) -> Result<Graph, String> {
        compute(prometheus, &self.namespaces, self.kind, self.duration).await
    }
}

/// The query of a graph.
pub(crate) fn fuzz_question(query: &str) {
    let Ok(uri) = format!("/?{query}").parse::<http::Uri>() else { return };
    if let Ok(query) = axum::extract::Query::try_from_uri(&uri) {
        let _ = Question::of(&query);
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({"error": message}))).into_response()
}

async fn graph(State(prometheus): State<Prometheus>, query: Query) -> Response {
    let question = match Question::of(&query) {
        Ok(question) => question,
        Err(message) => return error(StatusCode::BAD_REQUEST, &message),
    };
    match question.answer(&prometheus).await {
        Ok(graph) => {
            axum::Json(json::graph(&graph, question.kind, question.duration, jiff::Timestamp::now().as_second())).into_response()
        }
        Err(message) => error(StatusCode::SERVICE_UNAVAILABLE, &message),
    }
}

async fn namespaces(State(prometheus): State<Prometheus>) -> Response {
    match prometheus.label_values("destination_workload_namespace").await {
        Ok(names) => {
            let names = names.iter().filter(|name| *name != "unknown");
            axum::Json(names.map(|name| json!({"name": name, "cluster": "Kubernetes"})).collect::<Vec<_>>()).into_response()
        }
        Err(message) => error(StatusCode::SERVICE_UNAVAILABLE, &message),
    }
}

async fn updates(State(prometheus): State<Prometheus>, query: Query, headers: HeaderMap) -> Response {
    let language = Language::of(&query, &headers);
    let question = match Question::of(&query) {
        Ok(question) => question,
        Err(message) => return error(StatusCode::BAD_REQUEST, &message),
    };
    live(LIVE, move || {
        let (question, prometheus) = (question.clone(), prometheus.clone());
        async move { page::picture(&question.answer(&prometheus).await?, language) }
    })
}

#[cfg(test)]
mod tests;
