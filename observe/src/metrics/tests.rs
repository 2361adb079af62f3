//! The whole of it over real sockets: a target, the scraper, and the API.

use axum::Router;
use axum::routing::get;
use meshlab_net::OsNet;
use serde_json::{Value, json};

use super::*;
use crate::client::Fetch;

const BODY: &str = "# HELP istio_requests_total Requests.\n# TYPE istio_requests_total counter\n\
    istio_requests_total{reporter=\"destination\",response_code=\"200\",app=\"own\"} 20\n\
    istio_requests_total{reporter=\"source\",response_code=\"503\",path=\"<script>\\\"\"} 3\n";

struct Lab {
    api: SocketAddr,
    targets: watch::Sender<Targets>,
    _shutdown: tokio_util::sync::DropGuard,
}

/// A Prometheus, and a target with `BODY` at `/metrics`, nonsense at `/nonsense` and silence at `/silence`.
async fn lab() -> Lab {
    let shutdown = CancellationToken::new();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let router = Router::new()
        .route("/metrics", get(BODY))
        .route("/nonsense", get("istio_requests_total{ 20\n"))
        .route("/silence", get(std::future::pending::<&str>));
    let listener = OsNet.listen(local).await.unwrap();
    let target = listener.local_addr();
    tokio::spawn(server::serve(listener, router, shutdown.clone()));
    let (sender, targets) = watch::channel(Targets::new());
    sender.send_modify(|targets| {
        for path in ["/metrics", "/nonsense", "/silence"] {
            let target = Target { path: path.to_owned(), ..Target::fixed("kubernetes-pods", path, target) };
            let mut labels = target.labels.clone();
            labels.insert("app".to_owned(), "target".to_owned());
            targets.insert(path.to_owned(), vec![Target { labels, ..target }]);
        }
    });
    // A port that is free now; nobody takes it in between, as the kernel hands them out in turn.
    let api = OsNet.listen(local).await.unwrap().local_addr();
    let options = PrometheusOptions { listen: api, scrape_interval: Duration::from_millis(200), limits: Limits::default() };
    tokio::spawn(run(OsNet, options, targets, shutdown.clone()));
    let lab = Lab { api, targets: sender, _shutdown: shutdown.drop_guard() };
    lab.until("/-/ready", |text| text.contains("Ready")).await;
    lab
}

