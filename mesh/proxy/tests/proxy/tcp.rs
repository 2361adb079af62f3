//! TCP: passing on, splitting, policies, server names, protocol detection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshlab_proxy_config::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// A server that says its name first and then echoes.
async fn greeter(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(name.as_bytes()).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

fn tcp_proxy(clusters: &[(&str, u32)]) -> TcpProxy {
    TcpProxy {
        stat_prefix: "t".into(),
        clusters: clusters
            .iter()
            .map(|(cluster, weight)| WeightedTcpCluster { cluster: (*cluster).into(), weight: *weight })
            .collect(),
        access: TcpAccess::default(),
        idle_timeout_ms: 0,
        origin: None,
    }
}

fn tcp_cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    Cluster { protocol: UpstreamProtocol::Tcp, ..cluster(name, addresses) }
}

fn config(chains: Vec<FilterChain>, clusters: Vec<Cluster>) -> ProxyConfig {
    let mut config = Setup::new(vec![to("c")], clusters).build();
    config.listeners = BTreeMap::from([("l".to_owned(), Arc::new(listener(Direction::Outbound, chains)))]);
    config
}

async fn greeting(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut name = [0; 2];
    match tokio::time::timeout(Duration::from_secs(3), stream.read_exact(&mut name)).await.expect("an answer or an end") {
        Ok(_) => String::from_utf8_lossy(&name).into_owned(),
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_way_is_closed_for_itself() {
    let upstream = greeter("hi").await;
    let bench =
        Bench::serving(config(vec![chain("t", ChainProtocol::Tcp(tcp_proxy(&[("c", 1)])))], vec![tcp_cluster("c", &[upstream])]));
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    client.write_all(b" there").await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "hi there");
    let line = bench.logged(" 6 8 ").await;
    assert!(line.contains("\"- - -\" 0 - - - \"-\" 6 8 "), "{line}");
    let metrics = bench.proxy.metrics();
    for name in ["opened_total", "closed_total"] {
        assert!(metrics.contains(&format!("istio_tcp_connections_{name}{{")), "{metrics}");
    }
    let sent = metrics.lines().find(|line| line.starts_with("istio_tcp_sent_bytes_total")).unwrap();
    assert!(sent.contains("request_protocol=\"tcp\"") && sent.ends_with(" 8") && !sent.contains("response_code="), "{sent}");
}

#[tokio::test]
async fn connections_are_split_by_weight() {
    let (v1, v2) = (greeter("v1").await, greeter("v2").await);
    let chains = vec![chain("t", ChainProtocol::Tcp(tcp_proxy(&[("a", 1), ("b", 3)])))];
    let bench = Bench::serving(config(chains, vec![tcp_cluster("a", &[v1]), tcp_cluster("b", &[v2])]));
    let mut first = 0;
    for _ in 0..200 {
        first += usize::from(greeting(bench.address()).await == "v1");
    }
    // 50 are expected; outside of ± 32 falls one run in ten million.
    assert!((18..=82).contains(&first), "{first} of 200");
}

#[tokio::test]
async fn fact_43_a_black_hole_and_a_refused_endpoint_close_the_connection() {
    let chains = vec![chain("t", ChainProtocol::Tcp(tcp_proxy(&[("BlackHoleCluster", 1)])))];
    let bench = Bench::serving(config(chains, vec![tcp_cluster("BlackHoleCluster", &[])]));
    assert_eq!(greeting(bench.address()).await, "");
    assert!(bench.logged(" UH ").await.contains("BlackHoleCluster"));
    let chains = vec![chain("t", ChainProtocol::Tcp(tcp_proxy(&[("c", 1)])))];
    let bench = Bench::serving(config(chains, vec![tcp_cluster("c", &[refused().await])]));
    assert_eq!(greeting(bench.address()).await, "");
    bench.logged(" 0 UF,URX ").await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let upstream = greeter("hi").await;
    let proxy = TcpProxy { idle_timeout_ms: 80, ..tcp_proxy(&[("c", 1)]) };
    let bench = Bench::serving(config(vec![chain("t", ChainProtocol::Tcp(proxy))], vec![tcp_cluster("c", &[upstream])]));
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    let mut all = String::new();
    tokio::time::timeout(Duration::from_secs(3), client.read_to_string(&mut all)).await.expect("it is closed").unwrap();
    assert_eq!(all, "hi");
}

#[tokio::test]
async fn fact_38_a_policy_on_tcp_sees_addresses_and_ports() {
    let upstream = greeter("hi").await;
    let denied = |attribute, value| {
        let condition = Condition { attribute, values: vec![value], not_values: Vec::new() };
        let rule = PolicyRule { index: 0, from: vec![vec![condition]], ..PolicyRule::default() };
        let policy = Policy { origin: origin("AuthorizationPolicy", "deny"), dry_run: false, rules: vec![rule] };
        let proxy = TcpProxy { access: TcpAccess { deny: vec![policy], ..TcpAccess::default() }, ..tcp_proxy(&[("c", 1)]) };
        config(vec![chain("t", ChainProtocol::Tcp(proxy))], vec![tcp_cluster("c", &[upstream])])
    };
    let bench = Bench::serving(denied(Attribute::SourceIp, AttributeMatch::Ip("127.0.0.0/8".parse().unwrap())));
    assert_eq!(greeting(bench.address()).await, "");
    bench.logged("rbac_access_denied_matched_policy[ns[default]-policy[deny]-rule[0]]").await;
    let bench = Bench::serving(denied(Attribute::DestinationPort, AttributeMatch::Port(1)));
    assert_eq!(greeting(bench.address()).await, "hi");
}

#[tokio::test]
async fn tls_passes_through_by_its_server_name() {
    let (a, b) = (greeter("aa").await, greeter("bb").await);
    let named = |name: &str, cluster: &str| {
        let mut chain = chain(cluster, ChainProtocol::Tcp(tcp_proxy(&[(cluster, 1)])));
        chain.matches.server_names = vec![name.into()];
        chain
    };
    let chains = vec![named("a.example.com", "a"), named("*.example.org", "b")];
    let bench = Bench::serving(config(chains, vec![tcp_cluster("a", &[a]), tcp_cluster("b", &[b])]));
    let hello = |name: &'static str| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut session = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).unwrap();
        bytes
    };
    for (name, wanted) in [("a.example.com", "aa"), ("x.example.org", "bb"), ("other.example.net", "")] {
        let mut client = TcpStream::connect(bench.address()).await.unwrap();
        let hello = hello(name);
        // In two pieces: the whole hello has to be waited for.
        client.write_all(&hello[..20]).await.unwrap();
        client.flush().await.unwrap();
        client.write_all(&hello[20..]).await.unwrap();
        let mut answer = [0; 2];
        let read = tokio::time::timeout(Duration::from_secs(3), client.read_exact(&mut answer)).await.unwrap();
        let answer = if read.is_ok() { &answer[..] } else { &[] };
        assert_eq!(String::from_utf8_lossy(answer), wanted, "{name}");
        if !wanted.is_empty() {
            let mut echoed = vec![0; hello.len()];
            client.read_exact(&mut echoed).await.unwrap();
            assert_eq!(echoed, hello, "the upstream gets what the client sent");
        }
    }
    bench.logged(" NR ").await;
}

