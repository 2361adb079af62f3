//! The parsers of what targets, exporters and clients send, for the fuzz targets in `fuzz/`.

pub use crate::access_logs::fuzz_entry as access_log_entry;
pub use crate::metrics::fuzzing::{exposition, promql, series_selector};
pub use crate::traces::fuzzing::{otlp_grpc, otlp_json, otlp_protobuf, zipkin};

use axum::body::Body;
use http::Request;

/// The query string of every route of Prometheus' and of Jaeger's API, and of Kiali's graph.
///
/// # Panics
/// An answer is a 500, which is a bug here.
pub fn query_parameters(query: &str) {
    let prometheus = ["query", "query_range", "series", "labels", "label/job/values", "metadata", "targets", "rules"]
        .map(|path| format!("/api/v1/{path}?{query}"));
    ask(&crate::metrics::fuzzing::router(), prometheus.into_iter().chain([format!("/federate?{query}")]));
    crate::graph::fuzz_question(query);
    let jaeger = ["services", "traces", "operations", "dependencies", "services/web/operations"];
    ask(&crate::traces::fuzzing::router(), jaeger.map(|path| format!("/api/{path}?{query}")));
}

fn ask(router: &axum::Router, uris: impl IntoIterator<Item = String>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    for uri in uris {
        let Ok(request) = Request::get(uri.as_str()).body(Body::empty()) else { return };
        let answer = runtime.block_on(tower::ServiceExt::oneshot(router.clone(), request));
        let Ok(response) = answer;
        assert_ne!(response.status().as_u16(), 500, "{uri}");
    }
}