impl Lab {
    async fn text(&self, path: &str) -> Option<String> {
        let fetch = Fetch {
            address: self.api,
            host: "prometheus",
            path,
            accept: "*/*",
            timeout: Duration::from_secs(5),
            max_bytes: 1 << 20,
        };
        fetch.get(&OsNet).await.ok().map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks until the answer is as wanted, ten seconds at most.
    async fn until(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut last = None;
        for _ in 0..200 {
            last = self.text(path).await;
            if let Some(text) = last.as_deref().filter(|text| wanted(text)) {
                return text.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path}: {last:?}");
    }

    async fn data(&self, path: &str) -> Value {
        let answer: Value = serde_json::from_str(&self.text(path).await.unwrap()).unwrap();
        assert_eq!(answer["status"], "success");
        answer["data"].clone()
    }
}

#[tokio::test]
async fn what_a_target_says_can_be_asked_for() {
    let lab = lab().await;
    lab.until("/api/v1/query?query=sum(istio_requests_total)", |text| text.contains("\"23\"")).await;
    let data = lab.data("/api/v1/query?query=istio_requests_total&time=2100-01-01T00:00:00Z").await;
    assert_eq!(data, json!({"resultType": "vector", "result": []}));
    let data = lab.data("/api/v1/series?match[]=istio_requests_total%7Breporter=%22destination%22%7D").await;
    // The target's own label `app` stays, as the metric has one.
    insta::assert_json_snapshot!(data, @r#"
    [
      {
        "__name__": "istio_requests_total",
        "app": "own",
        "instance": "/metrics",
        "job": "kubernetes-pods",
        "reporter": "destination",
        "response_code": "200"
      }
    ]
    "#);
    assert_eq!(lab.data("/api/v1/label/response_code/values").await, json!(["200", "503"]));
    let labels = lab.data("/api/v1/labels?match[]=istio_requests_total").await;
    assert_eq!(labels, json!(["__name__", "app", "instance", "job", "path", "reporter", "response_code"]));
    let metadata = lab.data("/api/v1/metadata?metric=istio_requests_total").await;
    assert_eq!(metadata, json!({"istio_requests_total": [{"type": "counter", "help": "Requests.", "unit": ""}]}));
    let federated = lab.text("/federate?match[]=istio_requests_total").await.unwrap();
    assert!(federated.contains("# TYPE istio_requests_total untyped\n"), "{federated}");
    assert!(federated.contains(r#"path="<script>\"""#), "{federated}");
    assert_eq!(lab.data("/api/v1/rules").await, json!({"groups": []}));
    lab.until("/api/v1/query?query=prometheus_build_info", |text| text.contains("\"1\"")).await;
}

#[tokio::test]
async fn targets_that_answer_nonsense_or_nothing_are_down_and_hold_up_nobody() {
    let lab = lab().await;
    lab.until("/api/v1/query?query=up%20==%200", |text| text.matches("\"0\"").count() == 2).await;
    let data = lab.data("/api/v1/targets").await;
    let of = |path: &str| {
        data["activeTargets"].as_array().unwrap().iter().find(|target| target["labels"]["instance"] == path).unwrap().clone()
    };
    assert_eq!(of("/nonsense")["lastError"], r#"line 1: the labels are not closed: "istio_requests_total{ 20""#);
    assert_eq!(of("/silence")["lastError"], "context deadline exceeded");
    assert_eq!(of("/metrics")["health"], "up");
    // A target that is gone takes its series along at once.
    lab.targets.send_modify(|targets| drop(targets.remove("/metrics")));
    lab.until("/api/v1/query?query=istio_requests_total", |text| text.contains("\"result\":[]")).await;
}

/// A target whose labels are never the same twice, one with more samples than are taken, one with a body that does not end, and one
/// that is as it should be.
#[tokio::test]
async fn a_flood_of_series_is_bounded_and_counted_and_the_others_are_not_lost() {
    use std::sync::atomic::AtomicUsize;
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let scrapes = Arc::new(AtomicUsize::new(0));
    let lines = |count: usize, scrape: usize| -> String {
        (0..count).map(|line| format!("flood{{id=\"{scrape}-{line}\"}} 1\n")).collect()
    };
    let endless = || async {
        let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b'\n'; 1 << 20])));
        axum::body::Body::from_stream(chunks)
    };
    let router = Router::new()
        .route("/good", get("good 1\n"))
        .route("/flood", get(async move || lines(59, scrapes.fetch_add(1, std::sync::atomic::Ordering::Relaxed))))
        .route("/many", get(async move || lines(61, 0)))
        .route("/endless", get(endless));
    let listener = OsNet.listen(local).await.unwrap();
    let target = listener.local_addr();
    tokio::spawn(server::serve(listener, router, shutdown.clone()));
    let api = OsNet.listen(local).await.unwrap().local_addr();
    let limits = Limits { series: 300, samples_per_scrape: 60, ..Limits::default() };
    let options = PrometheusOptions { listen: api, scrape_interval: Duration::from_millis(200), limits };
    let targets = ["/good", "/flood", "/many", "/endless"].map(|path| StaticTarget {
        job: path.to_owned(),
        address: target,
        path: path.to_owned(),
    });
    tokio::spawn(prometheus_of(OsNet, targets.into(), options, shutdown.clone()));
    let (targets, _) = watch::channel(Targets::new());
    let lab = Lab { api, targets, _shutdown: CancellationToken::new().drop_guard() };
    lab.until("/metrics", |text| {
        text.lines()
            .any(|line| line.starts_with("meshlab_prometheus_dropped_total{reason=\"series_limit\"}") && !line.ends_with(" 0"))
    })
    .await;
    lab.until("/api/v1/query?query=good", |text| text.contains("\"1\"")).await;
    let targets = lab.until("/api/v1/targets", |text| text.contains("sample limit") && text.contains("body size limit")).await;
    assert!(targets.contains("sample limit exceeded: 61 samples, at most 60 are taken"), "{targets}");
    let status = lab.data("/api/v1/status/tsdb").await;
    assert!(status["headStats"]["numSeries"].as_u64().is_some_and(|series| series <= 300), "{status}");
}

#[tokio::test]
async fn a_sample_from_far_ahead_does_not_stop_its_series() {
    let tsdb = Arc::new(Tsdb::new(Limits::default()));
    let time = now();
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let listener = OsNet.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.local_addr();
    let body = format!("late 1 {}\nsoon 1 {}\nnever 1 {}\n", time - 1000, time + 60_000, i64::MAX);
    tokio::spawn(server::serve(listener, Router::new().route("/metrics", get(async move || body)), shutdown));
    let scraper = Scraper { net: OsNet, tsdb: tsdb.clone(), pool: Arc::default(), interval: Duration::from_secs(60) };
    let (_sender, targets) = watch::channel(Targets::new());
    let scraping = tokio::spawn(scraper.run(vec![Target::fixed("job", "instance", address)], targets));
    while tsdb.size().series < 7 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scraping.abort();
    let names: Vec<_> = tsdb.select_any(&[], 0, i64::MAX).iter().map(|labels| labels.name().to_owned()).collect();
    assert!(names.contains(&"late".to_owned()) && names.contains(&"soon".to_owned()) && !names.contains(&"never".to_owned()));
    assert!(tsdb.dropped.read().contains(&("out_of_bounds", 1)), "{:?}", tsdb.dropped);
}

#[tokio::test]
async fn errors_have_prometheus_form() {
    let lab = lab().await;
    let router =
        api::router(Arc::new(Server::new(Arc::new(Tsdb::new(Limits::default())), Arc::default(), Duration::from_secs(5))));
    let mut answers = Vec::new();
    for path in [
        "/api/v1/query?query=sum(",
        "/api/v1/query?query=up&time=yesterday",
        "/api/v1/query_range?query=up&start=0&end=100&step=0",
        "/api/v1/query_range?query=up&start=0&end=1000000&step=1",
        "/api/v1/query_range?query=up&start=0",
        "/api/v1/query?query=up%20%2B%20on()%20group_left()%20(vector(1)%20or%20label_replace(vector(1),%22a%22,%22b%22,%22%22,%22%22))",
        "/api/v1/series",
        "/api/v1/admin/tsdb/snapshot",
    ] {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        answers.push(format!("{status} {}", String::from_utf8_lossy(&body)));
    }
    drop(lab);
    insta::assert_snapshot!(answers.join("\n"), @r#"
    400 {"error":"invalid parameter \"query\": parse error: unclosed left parenthesis","errorType":"bad_data","status":"error"}
    400 {"error":"invalid parameter \"time\": cannot parse \"yesterday\" to a valid timestamp","errorType":"bad_data","status":"error"}
    400 {"error":"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer","errorType":"bad_data","status":"error"}
    400 {"error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)","errorType":"bad_data","status":"error"}
    400 {"error":"invalid parameter \"end\": cannot parse \"\" to a valid timestamp","errorType":"bad_data","status":"error"}
    422 {"error":"found duplicate series for the match group {} on the right hand-side of the operation: [{a=\"b\"}, {}];many-to-many matching not allowed: matching labels must be unique on one side","errorType":"execution","status":"error"}
    400 {"error":"no match[] parameter provided","errorType":"bad_data","status":"error"}
    404 {"error":"/api/v1/admin/tsdb/snapshot is not part of the API that is supported here","errorType":"not_found","status":"error"}
    "#);
}

#[tokio::test]
async fn the_pages_show_a_query_and_the_targets_and_are_harmless() {
    use crate::pages::tests::{HOSTILE, assert_harmless, page as ask};
    let tsdb = Arc::new(Tsdb::new(Limits::default()));
    let time = now();
    let mut appender = tsdb.appender();
    let series = appender.series(labels::Labels::of([("__name__", "hostile"), ("path", HOSTILE)])).unwrap();
    for tick in 0..5 {
        assert!(appender.append(series, chunk::Sample { time: time - (5 - tick) * 5000, value: tick as f64 }));
    }
    drop(appender);
    let pool: Arc<scrape::Pool> = Arc::default();
    let status = scrape::Status { up: Some(false), error: HOSTILE.to_owned(), ..scrape::Status::default() };
    pool.lock().insert(Target::fixed("job", "instance", server::any(1)), Arc::new(parking_lot::Mutex::new(status)));
    let router = page::router(Arc::new(Server::new(tsdb, pool, Duration::from_secs(5))));
    for language in ["ja", "en"] {
        let (status, html) = ask(&router, "/query?query=hostile", language).await;
        assert_eq!(status, 200);
        assert!(html.contains("class=\"line c0\""), "{html}");
        assert_harmless(&html);
        let (_, html) = ask(&router, "/query?query=hostile%3C/textarea%3E%3Cscript%3Ealert(1)", language).await;
        assert!(html.contains("parse error"), "{html}");
        assert_harmless(&html);
        let (_, html) = ask(&router, "/targets", language).await;
        let dropped =
            if language == "ja" { "系列数の上限を超えたサンプル" } else { "Samples of series beyond the limit" };
        assert!(html.contains(dropped) && html.contains("down"), "{html}");
        assert_harmless(&html);
    }
}
