//! What the addons of a Phase 3 lab take after 30 minutes at 50 requests per second.
//!
//! All four run in a process of their own, whose resident memory is read before they begin and at the end: threads, pages'
//! templates and what the allocator keeps are included. What a lab would send them in 30 minutes comes from this one in less than one: 360 scrapes with a hundredth of the
//! time between them, and every span of 90,000 requests, as the course's last step traces all of them. At the end each page is
//! opened.
//!
//! The sizes are those of the solved course under `meshlab traffic --path /order`: 16 proxies, 29,000 series, of which 590 change
//! (here it is 2,560: all histograms of all proxies), and six spans a request.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshlab_net::OsNet;
use meshlab_observe::{GrafanaOptions, KialiOptions, PrometheusOptions, StaticTarget, grafana, jaeger, kiali, prometheus_of};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Row;
use crate::fixtures::{Proxy, free_address, runtime, serve as serve_targets, until};
use crate::search::{options, send};

/// The argument of the process with the servers.
pub(crate) const SERVE: &str = "serve-for-memory";
/// Pods with a proxy, and series of each.
const TARGETS: usize = 16;
const SERIES: usize = 1830;
/// Of these: those of histograms and counters of requests.
const GROWING: usize = 160;
const SCRAPES: usize = 360;
const REQUESTS: usize = 90_000;
/// What is read is what stays. A lab has a scrape every third of a second, not 320 in one.
const QUIET: Duration = Duration::from_secs(2);

/// What the scraper adds to every series of a pod in a lab.
fn pod_labels(target: usize) -> String {
    format!(
        ",app=\"app-{target}\",namespace=\"webapp\",node=\"meshlab\",pod=\"app-{target}-v1-79fb958dbc-{target:05}\",pod_template_hash=\"79fb958dbc\",\
         security_istio_io_tlsMode=\"istio\",service_istio_io_canonical_name=\"app-{target}\",\
         service_istio_io_canonical_revision=\"v1\",version=\"v1\""
    )
}

/// An API server with the lab's pods, each with a log of some lines.
fn cluster() -> kube::Client {
    let pod = |target: usize| {
        json!({
            "metadata": {"name": format!("app-{target}"), "namespace": "webapp"},
            "spec": {"containers": [{"name": "istio-proxy"}]},
            "status": {"phase": "Running", "podIP": format!("10.244.0.{target}")},
        })
    };
    let list =
        |kind: &str, items: Vec<Value>| json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "items": items}).to_string();
    let answer = move |request: http::Request<kube::client::Body>| {
        let body = match request.uri().path() {
            "/api/v1/pods" => list("PodList", (0..TARGETS).map(pod).collect()),
            "/api/v1/namespaces" => list("NamespaceList", Vec::new()),
            _ => LOG.repeat(60),
        };
        async move { Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(bytes::Bytes::from(body)))) }
    };
    kube::Client::new(tower::service_fn(answer), "istio-system")
}

const LOG: &str = "[2026-08-22T01:37:15.123Z] \"GET /order HTTP/1.1\" 503 FI fault_filter_abort - \"-\" 0 18 0 - \"-\" \"curl/8.11.0\" \
    \"4b05e14a-a0db-45d1-8864-2f3d5a7c9e01\" \"webapp.istio.local\" \"-\" outbound|80||api-service.webapp.svc.cluster.local - \
    10.96.0.9:80 10.244.0.7:41234 - default\n";

