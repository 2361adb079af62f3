//! Malformed, oversized and ambiguous input.

use std::time::Duration;

use http::Request;
use hyper_util::rt::TokioIo;
use meshlab_proxy::{Limits, ProxyOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

async fn bench() -> (Upstream, Bench) {
    let upstream = Upstream::named("u").await;
    let bench = Setup::to(upstream.address).serve();
    (upstream, bench)
}

#[tokio::test]
async fn what_could_be_smuggled_is_refused() {
    let (upstream, bench) = bench().await;
    for request in [
        "GET / HTTP/1.1\nhost: app\n\n",
        "GET / HTTP/1.1\r\nhost: app\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: app\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: app\r\nhost: other\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : app\r\n\r\n",
        "GET\0/ HTTP/1.1\r\nhost: app\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let answer = raw(bench.address(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?} got {answer:?}");
    }
    let gzip = raw(bench.address(), b"POST / HTTP/1.1\r\nhost: app\r\ntransfer-encoding: gzip\r\n\r\n").await;
    assert!(gzip.starts_with("HTTP/1.1 501 Not Implemented\r\n") && gzip.ends_with("Not Implemented"), "{gzip:?}");
    assert_eq!(upstream.count(), 0);
    bench.logged("\"- - -\" 400 DPE http1.codec_error").await;
    let pipelined = "GET /1 HTTP/1.1\r\nhost: app\r\n\r\nGET /2 HTTP/1.1\nhost: app\n\n";
    let answer = raw(bench.address(), pipelined.as_bytes()).await;
    assert_eq!(upstream.seen.lock().unwrap().iter().filter(|seen| seen.path == "/2").count(), 0, "{answer}");
    assert_eq!(bench.get("/").await.status, 200, "the proxy goes on");
}

#[tokio::test]
async fn http_1_0_is_told_to_upgrade() {
    let (_upstream, bench) = bench().await;
    let answer = raw(bench.address(), b"GET / HTTP/1.0\r\nhost: app\r\n\r\n").await;
    assert!(answer.contains(" 426 Upgrade Required\r\n") && answer.ends_with("Upgrade Required"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let (_upstream, bench) = bench().await;
    let long = format!("GET / HTTP/1.1\r\nhost: app\r\nx: {}\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nhost: app\r\n{}\r\n", "x: y\r\n".repeat(200));
    for request in [long, many] {
        let answer = raw(bench.address(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let upstream = Upstream::named("u").await;
    let limits = Limits { head_timeout: Duration::from_millis(80), ..Limits::default() };
    let bench = Bench::with(ProxyOptions { admin_address: None, limits, ..ProxyOptions::default() });
    bench.apply(Setup::to(upstream.address).build());
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(3), client.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection was not ended");
}

#[tokio::test]
async fn an_idle_client_connection_is_closed() {
    let upstream = Upstream::named("u").await;
    let limits = Limits { connection_idle_timeout: Duration::from_millis(80), ..Limits::default() };
    let bench = Bench::with(ProxyOptions { admin_address: None, limits, ..ProxyOptions::default() });
    bench.apply(Setup::to(upstream.address).build());
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
    let mut all = String::new();
    let ended = tokio::time::timeout(Duration::from_secs(3), client.read_to_string(&mut all)).await;
    assert!(ended.is_ok() && all.ends_with('u'), "{all}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let upstream = Upstream::named("u").await;
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let bench = Bench::with(ProxyOptions { admin_address: None, limits, ..ProxyOptions::default() });
    bench.apply(Setup::to(upstream.address).build());
    let mut first = TcpStream::connect(bench.address()).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let second = raw(bench.address(), b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
    assert_eq!(second, "");
    assert_eq!(bench.stat("listener.downstream_cx_overflow"), 1);
}

#[tokio::test]
async fn streams_reset_in_bulk_end_the_connection_and_nothing_else() {
    let (upstream, bench) = bench().await;
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2000 {
        let request = Request::get("http://app/").body(()).unwrap();
        match client.clone().ready().await {
            Ok(ready) => client = ready,
            Err(_) => break,
        }
        let Ok((_, mut body)) = client.send_request(request, false) else { break };
        body.send_reset(h2::Reason::CANCEL);
        tokio::task::yield_now().await;
    }
    drop(client);
    let _ = tokio::time::timeout(Duration::from_secs(5), connection).await.expect("the connection ends");
    assert_eq!(bench.get("/").await.status, 200);
    drop(upstream);
}

#[tokio::test]
async fn continuation_frames_without_end_are_bounded() {
    let (_upstream, bench) = bench().await;
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // HEADERS without END_HEADERS, then CONTINUATION after CONTINUATION, each a literal header of 4 KiB.
    let header = [&[0x00, 1, b'x', 0x7f, 0x81, 0x1e][..], &[b'a'; 4000]].concat();
    let frame = |kind: u8| {
        let length = (header.len() as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], &header].concat()
    };
    client.write_all(&frame(1)).await.unwrap();
    let mut refused = false;
    for _ in 0..1000 {
        if client.write_all(&frame(9)).await.is_err() {
            refused = true;
            break;
        }
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
    assert!(refused || ended.is_ok(), "four megabytes of headers were taken");
    assert_eq!(bench.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_breaks_off_is_logged_as_dc() {
    let upstream = Upstream::with(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            text(200, "")
        })
    })
    .await;
    let bench = Setup::to(upstream.address).serve();
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
    until("the request", || (upstream.count() == 1).then_some(())).await;
    drop(client);
    bench.logged(" 0 DC downstream_remote_disconnect").await;
}

#[tokio::test]
async fn a_client_may_use_one_connection_for_many_requests() {
    let (upstream, bench) = bench().await;
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for turn in 0..20 {
        let body = http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; turn * 1000]));
        let request = Request::post("/").header("host", "app").body(body).unwrap();
        assert_eq!(read(sender.send_request(request).await.unwrap()).await.body, "u");
        assert_eq!(upstream.last().body.len(), turn * 1000);
    }
}

/// An upstream that answers these bytes, once for each connection.
async fn canned(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(bytes).await;
            let _ = stream.read(&mut buffer).await;
        }
    });
    address
}

