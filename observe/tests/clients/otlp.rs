//! OpenTelemetry's own exporters send spans, and Jaeger's query API has them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use meshlab_net::OsNet;
use meshlab_observe::{JaegerOptions, jaeger};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{free_address, json, text, until};

struct Jaeger {
    options: JaegerOptions,
    _end: DropGuard,
}

impl Jaeger {
    async fn start() -> Self {
        let port = || free_address().port();
        let options = JaegerOptions {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            query: port(),
            otlp_grpc: port(),
            otlp_http: port(),
            zipkin: port(),
            admin: port(),
            legacy: Vec::new(),
            ..JaegerOptions::default()
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(jaeger(OsNet, options.clone(), shutdown.clone()));
        let admin = SocketAddr::new(options.address, options.admin);
        until("readiness of Jaeger", async || text(admin, "/").await.filter(|text| text.contains("available"))).await;
        Self { options, _end: shutdown.drop_guard() }
    }

    fn url(&self, port: u16) -> String {
        format!("http://{}:{port}", self.options.address)
    }

    /// The only trace of a service.
    async fn trace(&self, service: &str) -> Value {
        let query = SocketAddr::new(self.options.address, self.options.query);
        until("the trace", async || {
            let found = json(query, &format!("/jaeger/api/traces?service={service}&limit=10")).await?;
            found["data"].as_array().filter(|traces| traces.len() == 1).map(|traces| traces[0].clone())
        })
        .await
    }
}

/// Two spans, the second within the first, as an instrumented application makes them.
fn spans(provider: &SdkTracerProvider) -> String {
    let tracer = provider.tracer("checkout-library");
    let parent = tracer
        .span_builder("checkout")
        .with_kind(SpanKind::Server)
        .with_attributes([KeyValue::new("http.status_code", 503), KeyValue::new("retried", true), KeyValue::new("share", 0.5)])
        .start(&tracer);
    let context = Context::new().with_span(parent);
    let mut child = tracer.span_builder("charge <card>").with_kind(SpanKind::Client).start_with_context(&tracer, &context);
    child.add_event("declined", vec![KeyValue::new("reason", "funds")]);
    child.set_status(Status::error("card declined"));
    child.end();
    let span = context.span();
    span.end();
    span.span_context().trace_id().to_string()
}

fn resource(service: &'static str) -> Resource {
    Resource::builder_empty().with_service_name(service).with_attribute(KeyValue::new("team", "payments")).build()
}

fn assert_complete(trace: &Value, id: &str) {
    assert_eq!(trace["traceID"], id);
    let spans = trace["spans"].as_array().unwrap();
    let of = |name: &str| spans.iter().find(|span| span["operationName"] == name).unwrap_or_else(|| panic!("{name}: {trace}"));
    let tag = |span: &Value, key: &str| {
        let tags = span["tags"].as_array().unwrap();
        tags.iter().find(|tag| tag["key"] == key).map(|tag| (tag["type"].clone(), tag["value"].clone()))
    };
    let (parent, child) = (of("checkout"), of("charge <card>"));
    assert_eq!(spans.len(), 2);
    assert_eq!(tag(parent, "http.status_code"), Some((json!("int64"), json!(503))));
    assert_eq!(tag(parent, "retried"), Some((json!("bool"), json!(true))));
    assert_eq!(tag(parent, "share"), Some((json!("float64"), json!(0.5))));
    assert_eq!(tag(parent, "span.kind"), Some((json!("string"), json!("server"))));
    assert_eq!(tag(child, "error"), Some((json!("bool"), json!(true))));
    assert_eq!(tag(child, "otel.status_description"), Some((json!("string"), json!("card declined"))));
    assert_eq!(tag(child, "otel.scope.name"), Some((json!("string"), json!("checkout-library"))));
    assert_eq!(child["references"], json!([{"refType": "CHILD_OF", "traceID": id, "spanID": parent["spanID"]}]));
    assert_eq!(child["logs"][0]["fields"][0], json!({"key": "event", "type": "string", "value": "declined"}));
    assert_eq!(trace["processes"]["p1"]["tags"], json!([{"key": "team", "type": "string", "value": "payments"}]));
}

/// In batches, from a thread of its own, as the exporter is used by default.
#[tokio::test(flavor = "multi_thread")]
async fn spans_come_by_grpc() {
    let jaeger = Jaeger::start().await;
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(jaeger.url(jaeger.options.otlp_grpc)).build().unwrap();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource("by-grpc")).build();
    let id = spans(&provider);
    tokio::task::spawn_blocking(move || provider.shutdown()).await.unwrap().expect("the collector takes the spans");
    assert_complete(&jaeger.trace("by-grpc").await, &id);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_come_by_http() {
    let jaeger = Jaeger::start().await;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", jaeger.url(jaeger.options.otlp_http)))
        .build()
        .unwrap();
    // Each span by itself.
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).with_resource(resource("by-http")).build();
    let id = spans(&provider);
    provider.shutdown().expect("the collector takes the spans");
    let query = SocketAddr::new(jaeger.options.address, jaeger.options.query);
    until("both spans", async || {
        let found = json(query, "/api/traces?service=by-http").await?;
        (found["data"][0]["spans"].as_array()?.len() == 2).then_some(())
    })
    .await;
    assert_complete(&jaeger.trace("by-http").await, &id);
}