/// The other process: reads where the targets are, says where it listens, and serves until its input ends.
#[expect(clippy::print_stdout, reason = "how the processes talk")]
pub(crate) fn serve() {
    let mut line = String::new();
    let mut input = std::io::stdin().lock();
    input.read_line(&mut line).expect("an address");
    let address: SocketAddr = line.trim().parse().expect("an address");
    let targets =
        (0..TARGETS).map(|target| StaticTarget { job: target.to_string(), address, path: format!("/{target}") }).collect();
    let (runtime, shutdown, jaegers) = (runtime("servers", 2), CancellationToken::new(), options());
    let [listen, grafanas, kialis] = [(); 3].map(|()| free_address());
    let metrics = PrometheusOptions { listen, scrape_interval: Duration::from_millis(50), ..PrometheusOptions::default() };
    let at = |port| SocketAddr::new(jaegers.address, port);
    println!("{listen} {grafanas} {kialis} {} {}", at(jaegers.query), at(jaegers.zipkin));
    let prometheus = (listen.ip().to_string(), listen.port());
    // Nothing begins before the memory of the bare process has been read.
    line.clear();
    input.read_line(&mut line).expect("the word to begin");
    let _inside = runtime.enter();
    runtime.spawn(prometheus_of(OsNet, targets, metrics, shutdown.clone()));
    runtime.spawn(jaeger(OsNet, jaegers, shutdown.clone()));
    runtime.spawn(grafana(OsNet, GrafanaOptions { listen: grafanas, prometheus: prometheus.clone() }, shutdown.clone()));
    runtime.spawn(kiali(OsNet, cluster(), KialiOptions { listen: kialis, prometheus }, shutdown.clone()));
    line.clear();
    while input.read_line(&mut line).is_ok_and(|read| read > 0) {}
    shutdown.cancel();
}

pub(crate) fn measure() -> Row {
    let others = runtime("target", 2);
    let scrapes = Arc::new(AtomicUsize::new(0));
    let proxy = |target| Proxy::new(target, GROWING, SERIES, &pod_labels(target));
    let proxies: Arc<Vec<_>> = Arc::new((0..TARGETS).map(proxy).collect());
    let targets = serve_targets(&others, {
        let scrapes = scrapes.clone();
        move |target| {
            let scrape = scrapes.fetch_add(1, Ordering::Relaxed) / TARGETS;
            (scrape < SCRAPES).then(|| proxies[target].scrape(None))
        }
    });
    let itself = std::env::current_exe().expect("this program has a path");
    let mut child =
        Command::new(itself).arg(SERVE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be run again");
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{targets}").expect("it listens");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its addresses");
    let addresses: Vec<SocketAddr> = line.split_whitespace().filter_map(|address| address.parse().ok()).collect();
    let [prometheus, grafana, kiali, jaeger, zipkin] = addresses[..] else { panic!("addresses are expected: {line:?}") };
    let resident = |kind: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("Linux tells of processes");
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    };
    let bare = resident("VmRSS:");
    writeln!(input, "begin").expect("it listens");
    let (metrics, traces, all, store) = others.block_on(async {
        while scrapes.load(Ordering::Relaxed) < SCRAPES * TARGETS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(QUIET).await;
        let metrics = resident("VmRSS:");
        until(&format!("http://{jaeger}/api/services"), "data").await;
        send(zipkin, 0..REQUESTS).await;
        tokio::time::sleep(QUIET).await;
        let traces = resident("VmRSS:");
        let pages = [
            format!("{prometheus}/query?query=sum(rate(istio_requests_total[1m]))"),
            format!("{jaeger}/jaeger/search?service=api.webapp"),
            format!("{kiali}/kiali/console/overview"),
            format!("{kiali}/kiali/console/graph"),
            format!("{kiali}/kiali/console/logs"),
        ];
        let dashboards = ["mesh", "service", "workload", "performance", "control-plane"];
        for page in dashboards.map(|dashboard| format!("{grafana}/d/{dashboard}")).into_iter().chain(pages) {
            let response = reqwest::get(format!("http://{page}")).await.expect("an answer");
            assert!(response.status().is_success(), "{page}: {}", response.status());
            response.bytes().await.expect("all of it");
        }
        tokio::time::sleep(QUIET).await;
        let all = resident("VmRSS:");
        let store: Value =
            reqwest::get(format!("http://{prometheus}/api/v1/status/tsdb")).await.expect("an answer").json().await.expect("JSON");
        (metrics, traces, all, store["data"]["headStats"].clone())
    });
    let peak = resident("VmHWM:");
    drop(input);
    child.wait().expect("it ends");
    Row {
        what: "memory of the whole of it in a lab after 30 minutes at 50 rps, all traced",
        at_most: "60 MB",
        measured: format!(
            "{:.0} MB more than the bare process ({all:.0} in all, at most {peak:.0}; {metrics:.0} with metrics alone, {traces:.0} before \
             a page is opened); {} series, {} samples in {:.1} MB",
            all - bare,
            store["numSeries"],
            store["numSamples"],
            store["bytes"].as_f64().unwrap_or_default() / 1e6
        ),
    }
}
