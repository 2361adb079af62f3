use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_net::{Listener, OsNet};
use proptest::prelude::*;
use prost::Message;
use serde_json::Value;
use tower::ServiceExt;

use super::model::{Process, Span};
use super::otlp::{ExportRequest, ExportResponse, test_request};
use super::store::Search;
use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn order() -> ExportRequest {
    test_request(
        TRACE,
        &[
            (1, None, "istio-ingressgateway.istio-system", "webapp-service.webapp.svc.cluster.local:80/*"),
            (2, Some(1), "webapp.webapp", "webapp"),
            (3, Some(2), "payment.webapp", "payment"),
        ],
    )
}

async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(axum::body::Body::from(body.into())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into()))
}

fn full() -> (Arc<Store>, Router) {
    let store = Arc::new(Store::new(TraceLimits::default()));
    store.add(order().into_spans().0);
    let router = query(&store);
    (store, router)
}

#[tokio::test]
async fn a_trace_is_found_by_service_and_tag_in_jaegers_form() {
    let (_, router) = full();
    let tags = "%7B%22course%22%3A%22phase3%22%7D";
    let path = |base| format!("{base}/api/traces?service=payment.webapp&lookback=876000h&limit=100&tags={tags}");
    let (status, answer) = ask(&router, "GET", &path("/jaeger"), &[], "").await;
    assert_eq!((status, answer["total"].as_u64()), (200, Some(1)));
    insta::assert_json_snapshot!(answer["data"][0]["spans"][2], @r#"
    {
      "duration": 5000,
      "flags": 1,
      "logs": [],
      "operationName": "payment",
      "processID": "p3",
      "references": [
        {
          "refType": "CHILD_OF",
          "spanID": "0000000000000002",
          "traceID": "0af7651916cd43dd8448eb211c80319c"
        }
      ],
      "spanID": "0000000000000003",
      "startTime": 1700000000003000,
      "tags": [
        {
          "key": "course",
          "type": "string",
          "value": "phase3"
        },
        {
          "key": "http.status_code",
          "type": "string",
          "value": "200"
        },
        {
          "key": "span.kind",
          "type": "string",
          "value": "server"
        }
      ],
      "traceID": "0af7651916cd43dd8448eb211c80319c",
      "warnings": null
    }
    "#);
    insta::assert_json_snapshot!(answer["data"][0]["processes"], @r#"
    {
      "p1": {
        "serviceName": "istio-ingressgateway.istio-system",
        "tags": []
      },
      "p2": {
        "serviceName": "webapp.webapp",
        "tags": []
      },
      "p3": {
        "serviceName": "payment.webapp",
        "tags": []
      }
    }
    "#);
    assert_eq!(ask(&router, "GET", &path(""), &[], "").await.1, answer);
    for query in [
        "service=payment.webapp&start=1&tags=%7B%22course%22%3A%22phase2%22%7D",
        "service=nobody&start=1",
        "service=payment.webapp&start=1&operation=webapp",
        "service=payment.webapp&start=1&minDuration=6ms",
        "service=payment.webapp&lookback=120s",
    ] {
        assert_eq!(ask(&router, "GET", &format!("/api/traces?{query}"), &[], "").await.1["total"], 0, "{query}");
    }
    let one = ask(&router, "GET", &format!("/api/traces/{TRACE}"), &[], "").await.1;
    assert_eq!(one["data"][0]["spans"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn services_operations_and_dependencies() {
    let (_, router) = full();
    let answers = [
        ask(&router, "GET", "/api/services", &[], "").await.1["data"].to_string(),
        ask(&router, "GET", "/api/services/payment.webapp/operations", &[], "").await.1["data"].to_string(),
        ask(&router, "GET", "/api/operations?service=payment.webapp", &[], "").await.1["data"].to_string(),
        ask(&router, "GET", "/jaeger/api/dependencies?endTs=1700000001000&lookback=2000", &[], "").await.1["data"].to_string(),
    ];
    insta::assert_snapshot!(answers.join("\n"), @r#"
    ["istio-ingressgateway.istio-system","payment.webapp","webapp.webapp"]
    ["payment"]
    [{"name":"payment","spanKind":"server"}]
    [{"callCount":1,"child":"webapp.webapp","parent":"istio-ingressgateway.istio-system"},{"callCount":1,"child":"payment.webapp","parent":"webapp.webapp"}]
    "#);
}

#[tokio::test]
async fn errors_have_jaegers_form() {
    let (_, router) = full();
    let mut answers = Vec::new();
    for path in [
        "/api/traces",
        "/api/traces?service=a&tags=%7B",
        "/api/traces?service=a&minDuration=soon",
        "/api/traces?service=a&tag=x",
        "/api/traces/xyz",
        "/api/traces/1",
        "/api/metrics/calls",
    ] {
        let (status, answer) = ask(&router, "GET", path, &[], "").await;
        answers.push(format!("{status} {}", answer["errors"]));
    }
    insta::assert_snapshot!(answers.join("\n"), @r#"
    400 [{"code":400,"msg":"parameter 'service' is required"}]
    400 [{"code":400,"msg":"malformed 'tags' parameter, cannot unmarshal JSON: EOF while parsing an object at line 1 column 1"}]
    400 [{"code":400,"msg":"parameter 'minDuration' is not a duration: \"soon\""}]
    400 [{"code":400,"msg":"malformed 'tag' parameter, expecting key:value, received: x"}]
    400 [{"code":400,"msg":"the path does not end in a trace's identity"}]
    404 [{"code":404,"msg":"trace not found"}]
    404 [{"code":404,"msg":"/api/metrics/calls is not part of the API that is supported here"}]
    "#);
}

/// A real HTTP/2 connection, as an exporter has.
#[tokio::test]
async fn otlp_over_grpc() {
    let store = Arc::new(Store::new(TraceLimits::default()));
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let listener = OsNet.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.local_addr();
    tokio::spawn(server::serve(listener, receive::grpc(store.clone()), shutdown));
    let stream = OsNet.connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut call = async |path: &str, encoding: Option<&str>, compressed: u8, message: Vec<u8>| {
        let mut body = vec![compressed];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        let mut request =
            Request::post(format!("http://{address}{path}")).header("content-type", "application/grpc").header("te", "trailers");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let text = |name: &str| trailers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        (text("grpc-status"), text("grpc-message"), body.to_bytes())
    };
    let export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let (status, _, body) = call(export, None, 0, order().encode_to_vec()).await;
    assert_eq!((status.as_str(), &body[..]), ("0", &[0, 0, 0, 0, 0][..]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &test_request("2", &[(9, None, "other", "x")]).encode_to_vec()).unwrap();
    assert_eq!(call(export, Some("gzip"), 1, gzip.finish().unwrap()).await.0, "0");
    assert_eq!(store.counts().traces, 2);
    // A span without an identity is refused; the others of its batch are not.
    let (status, _, body) =
        call(export, None, 0, test_request("3", &[(0, None, "bad", "x"), (5, None, "good", "x")]).encode_to_vec()).await;
    let partial = ExportResponse::decode(&body[5..]).unwrap().partial_success.unwrap();
    assert_eq!((status.as_str(), partial.rejected_spans), ("0", 1));
    assert!(store.services().contains(&"good".to_owned()));
    assert_eq!(call(export, None, 0, vec![0xff; 20]).await.0, "3");
    assert_eq!(call(export, Some("zstd"), 1, vec![1]).await.0, "12");
    let (status, message, _) = call("/jaeger.api_v2.CollectorService/PostSpans", None, 0, Vec::new()).await;
    assert_eq!((status.as_str(), message.contains("not supported")), ("12", true));
}

#[tokio::test]
async fn otlp_over_http_and_zipkin() {
    let store = Arc::new(Store::new(TraceLimits::default()));
    let (otlp, zipkin) = (receive::http(store.clone()), receive::zipkin(store.clone()));
    let protobuf = [("content-type", "application/x-protobuf")];
    assert_eq!(ask(&otlp, "POST", "/v1/traces", &protobuf, order().encode_to_vec()).await.0, 200);
    assert_eq!(ask(&otlp, "POST", "/v1/traces", &protobuf, vec![0xff; 9]).await.0, 400);
    let json = [("content-type", "application/json")];
    let body = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"json"}}]},"scopeSpans":[{"scope":{"name":"lib"},
        "spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"","name":"op","kind":3,"startTimeUnixNano":"1544712660000000000",
        "endTimeUnixNano":"1544712661000000000","attributes":[{"key":"n","value":{"intValue":"5"}},{"key":"l","value":{"arrayValue":{"values":[{"boolValue":true}]}}}],"status":{"code":2,"message":"no"}}]}]}]}"#;
    assert_eq!(ask(&otlp, "POST", "/v1/traces", &json, body).await, (200, json!({"partialSuccess": {}})));
    let span = store.trace(0x5b8e_fff7_9803_8103_d269_b633_813f_c60c).unwrap().remove(0);
    assert_eq!(span.duration, 1_000_000);
    assert_eq!(
        json!(span.tags),
        json!([
            ["n", 5],
            ["l", "[true]"],
            ["span.kind", "client"],
            ["otel.scope.name", "lib"],
            ["error", true],
            ["otel.status_code", "ERROR"],
            ["otel.status_description", "no"]
        ])
    );
    insta::assert_json_snapshot!(ask(&otlp, "POST", "/v1/traces", &json, "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"traceId\":\"xy\"}]}]}]}").await, @r#"
    [
      400,
      {
        "code": 3,
        "message": "an identity is not hexadecimal at line 1 column 59"
      }
    ]
    "#);
    assert_eq!(ask(&otlp, "POST", "/v1/traces", &[("content-type", "text/plain")], "").await.0, 415);
    let body = r#"[{"traceId":"463ac35c9f6413ad","id":"a2fb4a1d1a96d312","name":"get","kind":"SERVER","timestamp":1472470996199000,"duration":207000,"localEndpoint":{"serviceName":"zip"},"tags":{"http.path":"/api"}},{"traceId":"nonsense","id":"1"}]"#;
    assert_eq!(ask(&zipkin, "POST", "/api/v2/spans", &json, body).await.0, 202);
    assert_eq!(store.trace(0x463a_c35c_9f64_13ad).unwrap()[0].process.service, "zip");
    assert_eq!(store.counts().refused, 1);
    assert_eq!(ask(&zipkin, "POST", "/api/v2/spans", &json, "{").await.0, 400);
}