#[tokio::test]
async fn fact_45_a_port_without_a_protocol_is_sniffed() {
    let (http, tcp) = (Upstream::named("http").await, greeter("hi").await);
    let mut sniffed = chain("http", ChainProtocol::Http(http_connection()));
    sniffed.matches.transport = Some(Transport::Raw);
    sniffed.matches.application_protocols = vec!["http/1.1".into(), "h2c".into()];
    let other = chain("tcp", ChainProtocol::Tcp(tcp_proxy(&[("t", 1)])));
    let clusters = vec![cluster("c", &[http.address]), tcp_cluster("t", &[tcp])];
    let options = meshlab_proxy::ProxyOptions {
        admin_address: None,
        limits: meshlab_proxy::Limits { sniff_timeout: Duration::from_millis(500), ..Default::default() },
        ..Default::default()
    };
    let bench = Bench::with(options);
    let mut config = config(vec![sniffed], clusters);
    let mut sniffing = (*config.listeners["l"]).clone();
    sniffing.default_filter_chain = Some(other);
    config.listeners.insert("l".into(), Arc::new(sniffing));
    bench.apply(config);
    assert_eq!(bench.get("/").await.body, "http");
    let mut client = TcpStream::connect(bench.address()).await.unwrap();
    client.write_all(b"\x00\x01binary").await.unwrap();
    let mut answer = [0; 10];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hi\x00\x01binary");
    assert_eq!(greeting(bench.address()).await, "hi", "a server that speaks first is heard after the time limit");
}

#[tokio::test]
async fn the_proxy_protocol_tells_the_upstream_who_the_client_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut upstream = tcp_cluster("c", &[listener.local_addr().unwrap()]);
    upstream.proxy_protocol = Some(ProxyProtocol::V1);
    let bench = Bench::serving(config(vec![chain("t", ChainProtocol::Tcp(tcp_proxy(&[("c", 1)])))], vec![upstream]));
    let client = TcpStream::connect(bench.address()).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    let wanted = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.local_addr().unwrap().port(), bench.address().port());
    let mut header = vec![0; wanted.len()];
    accepted.read_exact(&mut header).await.unwrap();
    assert_eq!(String::from_utf8(header).unwrap(), wanted);
}
