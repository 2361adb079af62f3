//! Matching, rewriting, redirecting, splitting, headers.

use std::collections::BTreeMap;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_proxy_config::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

fn value(name: &str, value: Option<StringMatch>) -> ValueMatch {
    ValueMatch { name: name.into(), value, invert: false, missing_as_empty: false, ignore_case: false }
}

fn direct(name: &str, matches: RouteMatch) -> Route {
    route(name, matches, RouteAction::DirectResponse { status: 200, body: name.into() })
}

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn fact_01_fields_of_a_match_are_anded_and_routes_are_tried_in_order() {
    let mut both = path(PathMatch::Prefix("/a".into()));
    both.headers = vec![value("x-user", Some(StringMatch::Exact("jason".into())))];
    both.query = vec![value("v", Some(StringMatch::Regex("[0-9]+".into())))];
    let bench = Setup::new(vec![direct("both", both), direct("rest", any_path()), direct("never", any_path())], vec![]).serve();
    let body = async |request: http::request::Builder| bench.send(request).await.body;
    assert_eq!(body(Request::get("/a?v=1").header("x-user", "jason")).await, "both");
    assert_eq!(body(Request::get("/a?v=x").header("x-user", "jason")).await, "rest");
    assert_eq!(body(Request::get("/a?v=1").header("x-user", "jasons")).await, "rest");
    assert_eq!(body(Request::get("/b?v=1").header("x-user", "jason")).await, "rest");
}

#[tokio::test]
async fn fact_02_no_route_is_404() {
    let bench = Setup::new(vec![direct("a", path(PathMatch::Exact("/a".into())))], vec![]).serve();
    assert_eq!(bench.get("/a").await.status, 200);
    let missing = bench.get("/b").await;
    assert_eq!((missing.status, missing.body.as_str()), (404, ""));
    bench.logged("404 NR route_not_found").await;
}

#[tokio::test]
async fn fact_03_a_prefix_is_raw_and_the_gateway_apis_is_of_segments() {
    let raw = Setup::new(vec![direct("p", path(PathMatch::Prefix("/foo".into())))], vec![]).serve();
    let segments = Setup::new(vec![direct("p", path(PathMatch::SegmentPrefix("/foo".into())))], vec![]).serve();
    for (path, in_raw, in_segments) in
        [("/foo", 200, 200), ("/foo/", 200, 200), ("/foo/bar", 200, 200), ("/foobar", 200, 404), ("/foo?x=1", 200, 200)]
    {
        assert_eq!((raw.get(path).await.status, segments.get(path).await.status), (in_raw, in_segments), "{path}");
    }
}

#[tokio::test]
async fn fact_10_the_most_specific_host_decides_and_there_is_no_falling_through() {
    let mut setup = Setup::new(vec![], vec![]);
    setup.hosts = vec![
        virtual_host("any", &["*"], vec![direct("any", any_path())]),
        virtual_host("suffix", &["*.example.com"], vec![direct("suffix", any_path())]),
        virtual_host("exact", &["a.example.com"], vec![direct("exact", path(PathMatch::Exact("/only".into())))]),
        virtual_host("prefix", &["api.*"], vec![direct("prefix", any_path())]),
    ];
    let bench = setup.serve();
    for (host, path, wanted) in [
        ("a.example.com", "/only", (200, "exact")),
        ("a.example.com", "/other", (404, "")),
        ("A.Example.COM", "/only", (200, "exact")),
        ("b.example.com", "/", (200, "suffix")),
        ("example.com", "/", (200, "any")),
        ("api.example.com", "/", (200, "suffix")),
        ("api.example.org", "/", (200, "prefix")),
    ] {
        let answer = bench.send(Request::get(path).header("host", host)).await;
        assert_eq!((answer.status, answer.body.as_str()), wanted, "{host}{path}");
    }
}

#[tokio::test]
async fn fact_11_a_host_matches_with_and_without_its_port() {
    let mut setup = Setup::new(vec![], vec![]);
    setup.hosts = vec![virtual_host("v", &["reviews", "10.96.0.1"], vec![direct("v", any_path())])];
    let bench = setup.serve();
    for host in ["reviews", "reviews:9080", "10.96.0.1:80"] {
        assert_eq!(bench.send(Request::get("/").header("host", host)).await.status, 200, "{host}");
    }
    assert_eq!(bench.send(Request::get("/").header("host", "reviewsx")).await.status, 404);
}