fn span(trace: u128, id: u64, service: &str) -> Span {
    Span {
        trace,
        id,
        parent: None,
        process: Arc::new(Process { service: service.to_owned(), tags: Vec::new() }),
        name: "op".to_owned(),
        start: trace as u64,
        duration: 1,
        tags: vec![("k".to_owned(), json!("v"))],
        events: Vec::new(),
        warnings: Vec::new(),
    }
}

#[test]
fn a_flood_of_spans_pushes_the_oldest_traces_out_and_is_counted() {
    let store = Store::new(TraceLimits { spans: 100, spans_per_trace: 3, names: 5, ..TraceLimits::default() });
    (1..=200).for_each(|trace| store.add(vec![span(trace, 1, &format!("s{}", trace % 2)), span(trace, 2, "both")]));
    let counts = store.counts();
    assert_eq!((counts.traces, counts.spans, counts.received, counts.forgotten), (50, 100, 400, 300));
    assert!(store.trace(150).is_none() && store.trace(151).is_some());
    store.add((0..10).map(|id| span(200, id + 10, "both")).collect());
    assert_eq!(store.counts().refused, 9);
    store.add((0..10).map(|id| span(300, 1, &format!("many{id}"))).collect());
    assert_eq!(store.services().len(), 5);
    let search = Search { service: "both".to_owned(), end: u64::MAX, limit: 3, ..Search::default() };
    let found: Vec<_> = store.search(&search).iter().map(|spans| spans[0].trace).collect();
    assert_eq!(found, [200, 199, 198], "the newest come first");
}

