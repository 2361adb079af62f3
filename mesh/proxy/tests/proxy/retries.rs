//! Retries and timeouts.

use std::time::{Duration, Instant};

use http::Request;
use meshlab_proxy_config::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::*;

fn retry(attempts: u32, on: &[RetryOn]) -> RetryPolicy {
    RetryPolicy {
        attempts,
        on: on.to_vec(),
        status_codes: Vec::new(),
        per_try_timeout_ms: 0,
        backoff_base_ms: 1,
        prefer_other_hosts: true,
    }
}

fn istio_default() -> RetryPolicy {
    let on = [
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::Unavailable,
        RetryOn::Cancelled,
        RetryOn::RetriableStatusCodes,
    ];
    RetryPolicy { backoff_base_ms: 25, ..retry(2, &on) }
}

fn retrying(policy: RetryPolicy) -> Route {
    forwarding(|forward| forward.retry = Some(policy))
}

/// Fails so many requests with a status, then succeeds.
async fn failing(times: usize, status: u16) -> Upstream {
    Upstream::with(move |_, number| {
        Box::pin(async move { if number <= times { text(status, "failed") } else { text(200, "good") } })
    })
    .await
}

#[tokio::test]
async fn fact_17_the_default_makes_three_requests_for_connect_failures_and_one_for_503() {
    let bench = Setup::new(vec![retrying(istio_default())], vec![cluster("c", &[refused().await])]).serve();
    let answer = bench.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.body,
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure"
    );
    let line = bench.logged(" 503 URX,UF ").await;
    assert!(line.contains("\"delayed_connect_error:_Connection_refused\""), "{line}");
    assert_eq!(bench.stat("cluster.c.upstream_rq_retry"), 2, "attempts: 1 + 2");
    let upstream = Upstream::status(503).await;
    let bench = Setup::new(vec![retrying(istio_default())], vec![cluster("c", &[upstream.address])]).serve();
    assert_eq!(bench.get("/").await.status, 503);
    assert_eq!(upstream.count(), 1, "no 503 since 1.24");
}

#[tokio::test]
async fn fact_17_a_retry_goes_to_another_host() {
    let upstream = Upstream::named("good").await;
    let bench = Setup::new(vec![retrying(istio_default())], vec![cluster("c", &[refused().await, upstream.address])]).serve();
    for _ in 0..20 {
        assert_eq!(bench.get("/").await.body, "good");
    }
}

#[tokio::test]
async fn fact_17_status_codes_and_5xx_are_retried_where_named_up_to_1_plus_attempts() {
    for (policy, fails, status, count) in [
        (retry(2, &[RetryOn::ServerError]), 2, 200, 3),
        (retry(2, &[RetryOn::ServerError]), 9, 500, 3),
        (retry(1, &[RetryOn::GatewayError]), 9, 500, 1),
        (RetryPolicy { status_codes: vec![500], ..retry(3, &[RetryOn::RetriableStatusCodes]) }, 1, 200, 2),
        (retry(0, &[RetryOn::ServerError]), 9, 500, 1),
    ] {
        let upstream = failing(fails, 500).await;
        let bench = Setup::new(vec![retrying(policy)], vec![cluster("c", &[upstream.address])]).serve();
        assert_eq!((bench.get("/").await.status, upstream.count()), (status, count));
        if status == 500 && count == 3 {
            bench.logged(" 500 URX via_upstream").await;
        }
    }
}

#[tokio::test]
async fn a_body_is_sent_again_and_attempts_are_counted_in_a_header() {
    let upstream = failing(1, 503).await;
    let bench = Setup::new(vec![retrying(retry(2, &[RetryOn::ServerError]))], vec![cluster("c", &[upstream.address])]).serve();
    assert_eq!(bench.send_body(Request::post("/"), "the whole body").await.body, "good");
    let seen = upstream.seen.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|seen| seen.body.as_str()).collect::<Vec<_>>(), ["the whole body"; 2]);
    assert_eq!(seen[1].header("x-envoy-attempt-count"), Some("2"));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_sent_once() {
    let upstream = failing(1, 503).await;
    let options = meshlab_proxy::ProxyOptions {
        admin_address: None,
        limits: meshlab_proxy::Limits { max_replay_bytes: 4, ..Default::default() },
        ..Default::default()
    };
    let bench = Bench::with(options);
    bench.apply(Setup::new(vec![retrying(retry(2, &[RetryOn::ServerError]))], vec![cluster("c", &[upstream.address])]).build());
    assert_eq!(bench.send_body(Request::post("/"), "longer than four").await.status, 503);
    assert_eq!((upstream.count(), upstream.last().body.as_str()), (1, "longer than four"));
}

