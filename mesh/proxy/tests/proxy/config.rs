//! Taking over configuration while serving, draining, the administration interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper_util::rt::TokioIo;
use meshlab_proxy::ProxyOptions;
use meshlab_proxy_config::*;
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn a_change_of_routes_is_live_on_open_connections_and_drops_nothing() {
    let (v1, v2) = (Upstream::named("v1").await, Upstream::named("v2").await);
    let setup = |cluster_name: &str| {
        let mut config =
            Setup::new(vec![to(cluster_name)], vec![cluster("v1", &[v1.address]), cluster("v2", &[v2.address])]).build();
        config.listeners.get_mut("l").unwrap();
        config
    };
    let bench = Bench::serving(setup("v1"));
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut get = async || {
        let request = Request::get("/").header("host", "app").body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
        read(sender.send_request(request).await.unwrap()).await.body
    };
    assert_eq!(get().await, "v1");
    bench.apply(setup("v2"));
    assert_eq!(get().await, "v2", "the next request on the same connection");
}

#[tokio::test]
async fn a_bad_resource_keeps_its_last_good_state_and_the_others_take_effect() {
    let upstream = Upstream::named("u").await;
    let bench = Setup::to(upstream.address).serve();
    let bad_regex =
        route("bad", path(PathMatch::Regex("(".into())), RouteAction::DirectResponse { status: 200, body: String::new() });
    let mut config = Setup::new(vec![bad_regex], vec![cluster("c", &[upstream.address]), cluster("new", &[])]).build();
    let other = RouteConfiguration { name: "other".into(), virtual_hosts: Vec::new(), ignore_port_in_host: false };
    config.routes.insert("other".into(), Arc::new(other));
    let errors = bench.proxy.apply(Arc::new(config)).unwrap_err();
    let reason = &errors.0["route/r"];
    assert!(reason.contains("virtual host app, route bad: regular expression \"(\" is not valid RE2"), "{reason}");
    assert_eq!(errors.0.len(), 1);
    assert_eq!(bench.get("/").await.body, "u", "the last good routes");
    let effective = bench.proxy.config();
    assert!(effective.routes.contains_key("other") && effective.clusters.contains_key("new"));
    assert_eq!(effective.routes["r"].virtual_hosts[0].routes[0].name, "default");
}

#[tokio::test]
async fn a_missing_secret_refuses_its_chain_and_nothing_else() {
    let upstream = Upstream::named("u").await;
    let mut config = Setup::to(upstream.address).build();
    let mut listener = (*config.listeners["l"]).clone();
    let mut broken = listener.filter_chains[0].clone();
    broken.name = "tls".into();
    broken.matches.transport = Some(Transport::Tls);
    broken.tls = Some(DownstreamTls {
        certificate: CertificateSource::Secret("kubernetes://istio-system/none".into()),
        client_certificate: ClientCertificate::None,
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        alpn: Vec::new(),
    });
    listener.filter_chains.push(broken);
    config.listeners.insert("l".into(), Arc::new(listener));
    let bench = Bench::start();
    let errors = bench.proxy.apply(Arc::new(config)).unwrap_err();
    assert!(errors.0["listener/l"].contains("secret kubernetes://istio-system/none is not known"), "{errors}");
    assert_eq!(bench.get("/").await.body, "u");
}

#[tokio::test]
async fn endpoints_come_and_go_without_a_lost_request() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let with = |endpoints: &[SocketAddr]| {
        let mut eds = cluster("c", &[]);
        eds.discovery = Discovery::Eds;
        let mut config = Setup::new(vec![to("c")], vec![eds]).build();
        let endpoints = Endpoints { endpoints: endpoints.iter().copied().map(endpoint).collect() };
        config.endpoints.insert("c".into(), Arc::new(endpoints));
        config
    };
    let bench = Arc::new(Bench::serving(with(&[a.address])));
    let done = Arc::new(AtomicBool::new(false));
    let requests = {
        let (bench, done) = (bench.clone(), done.clone());
        tokio::spawn(async move {
            let mut statuses = Vec::new();
            while !done.load(Ordering::SeqCst) {
                statuses.push(bench.get("/").await.status);
            }
            statuses
        })
    };
    for endpoints in [&[a.address, b.address][..], &[b.address], &[a.address], &[a.address, b.address]] {
        bench.apply(with(endpoints));
        let before = a.count() + b.count();
        until("requests with the new endpoints", || (a.count() + b.count() >= before + 5).then_some(())).await;
    }
    done.store(true, Ordering::SeqCst);
    let statuses = requests.await.unwrap();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(b.count() > 0);
}