#[tokio::test]
async fn fact_12_weights_are_relative_to_their_sum() {
    let (v1, v2) = (Upstream::named("v1").await, Upstream::named("v2").await);
    let split = forwarding(|forward| forward.destinations = vec![destination("v1", 30), destination("v2", 10)]);
    let bench = Setup::new(vec![split], vec![cluster("v1", &[v1.address]), cluster("v2", &[v2.address])]).serve();
    for _ in 0..400 {
        assert_eq!(bench.get("/").await.status, 200);
    }
    // 300 are expected of v1; outside of ± 60 falls one run in ten to the eleventh.
    assert!((240..=360).contains(&v1.count()), "{} of 400", v1.count());
    assert_eq!(v1.count() + v2.count(), 400);
}

#[tokio::test]
async fn fact_13_a_cluster_that_is_missing_is_503_nc_and_one_without_endpoints_503_uh() {
    let routes = vec![
        route(
            "missing",
            path(PathMatch::Prefix("/nc".into())),
            RouteAction::Forward(Box::new(forward("outbound|80|v9|reviews"))),
        ),
        to("c"),
    ];
    let bench = Setup::new(routes, vec![cluster("c", &[])]).serve();
    let missing = bench.get("/nc").await;
    assert_eq!((missing.status, missing.body.as_str()), (503, ""));
    bench.logged("503 NC cluster_not_found").await;
    let empty = bench.get("/").await;
    assert_eq!((empty.status, empty.body.as_str()), (503, "no healthy upstream"));
    bench.logged("503 UH no_healthy_upstream").await;
}

#[tokio::test]
async fn fact_14_a_rewrite_swaps_the_matched_prefix_and_keeps_the_query() {
    let upstream = Upstream::named("u").await;
    let with = |matches: PathMatch, rewrite: PathRewrite| {
        let mut route = forwarding(|forward| {
            forward.rewrite = Some(rewrite);
            forward.authority_rewrite = Some("other".into());
        });
        route.matches = path(matches);
        Setup::new(vec![route], vec![cluster("c", &[upstream.address])]).serve()
    };
    let bench = with(PathMatch::Prefix("/old/".into()), PathRewrite::Matched("/new/".into()));
    bench.get("/old/x?q=1").await;
    let seen = upstream.last();
    assert_eq!((seen.path.as_str(), seen.host.as_str()), ("/new/x?q=1", "other"));
    assert_eq!(seen.header("x-envoy-original-path"), Some("/old/x?q=1"));
    assert_eq!(seen.header("x-envoy-original-host"), Some("app"));
    assert!(bench.logged("/old/x").await.contains("GET /old/x?q=1 "), "the log has the path that was asked for");
    let bench = with(PathMatch::Exact("/old".into()), PathRewrite::Matched("/new".into()));
    bench.get("/old?q=1").await;
    assert_eq!(upstream.last().path, "/new?q=1");
    let bench = with(PathMatch::SegmentPrefix("/old".into()), PathRewrite::Matched("/".into()));
    bench.get("/old/x").await;
    assert_eq!(upstream.last().path, "/x");
    let regex = PathRewrite::Regex { pattern: "^/service/([^/]+)(/.*)$".into(), substitution: "\\2/instance/\\1".into() };
    let bench = with(PathMatch::Prefix("/".into()), regex);
    bench.get("/service/foo/v1/api").await;
    assert_eq!(upstream.last().path, "/v1/api/instance/foo");
}

#[tokio::test]
async fn fact_14_a_redirect_replaces_the_whole_path_and_leaves_out_a_default_port() {
    let redirect = Redirect { status: 301, scheme: None, authority: None, port: None, path: None };
    let cases = [
        (
            Redirect { authority: Some("new.example".into()), path: Some(PathRewrite::Full("/p".into())), ..redirect.clone() },
            "http://new.example/p?q=1",
        ),
        (Redirect { scheme: Some("https".into()), ..redirect.clone() }, "https://app:81/x?q=1"),
        (
            Redirect { scheme: Some("https".into()), port: Some(RedirectPort::Number(443)), ..redirect.clone() },
            "https://app:443/x?q=1",
        ),
        (Redirect { port: Some(RedirectPort::Number(8443)), ..redirect.clone() }, "http://app:8443/x?q=1"),
        (Redirect { port: Some(RedirectPort::FromProtocol), ..redirect.clone() }, "http://app:81/x?q=1"),
        (Redirect { path: Some(PathRewrite::Matched("/y".into())), status: 307, ..redirect }, "http://app:81/y?q=1"),
    ];
    for (redirect, location) in cases {
        let status = redirect.status;
        let mut route = route("r", path(PathMatch::Exact("/x".into())), RouteAction::Redirect(redirect));
        route.matches = path(PathMatch::Prefix("/x".into()));
        let bench = Setup::new(vec![route], vec![]).serve();
        let answer = bench.send(Request::get("/x?q=1").header("host", "app:81")).await;
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)));
    }
}