#[tokio::test]
async fn responses_without_a_body_keep_the_length_they_speak_of() {
    let not_modified = Setup::to(canned(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\netag: x\r\n\r\n").await).serve();
    let answer = not_modified.get("/").await;
    assert_eq!((answer.status, answer.header("etag"), answer.body.as_str()), (304, Some("x"), ""));
    let head = Setup::to(canned(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await).serve();
    let answer = head.send(Request::head("/")).await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.as_str()), (200, Some("10"), ""));
    let empty = Setup::to(canned(b"HTTP/1.1 204 No Content\r\n\r\n").await).serve();
    assert_eq!(empty.get("/").await.status, 204);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_made_whole() {
    let bench = Setup::to(canned(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await).serve();
    let answer = {
        let mut client = TcpStream::connect(bench.address()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
        let mut head = [0; 1024];
        let read = client.read(&mut head).await.unwrap();
        // The upstream waits for more from us before it closes.
        let mut seen = head[..read].to_vec();
        while !seen.ends_with(b"half") {
            let read = client.read(&mut head).await.unwrap();
            seen.extend_from_slice(&head[..read]);
        }
        drop(client);
        seen
    };
    assert!(answer.ends_with(b"half"));
    bench.logged(" 200 DC ").await;
}

#[tokio::test]
async fn large_bodies_stream_both_ways_over_both_versions() {
    let upstream = Upstream::with(|seen, _| Box::pin(async move { text(200, seen.body) })).await;
    for protocol in [meshlab_proxy_config::UpstreamProtocol::Http1, meshlab_proxy_config::UpstreamProtocol::Http2] {
        let mut target = cluster("c", &[upstream.address]);
        target.protocol = protocol;
        let bench = Setup::new(vec![to("c")], vec![target]).serve();
        let stream = TcpStream::connect(bench.address()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let sent = bytes::Bytes::from("0123456789abcdef".repeat(200_000));
        let request = Request::post("/").header("host", "app").body(http_body_util::Full::new(sent.clone())).unwrap();
        let answer = read(sender.send_request(request).await.unwrap()).await;
        assert!(answer.body.as_bytes() == sent, "{protocol:?}: {} bytes came back", answer.body.len());
    }
}