#[tokio::test]
async fn a_listener_that_is_gone_does_not_listen_any_more() {
    let upstream = Upstream::named("u").await;
    let bench = Setup::to(upstream.address).serve();
    let address = bench.address();
    assert_eq!(bench.get("/").await.status, 200);
    bench.apply(ProxyConfig::default());
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    while TcpStream::connect(address).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "it still listens");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn draining_finishes_what_is_under_way_and_asks_clients_to_go() {
    let upstream = Upstream::with(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            text(200, "finished")
        })
    })
    .await;
    let bench = Arc::new(Setup::to(upstream.address).serve());
    let address = bench.address();
    let under_way = {
        let bench = bench.clone();
        tokio::spawn(async move { bench.get("/").await })
    };
    until("the request", || (upstream.count() == 1).then_some(())).await;
    bench.proxy.drain(Duration::from_secs(5)).await;
    let answer = under_way.await.unwrap();
    assert_eq!((answer.status, answer.body.as_str(), answer.header("connection")), (200, "finished", Some("close")));
    assert!(TcpStream::connect(address).await.is_err(), "no new connections");
    assert!(!bench.proxy.is_ready());
}

#[tokio::test]
async fn stopping_cuts_what_is_under_way() {
    let upstream = Upstream::with(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            text(200, "")
        })
    })
    .await;
    let bench = Setup::to(upstream.address).serve();
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "app").body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    until("the request", || (upstream.count() == 1).then_some(())).await;
    bench.proxy.stop().await;
    let ended = tokio::time::timeout(Duration::from_secs(3), response).await.expect("the connection is cut");
    assert!(ended.unwrap().is_err());
}

#[tokio::test]
async fn fact_47_the_administration_interface_answers_as_envoys() {
    let upstream = Upstream::named("u").await;
    // A free port of this moment: the interface's address is fixed, not reported.
    let admin = refused().await;
    let options = ProxyOptions { admin_address: Some(admin), ..ProxyOptions::default() };
    assert_eq!(ProxyOptions::default().admin_address, Some("127.0.0.1:15000".parse().unwrap()));
    let quit = options.quit.clone();
    let bench = Bench::with(options);
    let ask = async |request: http::request::Builder| {
        let stream = loop {
            match TcpStream::connect(admin).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        exchange(stream, request.header("host", "admin").body(Default::default()).unwrap()).await
    };
    assert_eq!(ask(Request::get("/ready")).await.status, 503, "not configured yet");
    bench.apply(Setup::to(upstream.address).build());
    let mesh = Mesh::new();
    bench.proxy.set_identity(mesh.identity("spiffe://cluster.local/ns/default/sa/u")).unwrap();
    bench.get("/").await;
    assert_eq!(ask(Request::get("/ready")).await.body, "LIVE\n");
    let dump: serde_json::Value = serde_json::from_str(&ask(Request::get("/config_dump")).await.body).unwrap();
    let kinds: Vec<_> = dump["configs"].as_array().unwrap().iter().map(|section| section["@type"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"type.googleapis.com/envoy.admin.v3.ListenersConfigDump"), "{kinds:?}");
    let clusters = ask(Request::get("/clusters")).await.body;
    assert!(clusters.contains(&format!("c::{}::rq_total::1", upstream.address)), "{clusters}");
    let listeners = ask(Request::get("/listeners?format=json")).await.body;
    assert!(listeners.contains("listener_statuses"));
    let stats = ask(Request::get("/stats?filter=cluster.c.upstream_rq_2xx")).await.body;
    assert_eq!(stats, "cluster.c.upstream_rq_2xx: 1\n");
    assert!(
        ask(Request::get("/stats/prometheus"))
            .await
            .body
            .contains("envoy_cluster_upstream_rq_xx{cluster_name=\"c\",response_code_class=\"2xx\"} 1")
    );
    let certificates = ask(Request::get("/certs")).await.body;
    assert!(certificates.contains("spiffe://cluster.local/ns/default/sa/u"), "{certificates}");
    assert!(ask(Request::get("/server_info")).await.body.contains("\"state\": \"LIVE\""));
    assert_eq!(ask(Request::get("/logging")).await.status, 405);
    assert!(ask(Request::post("/logging?level=debug")).await.body.contains("http: debug"));
    assert_eq!(ask(Request::get("/none")).await.status, 404);
    assert_eq!(ask(Request::post("/quitquitquit")).await.body, "OK\n");
    quit.notified().await;
}
