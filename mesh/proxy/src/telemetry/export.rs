//! Spans of requests: begun when the route is known, finished with the response, sent to the collector in batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::BodyExt;
use meshlab_proxy_config::{CustomTag, Direction, SpanExporter, Tracing};
use serde_json::json;
use tokio::sync::mpsc;

use super::format::{View, protocol_name};
use super::span::{Context, Span, SpanKind};
use super::wire::{bytes_field, fixed64_field, varint_field};
use crate::cluster::Cluster;
use crate::cluster::members::Choice;
use crate::http::body::RequestBody;
use crate::http::exchange::{Exchange, OpenSpan};
use crate::matching::{drawn, header_name};
use crate::proxy::Shared;
use crate::route::Route;

/// Spans that wait to be sent; more are dropped.
const QUEUE: usize = 4096;
/// Spans sent at once.
const BATCH: usize = 256;
/// The longest a span waits.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time for one batch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A gRPC client's deadline.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Where spans wait.
pub(crate) struct SpanQueue {
    sender: mpsc::Sender<Span>,
}

/// Begins a request's span, and hands its context on.
pub(crate) fn start(exchange: &mut Exchange, headers: &mut HeaderMap, route: &Route) {
    let telemetry = exchange.telemetry.clone();
    let Some(tracing) = &telemetry.config.tracing else { return };
    let sample = || drawn(tracing.sampling);
    let context = match Context::extract(headers, tracing.exporter, sample) {
        Some(parent) => parent.child(),
        None => Context::root(sample()),
    };
    context.inject(headers, tracing.exporter);
    if context.sampled {
        let own = (!route.operation.is_empty()).then(|| route.operation.clone());
        let name = exchange.operation.take().or(own);
        exchange.span = Some(OpenSpan { context, name, headers: for_tags(tracing, headers) });
    }
}

/// The headers of a request that its span's tags may show.
pub(crate) fn for_tags(tracing: &Tracing, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let custom = tracing.custom_tags.values().filter_map(|tag| match tag {
        CustomTag::Header { name, .. } => header_name(name).ok(),
        CustomTag::Literal(_) | CustomTag::Environment { .. } => None,
    });
    let names = [header::USER_AGENT, header::CONTENT_TYPE, GRPC_TIMEOUT].into_iter().chain(custom);
    names.filter_map(|name| headers.get(&name).cloned().map(|value| (name, value))).collect()
}

