//! See [`crate::fuzzing`].

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use prost::Message;

use super::model::trace_json;
use super::otlp::ExportRequest;
use super::receive;
use super::store::{Store, TraceLimits};
use super::zipkin::ZipkinSpan;

fn keep(request: ExportRequest) {
    let store = Store::new(TraceLimits::default());
    store.add(request.into_spans().0);
    for service in store.services() {
        let search = super::store::Search { service, end: u64::MAX, limit: 10, ..Default::default() };
        store.search(&search).iter().for_each(|spans| drop(trace_json(spans)));
    }
}

/// The body of OTLP over HTTP.
pub fn otlp_protobuf(body: &[u8]) {
    if let Ok(request) = ExportRequest::decode(body) {
        keep(request);
    }
}

/// The body of OTLP over HTTP, as JSON.
pub fn otlp_json(body: &[u8]) {
    if let Ok(request) = serde_json::from_slice(body) {
        keep(request);
    }
}

/// The body of OTLP over gRPC.
pub fn otlp_grpc(body: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    if let Some(message) = receive::message(&headers, &Bytes::copy_from_slice(body)) {
        otlp_protobuf(&message);
    }
}

/// The body of Zipkin's API.
pub fn zipkin(body: &[u8]) {
    if let Ok(spans) = serde_json::from_slice::<Vec<ZipkinSpan>>(body) {
        let store = Store::new(TraceLimits::default());
        store.add(spans.into_iter().filter_map(ZipkinSpan::into_span).collect());
    }
}

pub(crate) fn router() -> axum::Router {
    let store = Arc::new(Store::new(TraceLimits::default()));
    otlp_spans().into_iter().for_each(|span| store.add(vec![span]));
    super::api::router(store)
}

/// One span, so that there is something to find.
fn otlp_spans() -> Option<super::model::Span> {
    let body = br#"[{"traceId":"463ac35c9f6413ad","id":"a2fb4a1d1a96d312","name":"get","timestamp":1,"duration":2,"localEndpoint":{"serviceName":"web"}}]"#;
    serde_json::from_slice::<Vec<ZipkinSpan>>(body).ok()?.into_iter().find_map(ZipkinSpan::into_span)
}
