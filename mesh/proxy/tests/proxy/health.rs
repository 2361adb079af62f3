//! Circuit breakers, outlier detection, connection pools.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshlab_proxy_config::*;
use tokio::sync::Semaphore;

use crate::support::*;

/// An upstream whose requests wait until they are let go.
async fn gated() -> (Upstream, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let inner = gate.clone();
    let upstream = Upstream::with(move |_, _| {
        let gate = inner.clone();
        Box::pin(async move {
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            text(200, "done")
        })
    })
    .await;
    (upstream, gate)
}

#[tokio::test]
async fn fact_28_requests_beyond_the_pool_are_503_uo_and_one_waits() {
    let (upstream, gate) = gated().await;
    let mut limited = cluster("c", &[upstream.address]);
    limited.circuit_breaker = CircuitBreaker { max_connections: 1, max_pending_requests: 1, ..CircuitBreaker::default() };
    let bench = Arc::new(Setup::new(vec![to("c")], vec![limited]).serve());
    let get = || {
        let bench = bench.clone();
        tokio::spawn(async move { bench.get("/").await })
    };
    let first = get();
    until("the first request", || (upstream.count() == 1).then_some(())).await;
    let second = get();
    until("the second to wait", || (bench.stat("cluster.c.upstream_rq_pending_active") == 1).then_some(())).await;
    let third = bench.get("/").await;
    assert_eq!((third.status, third.header("x-envoy-overloaded")), (503, Some("true")));
    assert_eq!(third.body, "upstream connect error or disconnect/reset before headers. reset reason: overflow");
    bench.logged("503 UO upstream_reset_before_response_started{overflow}").await;
    assert_eq!(bench.stat("cluster.c.upstream_rq_pending_overflow"), 1);
    gate.add_permits(2);
    assert_eq!((first.await.unwrap().body, second.await.unwrap().body), ("done".into(), "done".into()));
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1, "the second waited for the first one's connection");
}

#[tokio::test]
async fn fact_28_max_requests_limits_what_is_under_way() {
    let (upstream, gate) = gated().await;
    let mut limited = cluster("c", &[upstream.address]);
    limited.circuit_breaker.max_requests = 1;
    let bench = Arc::new(Setup::new(vec![to("c")], vec![limited]).serve());
    let first = {
        let bench = bench.clone();
        tokio::spawn(async move { bench.get("/").await })
    };
    until("the first request", || (upstream.count() == 1).then_some(())).await;
    assert_eq!(bench.get("/").await.status, 503);
    gate.add_permits(2);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(bench.get("/").await.status, 200, "the place is free again");
}

#[tokio::test]
async fn connections_end_after_their_number_of_requests_or_their_idle_time() {
    let upstream = Upstream::named("u").await;
    let mut once = cluster("c", &[upstream.address]);
    once.max_requests_per_connection = 1;
    let bench = Setup::new(vec![to("c")], vec![once]).serve();
    for _ in 0..3 {
        bench.get("/").await;
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 3);
    let mut idle = cluster("c", &[upstream.address]);
    idle.idle_timeout_ms = 200;
    let bench = Setup::new(vec![to("c")], vec![idle]).serve();
    bench.get("/").await;
    until("the idle connection to be closed", || (bench.stat("cluster.c.upstream_cx_active") == 0).then_some(())).await;
}

fn outlier(max_ejection_percent: u32) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_errors: 0,
        split_local_errors: false,
        consecutive_local_origin_failures: 0,
        interval_ms: 20,
        base_ejection_ms: 1000,
        max_ejection_percent,
        min_health_percent: 0,
    }
}

#[tokio::test]
async fn fact_29_a_failing_endpoint_is_ejected_and_comes_back() {
    let (good, bad) = (Upstream::named("good").await, Upstream::status(500).await);
    let mut watched = cluster("c", &[good.address, bad.address]);
    watched.load_balancer = LoadBalancer::RoundRobin { warmup_ms: 0 };
    watched.outlier_detection = Some(outlier(100));
    let bench = Setup::new(vec![to("c")], vec![watched]).serve();
    for _ in 0..6 {
        bench.get("/").await;
    }
    assert_eq!(bad.count(), 3);
    assert_eq!(bench.stat("cluster.c.outlier_detection.ejections_active"), 1);
    for _ in 0..6 {
        assert_eq!(bench.get("/").await.body, "good");
    }
    assert_eq!(bad.count(), 3, "nothing goes there");
    until("the end of the ejection", || (bench.stat("cluster.c.outlier_detection.ejections_active") == 0).then_some(())).await;
    bench.get("/").await;
    bench.get("/").await;
    assert_eq!(bad.count(), 4);
}