/// Finishes a span with what is known of the stream.
pub(crate) fn finish(proxy: &Arc<Shared>, view: View<'_>, open: OpenSpan) {
    let info = view.info;
    let Some(tracing) = &view.telemetry.config.tracing else { return };
    let text = |name: &HeaderName| {
        let (_, value) = open.headers.iter().find(|(kept, _)| kept == name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let mut tags = BTreeMap::new();
    let mut tag = |name: &str, value: String| drop(tags.insert(name.to_owned(), value));
    let workload = &view.telemetry.workload;
    tag("component", "proxy".to_owned());
    tag("node_id", proxy.options.node_id.clone());
    tag("istio.canonical_service", workload.canonical_service.clone());
    tag("istio.canonical_revision", workload.canonical_revision.clone());
    tag("istio.namespace", workload.namespace.clone());
    tag("istio.cluster_id", workload.cluster.clone());
    tag("istio.mesh_id", "cluster.local".to_owned());
    tag("downstream_cluster", "-".to_owned());
    tag("peer.address", info.connection.peer.ip().to_string());
    tag("request_size", info.bytes_received.to_string());
    tag("response_size", info.bytes_sent.to_string());
    tag("response_flags", info.flags.to_string());
    tag("http.status_code", info.status.to_string());
    if let Some(http) = &info.http {
        tag("http.method", http.method.to_string());
        tag("http.url", format!("{}://{}{}", http.scheme, http.authority, http.path));
        tag("http.protocol", protocol_name(http.version).to_owned());
        if let Some(id) = http.request_id.as_ref().and_then(|id| id.to_str().ok()) {
            tag("guid:x-request-id", id.to_owned());
        }
        if http.grpc {
            tag("grpc.path", http.path.clone());
            tag("grpc.authority", http.authority.clone());
            for (name, header) in [("grpc.content_type", header::CONTENT_TYPE), ("grpc.timeout", GRPC_TIMEOUT)] {
                if let Some(value) = text(&header) {
                    tag(name, value);
                }
            }
            if let Some(status) = info.grpc_status {
                tag("grpc.status_code", status.to_string());
            }
        }
    }
    if let Some(agent) = text(&header::USER_AGENT) {
        tag("user_agent", agent);
    }
    if let Some(cluster) = &info.cluster {
        tag("upstream_cluster", cluster.name.to_string());
        tag("upstream_cluster.name", cluster.name.to_string());
    }
    for (name, custom) in &tracing.custom_tags {
        let value = match custom {
            CustomTag::Literal(value) => value.clone(),
            CustomTag::Environment { name, default } => view.telemetry.environment.get(name).unwrap_or(default).clone(),
            CustomTag::Header { name, default } => {
                header_name(name).ok().and_then(|name| text(&name)).unwrap_or_else(|| default.clone())
            }
        };
        if !value.is_empty() {
            tag(name, value);
        }
    }
    let error = info.status >= 500 || info.status == 0 || info.grpc_status.is_some_and(|status| status != 0);
    if error {
        tag("error", "true".to_owned());
    }
    let span = Span {
        trace_id: open.context.trace_id,
        span_id: open.context.span_id,
        parent_id: open.context.parent_id,
        name: open.name.unwrap_or_else(|| info.http.as_ref().map(|http| http.authority.clone()).unwrap_or_default()),
        kind: if info.connection.direction == Direction::Inbound { SpanKind::Server } else { SpanKind::Client },
        service: tracing.service_name.clone(),
        start: info.started_at,
        duration: info.started.elapsed(),
        tags,
        error,
    };
    if let Some(sink) = &proxy.options.span_sink {
        sink.record(&span);
    }
    if proxy.spans.sender.try_send(span).is_err() {
        proxy.counters.spans_dropped.increment();
    }
}

impl SpanQueue {
    /// A queue, and what [`run`] takes from it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Span>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender }, receiver)
    }
}

/// Sends spans to the collector that the configuration names, for as long as the proxy runs.
pub(crate) async fn run(proxy: std::sync::Weak<Shared>, mut spans: mpsc::Receiver<Span>) {
    let mut batch = Vec::with_capacity(BATCH);
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        // A little patience makes batches out of single spans.
        let deadline = tokio::time::Instant::now() + INTERVAL;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(deadline, spans.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        let Some(strong) = proxy.upgrade() else { return };
        let snapshot = strong.snapshot.load_full();
        let tracing = snapshot.telemetry.config.tracing.clone();
        if let Some(tracing) = tracing
            && let Some(cluster) = snapshot.clusters.get(&tracing.cluster).cloned()
        {
            let sent = tokio::time::timeout(TIMEOUT, send(&cluster, &tracing, &batch)).await;
            if !matches!(sent, Ok(Ok(()))) {
                strong.counters.spans_dropped.add(batch.len() as u64);
                tracing::debug!(cluster = %cluster.name, outcome = ?sent, "spans were not taken");
            }
        }
        batch.clear();
    }
}

async fn send(cluster: &Arc<Cluster>, tracing: &Tracing, spans: &[Span]) -> Result<(), String> {
    cluster.warmed().await;
    let host = cluster.choose(Choice::default()).ok_or("no healthy upstream")?;
    let authority =
        if cluster.config.service.host.is_empty() { "collector".to_owned() } else { cluster.config.service.host.clone() };
    let (path, content_type, body) = match tracing.exporter {
        SpanExporter::Zipkin => ("/api/v2/spans", "application/json", zipkin(spans)),
        SpanExporter::OtlpHttp => ("/v1/traces", "application/x-protobuf", otlp(spans)),
        SpanExporter::OtlpGrpc => {
            let message = otlp(spans);
            let mut framed = vec![0];
            framed.extend((message.len() as u32).to_be_bytes());
            framed.extend(message);
            ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", "application/grpc", framed)
        }
    };
    let grpc = tracing.exporter == SpanExporter::OtlpGrpc;
    let mut request = Request::new(RequestBody::Whole(Some(Bytes::from(body))));
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(PathAndQuery::from_static(path));
    if grpc {
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::try_from(authority.as_str()).map_err(|error| error.to_string())?);
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        *request.version_mut() = Version::HTTP_2;
    } else {
        let host = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = Uri::from_parts(uri).map_err(|error| error.to_string())?;
    let status = if grpc {
        let connection = cluster.http2(&host).await.map_err(|error| format!("{error:?}"))?;
        let response = connection.sender.clone().send_request(request).await.map_err(|error| error.to_string())?;
        response.status()
    } else {
        let mut connection = cluster.http1(&host).await.map_err(|error| format!("{error:?}"))?;
        let response = connection.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|error| error.to_string())?;
        }
        cluster.release(&host, connection);
        status
    };
    if status.is_success() { Ok(()) } else { Err(format!("the collector answered {status}")) }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn zipkin(spans: &[Span]) -> Vec<u8> {
    let spans: Vec<_> = spans
        .iter()
        .map(|span| {
            let mut value = json!({
                "traceId": format!("{:032x}", span.trace_id),
                "id": format!("{:016x}", span.span_id),
                "name": span.name,
                "kind": if span.kind == SpanKind::Client { "CLIENT" } else { "SERVER" },
                "timestamp": nanoseconds(span.start) / 1000,
                "duration": span.duration.as_micros().max(1) as u64,
                "localEndpoint": { "serviceName": span.service },
                "tags": span.tags,
            });
            if let Some(parent) = span.parent_id {
                value["parentId"] = json!(format!("{parent:016x}"));
            }
            value
        })
        .collect();
    serde_json::to_vec(&spans).unwrap_or_default()
}

