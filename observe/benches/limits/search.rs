//! A search among 100,000 spans.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use meshlab_net::OsNet;
use meshlab_observe::{JaegerOptions, jaeger};
use tokio_util::sync::CancellationToken;

use crate::Row;
use crate::fixtures::{free_address, median, own_processor_time, runtime, until};

const TRACES: usize = 100_000 / SPANS;
const SPANS: usize = SERVICES.len();
/// Spans of one trace, as an order in the course makes them: called and calling by turns.
const SERVICES: [&str; 6] =
    ["istio-ingressgateway.istio-system", "webapp.webapp", "webapp.webapp", "api.webapp", "api.webapp", "payment.webapp"];
const ROUNDS: usize = 15;

pub(crate) fn options() -> JaegerOptions {
    let port = || free_address().port();
    JaegerOptions {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        query: port(),
        otlp_grpc: port(),
        otlp_http: port(),
        zipkin: port(),
        admin: port(),
        legacy: Vec::new(),
        ..JaegerOptions::default()
    }
}

/// Spans of some traces in Zipkin's JSON, with the tags that a proxy sets.
pub(crate) fn zipkin(traces: std::ops::Range<usize>) -> String {
    let mut json = String::from("[");
    for trace in traces {
        for (hop, service) in SERVICES.iter().enumerate() {
            let (status, comma) = (if trace % 97 == 0 { 503 } else { 200 }, if json.len() > 1 { "," } else { "" });
            let kind = if hop % 2 == 0 && hop > 0 { "CLIENT" } else { "SERVER" };
            let parent =
                hop.checked_sub(1).map(|parent| format!("\"parentId\":\"{:016x}\",", trace * 8 + parent + 1)).unwrap_or_default();
            let (name, namespace) = service.split_once('.').unwrap_or((service, ""));
            write!(
                json,
                "{comma}{{\"traceId\":\"{:032x}\",\"id\":\"{:016x}\",{parent}\"name\":\"{name}-service.{namespace}.svc.cluster.local:80/*\",\
                 \"kind\":\"{kind}\",\"timestamp\":{},\"duration\":{},\"localEndpoint\":{{\"serviceName\":\"{service}\"}},\"tags\":{{\
                 \"component\":\"proxy\",\"downstream_cluster\":\"-\",\"guid:x-request-id\":\"4b05e14a-a0db-45d1-8864-{trace:012x}\",\
                 \"http.method\":\"GET\",\"http.protocol\":\"HTTP/1.1\",\"http.status_code\":\"{status}\",\
                 \"http.url\":\"http://webapp.istio.local/orders/{}\",\"istio.canonical_revision\":\"v1\",\
                 \"istio.canonical_service\":\"{name}\",\"istio.cluster_id\":\"Kubernetes\",\"istio.mesh_id\":\"cluster.local\",\
                 \"istio.namespace\":\"{namespace}\",\
                 \"node_id\":\"sidecar~10.244.0.{hop}~{name}-v1-79fb958dbc-d7cxh.{namespace}~{namespace}.svc.cluster.local\",\
                 \"peer.address\":\"10.244.0.{}\",\"request_size\":\"{}\",\"response_flags\":\"-\",\"response_size\":\"{}\",\
                 \"upstream_cluster\":\"outbound|80|v1|{name}-service.{namespace}.svc.cluster.local\",\
                 \"upstream_cluster.name\":\"outbound|80|v1|{name}-service.{namespace}.svc.cluster.local\",\"user_agent\":\"curl/8.11.0\"}}}}",
                trace + 1,
                trace * 8 + hop + 1,
                1_795_388_235_000_000 + trace * 20_000 + hop * 300,
                4000 - hop * 600,
                trace % 1000,
                hop + 1,
                trace % 300,
                800 + trace % 200,
            )
            .expect("a string takes everything");
        }
    }
    json.push(']');
    json
}

/// Sends whole traces as the proxies' exporter does: 256 spans at once.
pub(crate) async fn send(address: SocketAddr, traces: std::ops::Range<usize>) {
    let client = reqwest::Client::new();
    for first in traces.clone().step_by(64) {
        let batch = zipkin(first..(first + 64).min(traces.end));
        let request =
            client.post(format!("http://{address}/api/v2/spans")).header("content-type", "application/json").body(batch);
        let response = request.send().await.expect("the collector answers");
        assert_eq!(response.status().as_u16(), 202);
    }
}

/// From the question to the whole answer, over HTTP: the traces of one service that failed, and one that nothing has, for which
/// all of the service's spans are looked at.
pub(crate) fn measure() -> Row {
    let (others, store) = (runtime("client", 1), runtime("jaeger", 2));
    let (options, shutdown) = (options(), CancellationToken::new());
    let at = |port| SocketAddr::new(options.address, port);
    let (query, zipkin) = (at(options.query), at(options.zipkin));
    store.spawn(jaeger(OsNet, options.clone(), shutdown.clone()));
    let took = others.block_on(async {
        until(&format!("http://{query}/api/services"), "data").await;
        send(zipkin, 0..TRACES).await;
        let mut worst = Vec::new();
        for tags in [r#"{"http.status_code":"503"}"#, r#"{"http.status_code":"418"}"#] {
            let tags: String = url::form_urlencoded::byte_serialize(tags.as_bytes()).collect();
            let url = format!("http://{query}/api/traces?service=api.webapp&tags={tags}&start=1&limit=20");
            let (mut took, before) = (Vec::new(), own_processor_time());
            for _ in 0..ROUNDS {
                let asked = Instant::now();
                reqwest::get(&url).await.expect("an answer").bytes().await.expect("all of it");
                took.push(asked.elapsed());
            }
            let used = (own_processor_time() - before) / ROUNDS as u32;
            worst.push(format!("{:.1} ms (processor time {:.1} ms)", median(took).as_secs_f64() * 1e3, used.as_secs_f64() * 1e3));
        }
        worst
    });
    shutdown.cancel();
    Row {
        what: "100,000 spans in store: a search by service and tag",
        at_most: "30 ms",
        measured: format!("20 found: {}; none found: {}", took[0], took[1]),
    }
}