#[tokio::test]
async fn a_gateways_https_redirect_answers_before_routes() {
    let mut setup = Setup::new(vec![direct("never", any_path())], vec![]).gateway();
    setup.hosts[0].require_tls = true;
    let answer = setup.serve().send(Request::get("/x?q=1").header("host", "shop.example.com:8080")).await;
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://shop.example.com:8080/x?q=1")));
}

#[tokio::test]
async fn fact_15_a_direct_response_is_answered_here() {
    let mut teapot = route("teapot", any_path(), RouteAction::DirectResponse { status: 418, body: "short and stout".into() });
    teapot.response_headers.set = headers(&[("x-kind", "teapot")]);
    let bench = Setup::new(vec![teapot], vec![]).serve();
    let answer = bench.get("/").await;
    assert_eq!((answer.status, answer.body.as_str(), answer.header("x-kind")), (418, "short and stout", Some("teapot")));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
}

#[tokio::test]
async fn fact_16_set_precedes_add_and_a_single_destinations_set_wins() {
    let upstream = Upstream::with(|_, _| {
        Box::pin(async {
            let mut response = text(200, "");
            response.headers_mut().insert("x-remove", "1".parse().unwrap());
            response
        })
    })
    .await;
    let mut route = forwarding(|forward| {
        forward.destinations[0].request_headers.set = headers(&[("x-both", "destination")]);
        forward.destinations[0].response_headers.set = headers(&[("x-from", "destination")]);
    });
    route.request_headers.set = headers(&[("x-both", "route"), ("x-set", "s")]);
    route.request_headers.add = headers(&[("x-set", "added"), ("x-who", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")]);
    route.request_headers.remove = vec!["x-secret".into()];
    route.response_headers.remove = vec!["x-remove".into()];
    let bench = Setup::new(vec![route], vec![cluster("c", &[upstream.address])]).serve();
    let answer = bench.send(Request::get("/").header("x-set", "client").header("x-secret", "1")).await;
    let seen = upstream.last();
    assert_eq!(seen.header("x-both"), Some("destination"));
    let set: Vec<_> = seen.headers.get_all("x-set").iter().collect();
    assert_eq!(set, ["s", "added"]);
    assert_eq!(seen.header("x-who"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-secret"), None);
    assert_eq!((answer.header("x-from"), answer.header("x-remove")), (Some("destination"), None));
}

#[tokio::test]
async fn headers_that_learners_see_are_istios() {
    let upstream = Upstream::named("u").await;
    let bench = Setup::to(upstream.address).serve();
    let answer = bench.get("/").await;
    assert_eq!(answer.header("server"), Some("envoy"));
    assert!(answer.header("x-envoy-upstream-service-time").is_some_and(|time| time.parse::<u64>().is_ok()));
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-envoy-attempt-count"), Some("1"));
    assert_eq!(seen.header("x-request-id").map(str::len), Some(36));
    assert!(seen.header("x-envoy-peer-metadata").is_some() && seen.header("x-envoy-peer-metadata-id").is_some());
    bench.send(Request::get("/").header("x-request-id", "mine")).await;
    assert_eq!(upstream.last().header("x-request-id"), Some("mine"), "a sidecar keeps the application's");

    let inbound = Setup::to(upstream.address).inbound().serve();
    assert_eq!(inbound.get("/").await.header("server"), Some("istio-envoy"));

    let gateway = Setup::to(upstream.address).gateway().serve();
    let answer = gateway.send(Request::get("/").header("x-forwarded-for", "1.2.3.4").header("x-request-id", "theirs")).await;
    assert_eq!(answer.header("server"), Some("istio-envoy"));
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("1.2.3.4,127.0.0.1"));
    assert_ne!(seen.header("x-request-id"), Some("theirs"), "a client outside does not choose ids");
    assert_eq!(seen.header("x-envoy-external-address"), Some("127.0.0.1"));
}

#[tokio::test]
async fn fact_27_consistent_hashing_by_header_and_cookie_keeps_to_one_endpoint() {
    let upstreams = [Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await];
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let mut hashed = cluster("c", &addresses);
    hashed.load_balancer = LoadBalancer::RingHash { minimum_ring_size: 1024 };
    let by_header = forwarding(|forward| forward.hash_policy = vec![HashPolicy::Header("x-user".into())]);
    let bench = Setup::new(vec![by_header], vec![hashed.clone()]).serve();
    let mut all = Vec::new();
    for user in 0..20 {
        let mut bodies = Vec::new();
        for _ in 0..3 {
            bodies.push(bench.send(Request::get("/").header("x-user", user.to_string())).await.body);
        }
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "user {user}: {bodies:?}");
        all.push(bodies.remove(0));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 3, "twenty users are spread over all");
    let cookie = HashPolicy::Cookie { name: "session".into(), path: "/".into(), ttl_s: Some(60) };
    let by_cookie = forwarding(|forward| forward.hash_policy = vec![cookie]);
    let bench = Setup::new(vec![by_cookie], vec![hashed]).serve();
    let first = bench.get("/").await;
    let given = first.header("set-cookie").expect("a cookie is made").to_owned();
    assert!(given.starts_with("session=\"") && given.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{given}");
    let pair = given.split(';').next().unwrap().to_owned();
    for _ in 0..5 {
        let again = bench.send(Request::get("/").header("cookie", pair.clone())).await;
        assert_eq!((again.body.as_str(), again.header("set-cookie")), (first.body.as_str(), None));
    }
}

#[tokio::test]
async fn fact_43_the_passthrough_cluster_goes_where_the_client_wanted() {
    let mut passthrough = cluster("PassthroughCluster", &[]);
    passthrough.discovery = Discovery::OriginalDestination;
    passthrough.load_balancer = LoadBalancer::Passthrough;
    let bench = Setup::new(vec![to("PassthroughCluster")], vec![passthrough]).serve();
    // Without a redirect the original destination is the listener itself, so the request comes round once more and again: what
    // counts is that it is the listener's own address that is connected to.
    let mut gone = bench.proxy.config().as_ref().clone();
    let blocked = route("block_all", any_path(), RouteAction::DirectResponse { status: 502, body: String::new() });
    let mut table = (*gone.routes["r"]).clone();
    let mut second_round = to("PassthroughCluster");
    second_round.matches.headers = vec![ValueMatch { invert: true, ..value("x-envoy-attempt-count", None) }];
    std::sync::Arc::make_mut(&mut table.virtual_hosts[0]).routes = vec![second_round, blocked];
    gone.routes.insert("r".into(), table.into());
    bench.apply(gone);
    assert_eq!(bench.get("/").await.status, 502);
    let line = bench.logged("PassthroughCluster").await;
    assert!(line.contains(&format!("\"{}\" PassthroughCluster", bench.address())), "{line}");
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_and_local_replies_are_grpcs() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = upstream.accept().await else { return };
            let service = hyper::service::service_fn(|_| async {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let data = bytes::Bytes::from_static(&[0, 0, 0, 0, 2, b'o', b'k']);
                let frames = [http_body::Frame::data(data), http_body::Frame::trailers(trailers)].map(Ok::<_, std::io::Error>);
                let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
                let response = Response::builder().header("content-type", "application/grpc").body(body).unwrap();
                Ok::<_, std::convert::Infallible>(response)
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let mut http2 = cluster("c", &[address]);
    http2.protocol = UpstreamProtocol::Http2;
    let mut broken = to("nothing");
    broken.matches = path(PathMatch::Prefix("/broken".into()));
    let bench = Setup::new(vec![broken, to("c")], vec![http2]).serve();
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let call = |path: &str| {
        Request::post(format!("http://app{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(http_body_util::Full::new(bytes::Bytes::from_static(&[0, 0, 0, 0, 0])))
            .unwrap()
    };
    let answer = read(sender.send_request(call("/s/m")).await.unwrap()).await;
    assert_eq!((answer.status, answer.body.as_bytes()), (200, &[0, 0, 0, 0, 2, b'o', b'k'][..]));
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    let answer = read(sender.send_request(call("/broken")).await.unwrap()).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")), "503 stands for UNAVAILABLE");
    let metrics =
        until("gRPC metrics", || Some(bench.proxy.metrics()).filter(|metrics| metrics.contains("istio_request_messages_total")))
            .await;
    assert!(metrics.contains("request_protocol=\"grpc\""));
    assert!(metrics.contains("grpc_response_status=\"0\"") && metrics.contains("grpc_response_status=\"14\""));
}

#[tokio::test]
async fn a_websocket_passes_and_other_upgrades_do_not() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = upstream.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(String::from_utf8_lossy(&head).contains("upgrade: websocket"));
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.unwrap();
        stream.write_all(&echo).await.unwrap();
    });
    let bench = Setup::to(address).serve();
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    let request = b"GET /chat HTTP/1.1\r\nhost: app\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhello";
    client.write_all(request).await.unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && all.ends_with("\r\n\r\nhello"), "{all}");
    bench.logged("\"GET /chat HTTP/1.1\" 101 - via_upstream").await;
    let refused = raw(bench.address(), b"GET / HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
}

#[tokio::test]
async fn http2_clients_are_served_on_the_same_port() {
    let upstream = Upstream::named("u").await;
    let bench = Setup::to(upstream.address).serve();
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://app/x").body(http_body_util::Full::new(bytes::Bytes::from_static(b"body"))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "u");
    let seen = upstream.last();
    assert_eq!((seen.host.as_str(), seen.path.as_str(), seen.body.as_str()), ("app", "/x", "body"));
}