#[test]
fn a_trace_is_found_once_however_many_pods_a_service_has() {
    let store = Store::new(TraceLimits::default());
    for pod in 1..=3 {
        let tags = vec![("ip".to_owned(), json!(format!("10.0.0.{pod}")))];
        let process = Arc::new(Process { service: "web".to_owned(), tags });
        store.add(vec![Span { process, start: 10 - pod, ..span(7, pod, "") }]);
    }
    let search = |tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        store.search(&Search { service: "web".to_owned(), tags, end: u64::MAX, limit: 9, ..Search::default() })
    };
    assert_eq!(search(&[]).iter().map(Vec::len).collect::<Vec<_>>(), [3]);
    assert_eq!((search(&[("ip", "10.0.0.2"), ("k", "v")]).len(), search(&[("ip", "10.0.0.4")]).len()), (1, 0));
}

#[test]
fn memory_is_bounded_whatever_the_tags_are() {
    let store = Store::new(TraceLimits { bytes: 3 << 20, ..TraceLimits::default() });
    for trace in 1..=20_000_u64 {
        let unique = |what: &str| format!("{what}-{trace}-{}", "x".repeat(200));
        let process = Arc::new(Process { service: "web".to_owned(), tags: vec![("pod".to_owned(), json!(unique("pod")))] });
        let tags = vec![(unique("name"), json!(unique("value")))];
        store.add(vec![Span { process, name: unique("op"), tags, ..span(u128::from(trace), trace, "") }]);
    }
    let counts = store.counts();
    assert!(counts.bytes <= 3 << 20 && counts.forgotten > 10_000 && counts.spans > 100, "{counts:?}");
}