#[tokio::test]
async fn fact_18_a_timeout_answers_504_and_without_one_there_is_no_limit() {
    let upstream = Upstream::with(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            text(200, "late")
        })
    })
    .await;
    let bench = Setup::new(vec![forwarding(|forward| forward.timeout_ms = 50)], vec![cluster("c", &[upstream.address])]).serve();
    let answer = bench.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (504, "upstream request timeout"));
    bench.logged("504 UT response_timeout").await;
    assert_eq!(upstream.last().header("x-envoy-expected-rq-timeout-ms"), Some("50"));
    let unlimited = Setup::to(upstream.address).serve();
    assert_eq!(unlimited.get("/").await.body, "late");
}

#[tokio::test]
async fn a_stream_without_an_answer_for_too_long_is_504_si() {
    let upstream = Upstream::with(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            text(200, "")
        })
    })
    .await;
    let mut setup = Setup::to(upstream.address);
    setup.http.stream_idle_timeout_ms = 50;
    let bench = setup.serve();
    let answer = bench.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (504, "stream timeout"));
    bench.logged("504 SI stream_idle_timeout").await;
}

#[tokio::test]
async fn fact_18_a_per_try_timeout_ends_one_attempt() {
    let upstream = Upstream::with(|_, number| {
        Box::pin(async move {
            if number == 1 {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            text(200, "second")
        })
    })
    .await;
    let policy = RetryPolicy { per_try_timeout_ms: 50, ..retry(1, &[RetryOn::ServerError]) };
    let bench = Setup::new(vec![retrying(policy.clone())], vec![cluster("c", &[upstream.address])]).serve();
    assert_eq!(bench.get("/").await.body, "second");
    assert_eq!(bench.stat("cluster.c.upstream_rq_per_try_timeout"), 1);
    let slow = Upstream::with(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            text(200, "")
        })
    })
    .await;
    let bench = Setup::new(vec![retrying(policy)], vec![cluster("c", &[slow.address])]).serve();
    assert_eq!(bench.get("/").await.status, 504);
    bench.logged("504 URX,UT upstream_per_try_timeout").await;
}

#[tokio::test]
async fn fact_19_an_upstream_that_closes_before_answering_is_503_uc_and_the_request_counts_as_sent() {
    let closes_first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closes_first.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        let mut turn = 0;
        while let Ok((mut stream, _)) = closes_first.accept().await {
            let _ = stream.read(&mut buffer).await;
            turn += 1;
            if turn > 1 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    });
    let bench = Setup::to(address).serve();
    let answer = bench.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, "upstream connect error or disconnect/reset before headers. reset reason: connection termination");
    bench.logged("503 UC upstream_reset_before_response_started{connection_termination}").await;
    assert_eq!(bench.get("/").await.body, "ok");

    let closes_once = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closes_once.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        let mut turn = 0;
        while let Ok((mut stream, _)) = closes_once.accept().await {
            let _ = stream.read(&mut buffer).await;
            turn += 1;
            if turn > 1 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    });
    let inbound =
        Setup::new(vec![retrying(retry(2, &[RetryOn::ResetBeforeRequest]))], vec![cluster("c", &[address])]).inbound().serve();
    assert_eq!(inbound.get("/").await.status, 503, "reset-before-request only covers what was not sent");
    assert_eq!(inbound.get("/").await.body, "ok");
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http_is_502_upe() {
    let garbage = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = garbage.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = garbage.accept().await.unwrap();
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"garbage\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let bench = Setup::to(address).serve();
    assert_eq!(bench.get("/").await.status, 502);
    bench.logged("502 UPE upstream_reset_before_response_started{protocol_error}").await;
}

#[tokio::test]
async fn retries_beyond_the_breaker_are_not_made() {
    let upstream = failing(9, 503).await;
    let mut limited = cluster("c", &[upstream.address]);
    limited.circuit_breaker.max_retries = 0;
    let bench = Setup::new(vec![retrying(retry(2, &[RetryOn::ServerError]))], vec![limited]).serve();
    assert_eq!((bench.get("/").await.status, upstream.count()), (503, 1));
    assert_eq!(bench.stat("cluster.c.upstream_rq_retry_overflow"), 1);
    bench.logged(" 503 UO via_upstream").await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_ends_at_the_connect_timeout() {
    // A listen queue that is full takes no more connections on Linux: packets are dropped, as for an address that is gone.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await {
        held.push(stream);
    }
    let mut slow = cluster("c", &[address]);
    slow.connect_timeout_ms = 60;
    let bench = Setup::new(vec![to("c")], vec![slow]).serve();
    let started = Instant::now();
    let answer = bench.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.ends_with("reset reason: connection timeout"), "{}", answer.body);
    assert!(started.elapsed() < Duration::from_secs(2));
    bench.logged(" 503 UF ").await;
}

#[tokio::test]
async fn a_stale_idle_connection_is_replaced_without_the_client_noticing() {
    let upstream = Upstream::named("u").await;
    let bench = Setup::to(upstream.address).serve();
    for _ in 0..5 {
        assert_eq!(bench.get("/").await.status, 200);
    }
    assert_eq!(upstream.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "the connection is kept");
}