/// `ExportTraceServiceRequest` (<https://github.com/open-telemetry/opentelemetry-proto>).
fn otlp(spans: &[Span]) -> Vec<u8> {
    // KeyValue: key = 1, value = 2; AnyValue.string_value = 1.
    let attribute = |name: &str, value: &str| {
        let mut pair = bytes_field(1, name.as_bytes());
        pair.extend(bytes_field(2, &bytes_field(1, value.as_bytes())));
        pair
    };
    let mut by_service: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for span in spans {
        // Span: trace_id = 1, span_id = 2, parent_span_id = 4, name = 5, kind = 6, start = 7, end = 8, attributes = 9, status = 15.
        let start = nanoseconds(span.start);
        let mut encoded = bytes_field(1, &span.trace_id.to_be_bytes());
        encoded.extend(bytes_field(2, &span.span_id.to_be_bytes()));
        if let Some(parent) = span.parent_id {
            encoded.extend(bytes_field(4, &parent.to_be_bytes()));
        }
        encoded.extend(bytes_field(5, span.name.as_bytes()));
        encoded.extend(varint_field(6, if span.kind == SpanKind::Client { 3 } else { 2 }));
        encoded.extend(fixed64_field(7, start));
        encoded.extend(fixed64_field(8, start + span.duration.as_nanos() as u64));
        for (name, value) in &span.tags {
            encoded.extend(bytes_field(9, &attribute(name, value)));
        }
        if span.error {
            encoded.extend(bytes_field(15, &varint_field(3, 2)));
        }
        // ScopeSpans.spans = 2.
        by_service.entry(&span.service).or_default().extend(bytes_field(2, &encoded));
    }
    let mut request = Vec::new();
    for (service, scope_spans) in by_service {
        // ResourceSpans: resource = 1 (attributes = 1), scope_spans = 2.
        let mut resource_spans = bytes_field(1, &bytes_field(1, &attribute("service.name", service)));
        resource_spans.extend(bytes_field(2, &scope_spans));
        request.extend(bytes_field(1, &resource_spans));
    }
    request
}