#[test]
fn what_is_too_long_is_cut_and_said() {
    let mut long = span(1, 1, "s");
    long.tags = (0..200).map(|tag| (format!("t{tag}"), json!("é".repeat(5000)))).collect();
    let bounded = long.bounded();
    assert_eq!(bounded.tags.len(), 128);
    assert_eq!(bounded.warnings, ["72 tags were left out", "128 texts were longer than 4096 bytes"]);
}

proptest! {
    #[test]
    fn nothing_received_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = ExportRequest::decode(&bytes[..]) {
            Store::new(TraceLimits::default()).add(request.into_spans().0);
        }
    }

    #[test]
    fn durations_are_gos(hours in 0_u64..100, seconds in 0_u64..60) {
        prop_assert_eq!(api::duration(&format!("{hours}h{seconds}s")), Some((hours * 3600 + seconds) * 1_000_000));
        prop_assert_eq!(Duration::from_micros(api::duration("1.5ms").unwrap()), Duration::from_micros(1500));
    }
}

#[tokio::test]
async fn the_pages_find_and_draw_a_trace_and_are_harmless() {
    use crate::pages::tests::{HOSTILE, assert_harmless, page};
    let (store, router) = full();
    let mut hostile = span(0xbad, 1, HOSTILE);
    hostile.name = HOSTILE.to_owned();
    hostile.tags = vec![(HOSTILE.to_owned(), json!(HOSTILE)), ("error".to_owned(), json!(true))];
    hostile.start = api::now();
    store.add(vec![hostile]);
    let service: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for language in ["ja", "en"] {
        for base in ["", "/jaeger"] {
            let (status, html) = page(&router, &format!("{base}/search?service={service}&tag=error:true"), language).await;
            assert_eq!(status, 200);
            assert!(html.contains("trace/0000000000000bad"), "{html}");
            assert_harmless(&html);
            let (_, html) = page(&router, &format!("{base}/trace/bad"), language).await;
            assert!(html.contains("class=\"critical\""), "{html}");
            assert_harmless(&html);
        }
        let (_, html) = page(&router, &format!("/jaeger/trace/{TRACE}"), language).await;
        assert_eq!(html.matches("<details>").count(), 3);
        assert_eq!(page(&router, "/trace/1", language).await.0, 404);
        assert_harmless(&page(&router, "/search?tag=%3Cscript%3E", language).await.1);
    }
}