#[tokio::test]
async fn fact_29_ten_percent_of_a_few_hosts_is_none() {
    let (good, bad) = (Upstream::named("good").await, Upstream::status(500).await);
    let mut watched = cluster("c", &[good.address, bad.address]);
    watched.load_balancer = LoadBalancer::RoundRobin { warmup_ms: 0 };
    watched.outlier_detection = Some(outlier(10));
    let bench = Setup::new(vec![to("c")], vec![watched]).serve();
    for _ in 0..20 {
        bench.get("/").await;
    }
    assert_eq!((good.count(), bad.count()), (10, 10));
    assert!(bench.stat("cluster.c.outlier_detection.ejections_overflow") > 0);
}

#[tokio::test]
async fn fact_29_all_ejected_is_503_uh() {
    let bad = Upstream::status(500).await;
    let mut watched = cluster("c", &[bad.address]);
    watched.outlier_detection = Some(OutlierDetection { base_ejection_ms: 60_000, ..outlier(100) });
    let bench = Setup::new(vec![to("c")], vec![watched]).serve();
    for _ in 0..3 {
        assert_eq!(bench.get("/").await.status, 500);
    }
    let answer = bench.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "no healthy upstream"));
    bench.logged("503 UH").await;
}

#[tokio::test]
async fn fact_30_the_next_locality_takes_over_when_the_first_is_ejected() {
    let (near, far) = (Upstream::status(500).await, Upstream::named("far").await);
    let mut watched = cluster("c", &[]);
    let mut second = endpoint(far.address);
    second.priority = 1;
    watched.discovery = Discovery::Static(Endpoints { endpoints: vec![endpoint(near.address), second] });
    watched.outlier_detection = Some(OutlierDetection { base_ejection_ms: 60_000, ..outlier(100) });
    let bench = Setup::new(vec![to("c")], vec![watched]).serve();
    for _ in 0..3 {
        assert_eq!(bench.get("/").await.status, 500);
    }
    for _ in 0..5 {
        assert_eq!(bench.get("/").await.body, "far");
    }
}

#[tokio::test]
async fn fact_42_a_name_is_resolved_by_the_proxy() {
    let upstream = Upstream::named("u").await;
    let name =
        DnsEndpoint { host: "localhost".into(), port: upstream.address.port(), weight: 1, metadata: EndpointMetadata::default() };
    for discovery in [Discovery::StrictDns(vec![name.clone()]), Discovery::LogicalDns(vec![name.clone()])] {
        let mut named = cluster("c", &[]);
        named.discovery = discovery;
        // `localhost` may be ::1 too, where nobody listens.
        let policy = RetryPolicy {
            attempts: 5,
            on: vec![RetryOn::ConnectFailure],
            status_codes: Vec::new(),
            per_try_timeout_ms: 0,
            backoff_base_ms: 1,
            prefer_other_hosts: true,
        };
        let bench = Setup::new(vec![forwarding(|forward| forward.retry = Some(policy))], vec![named]).serve();
        assert_eq!(bench.get("/").await.body, "u", "the very first request waits for the resolution");
    }
    let mut unknown = cluster("c", &[]);
    unknown.discovery = Discovery::StrictDns(vec![DnsEndpoint { host: "no-such-name.invalid".into(), ..name }]);
    unknown.connect_timeout_ms = 500;
    let bench = Setup::new(vec![to("c")], vec![unknown]).serve();
    assert_eq!(bench.get("/").await.status, 503);
    tokio::time::timeout(Duration::from_secs(5), bench.logged("503 UH")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_requests_share_few_connections_and_none_is_forgotten() {
    let upstream = Upstream::named("u").await;
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut limited = cluster("c", &[upstream.address]);
        limited.protocol = protocol;
        limited.circuit_breaker.max_connections = 3;
        let bench = Arc::new(Setup::new(vec![to("c")], vec![limited]).serve());
        let opened = upstream.connections.load(Ordering::SeqCst);
        let clients: Vec<_> = (0..40)
            .map(|_| {
                let bench = bench.clone();
                tokio::spawn(async move {
                    for _ in 0..25 {
                        assert_eq!(bench.get("/").await.status, 200);
                    }
                })
            })
            .collect();
        for client in clients {
            tokio::time::timeout(Duration::from_secs(30), client).await.expect("no request waits for ever").unwrap();
        }
        assert!(upstream.connections.load(Ordering::SeqCst) - opened <= 3, "{protocol:?}");
        for gauge in ["upstream_rq_pending_active", "upstream_rq_active"] {
            until(gauge, || (bench.stat(&format!("cluster.c.{gauge}")) == 0).then_some(())).await;
        }
    }
}
