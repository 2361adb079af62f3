//! Faults, mirrors and CORS.

use std::time::{Duration, Instant};

use http::{Method, Request};
use meshlab_proxy_config::*;

use crate::support::*;

fn faulty(fault: Fault) -> Route {
    Route { fault: Some(fault), ..to("c") }
}

#[tokio::test]
async fn fact_20_an_abort_answers_instead_of_the_upstream() {
    let upstream = Upstream::named("u").await;
    let abort = FaultAbort { status: AbortStatus::Http(418), fraction: Fraction::ALL };
    let mut route = forwarding(|forward| {
        forward.retry = Some(RetryPolicy {
            attempts: 2,
            on: vec![RetryOn::RetriableStatusCodes],
            status_codes: vec![418],
            per_try_timeout_ms: 0,
            backoff_base_ms: 1,
            prefer_other_hosts: false,
        });
    });
    route.fault = Some(Fault { delay: None, abort: Some(abort) });
    let bench = Setup::new(vec![route], vec![cluster("c", &[upstream.address])]).serve();
    let answer = bench.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (418, "fault filter abort"));
    assert_eq!((upstream.count(), bench.stat("cluster.c.upstream_rq_retry")), (0, 0), "an abort is not retried");
    bench.logged("418 FI fault_filter_abort").await;
}

#[tokio::test]
async fn fact_20_no_percentage_is_no_fault() {
    let upstream = Upstream::named("u").await;
    let abort = FaultAbort { status: AbortStatus::Http(500), fraction: Fraction::default() };
    let bench =
        Setup::new(vec![faulty(Fault { delay: None, abort: Some(abort) })], vec![cluster("c", &[upstream.address])]).serve();
    for _ in 0..20 {
        assert_eq!(bench.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn fact_20_a_delay_is_not_under_the_routes_timeout() {
    let upstream = Upstream::named("u").await;
    let delay = FaultDelay { delay_ms: 120, fraction: Fraction::ALL };
    let mut route = forwarding(|forward| forward.timeout_ms = 50);
    route.fault = Some(Fault { delay: Some(delay), abort: None });
    let bench = Setup::new(vec![route], vec![cluster("c", &[upstream.address])]).serve();
    let started = Instant::now();
    assert_eq!(bench.get("/").await.status, 200, "the delay is longer than the timeout, and does not count");
    assert!(started.elapsed() >= Duration::from_millis(120));
    bench.logged("200 DI via_upstream").await;
}

#[tokio::test]
async fn a_grpc_abort_is_in_the_headers_for_grpc_clients_only() {
    let abort = FaultAbort { status: AbortStatus::Grpc(7), fraction: Fraction::ALL };
    let bench = Setup::new(vec![faulty(Fault { delay: None, abort: Some(abort) })], vec![cluster("c", &[])]).serve();
    let plain = bench.get("/").await;
    assert_eq!((plain.status, plain.header("grpc-status"), plain.body.as_str()), (200, None, "fault filter abort"));
    let grpc = bench.send(Request::post("/").header("content-type", "application/grpc")).await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("7")));
    assert_eq!(grpc.header("grpc-message"), Some("fault filter abort"));
}

#[tokio::test]
async fn fact_21_a_mirror_gets_a_copy_and_its_answer_is_thrown_away() {
    let (main, copy) = (Upstream::named("main").await, Upstream::status(500).await);
    let route = forwarding(|forward| {
        forward.mirrors = vec![Mirror { cluster: "m".into(), fraction: Fraction::ALL }];
    });
    let bench = Setup::new(vec![route], vec![cluster("c", &[main.address]), cluster("m", &[copy.address])]).serve();
    assert_eq!(bench.send_body(Request::post("/x"), "payload").await.body, "main");
    assert_eq!(bench.get("/y").await.body, "main");
    until("both copies", || (copy.count() == 2).then_some(())).await;
    let seen = copy.seen.lock().unwrap().clone();
    let post = seen.iter().find(|seen| seen.method == Method::POST).unwrap();
    assert_eq!((post.path.as_str(), post.body.as_str(), post.host.as_str()), ("/x", "payload", "app"), "no -shadow suffix");
}

#[tokio::test]
async fn fact_21_a_mirror_is_not_traced() {
    let (main, copy) = (Upstream::named("main").await, Upstream::named("copy").await);
    let route = forwarding(|forward| forward.mirrors = vec![Mirror { cluster: "m".into(), fraction: Fraction::ALL }]);
    let mut setup = Setup::new(vec![route], vec![cluster("c", &[main.address]), cluster("m", &[copy.address])]);
    setup.telemetry.tracing = Some(Tracing {
        sampling: Fraction::ALL,
        cluster: "nobody".into(),
        exporter: SpanExporter::Zipkin,
        service_name: "app.default".into(),
        custom_tags: Default::default(),
    });
    setup.serve().get("/").await;
    until("the copy", || (copy.count() == 1).then_some(())).await;
    assert_eq!((main.last().header("x-b3-sampled"), copy.last().header("x-b3-sampled")), (Some("1"), Some("0")));
}

#[tokio::test]
async fn fact_21_an_explicit_zero_mirrors_nothing() {
    let (main, copy) = (Upstream::named("main").await, Upstream::named("copy").await);
    let route = forwarding(|forward| forward.mirrors = vec![Mirror { cluster: "m".into(), fraction: Fraction(0) }]);
    let bench = Setup::new(vec![route], vec![cluster("c", &[main.address]), cluster("m", &[copy.address])]).serve();
    for _ in 0..10 {
        bench.get("/").await;
    }
    assert_eq!((main.count(), copy.count()), (10, 0));
}

fn cors(forward_unmatched_preflights: bool) -> Cors {
    Cors {
        allow_origins: vec![StringMatch::Exact("http://a".into())],
        allow_methods: vec!["GET".into(), "POST".into()],
        allow_headers: vec!["x-a".into()],
        expose_headers: vec!["x-e".into()],
        max_age_s: Some(60),
        allow_credentials: Some(true),
        forward_unmatched_preflights,
    }
}

fn preflight(origin: &str) -> http::request::Builder {
    Request::options("/").header("origin", origin).header("access-control-request-method", "PUT")
}

#[tokio::test]
async fn fact_22_a_preflight_is_answered_with_all_configured_methods() {
    let upstream = Upstream::named("u").await;
    let route = Route { cors: Some(cors(true)), ..to("c") };
    let bench = Setup::new(vec![route], vec![cluster("c", &[upstream.address])]).serve();
    let answer = bench.send(preflight("http://a")).await;
    assert_eq!((answer.status, upstream.count()), (200, 0));
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://a"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,POST"), "whatever method was asked about");
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-max-age"), Some("60"));
    let answer = bench.send(Request::get("/").header("origin", "http://a")).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://a"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-e"));
    let answer = bench.send(Request::get("/").header("origin", "http://b")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn fact_22_a_preflight_of_another_origin_is_forwarded_unless_told_otherwise() {
    let upstream = Upstream::named("u").await;
    for (forwarded, count) in [(true, 1), (false, 1)] {
        let route = Route { cors: Some(cors(forwarded)), ..to("c") };
        let bench = Setup::new(vec![route], vec![cluster("c", &[upstream.address])]).serve();
        let answer = bench.send(preflight("http://b")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
        assert_eq!(upstream.count(), count, "forwarded: {forwarded}");
    }
}
