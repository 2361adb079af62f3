//! Mutual TLS between two proxies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Request;
use meshlab_proxy_config::*;
use tokio::net::TcpStream;

use crate::support::*;

const SLEEP: &str = "spiffe://cluster.local/ns/default/sa/sleep";
const HTTPBIN: &str = "spiffe://cluster.local/ns/default/sa/httpbin";

fn server_tls() -> DownstreamTls {
    DownstreamTls {
        certificate: CertificateSource::Workload,
        client_certificate: ClientCertificate::Mesh { trust_domains: vec!["cluster.local".into()] },
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        alpn: vec!["istio-h2".into(), "istio-http/1.1".into(), "istio".into()],
    }
}

fn strict(setup: Setup) -> ProxyConfig {
    let mut config = setup.inbound().build();
    let mut listener = (*config.listeners["l"]).clone();
    listener.filter_chains[0].tls = Some(server_tls());
    config.listeners.insert("l".into(), Arc::new(listener));
    config
}

/// Mutual TLS on the chain that mesh clients match, plaintext on the other.
fn permissive(setup: Setup) -> ProxyConfig {
    let mut config = setup.inbound().build();
    let mut listener = (*config.listeners["l"]).clone();
    let plain = listener.filter_chains[0].clone();
    let mut tls = FilterChain { name: "mtls".into(), tls: Some(server_tls()), ..plain.clone() };
    tls.matches.transport = Some(Transport::Tls);
    tls.matches.application_protocols = vec!["istio".into(), "istio-http/1.1".into(), "istio-h2".into()];
    let mut raw = plain;
    raw.matches.transport = Some(Transport::Raw);
    listener.filter_chains = vec![tls, raw];
    config.listeners.insert("l".into(), Arc::new(listener));
    config
}

fn mesh_tls(names: &[&str]) -> MeshTls {
    MeshTls {
        sni: "outbound_.8000_._.httpbin.default.svc.cluster.local".into(),
        alpn: vec!["istio-peer-exchange".into(), "istio".into()],
        subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn client(server: SocketAddr, tls: UpstreamTls, change: impl FnOnce(&mut Cluster)) -> ProxyConfig {
    let mut upstream = cluster("c", &[server]);
    upstream.tls = tls;
    change(&mut upstream);
    let mut setup = Setup::new(vec![to("c")], vec![upstream]);
    setup.telemetry.workload =
        WorkloadLabels { workload: "sleep-v1".into(), namespace: "default".into(), app: "sleep".into(), ..Default::default() };
    setup.build()
}

async fn pair(protocol: UpstreamProtocol) -> (Upstream, Bench, Bench) {
    let mesh = Mesh::new();
    let upstream = Upstream::named("httpbin").await;
    let server = Bench::start();
    server.proxy.set_identity(mesh.identity(HTTPBIN)).unwrap();
    server.apply(strict(Setup::to(upstream.address)));
    let sidecar = Bench::start();
    sidecar.proxy.set_identity(mesh.identity(SLEEP)).unwrap();
    sidecar.apply(client(server.address(), UpstreamTls::Mesh(mesh_tls(&[HTTPBIN])), |cluster| cluster.protocol = protocol));
    (upstream, server, sidecar)
}

#[tokio::test]
async fn a_request_passes_two_proxies_with_mutual_tls() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (upstream, server, sidecar) = pair(protocol).await;
        let answer = sidecar.get("/headers").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "httpbin"));
        assert_eq!(answer.header("server"), Some("envoy"));
        let seen = upstream.last();
        let certificate = seen.header("x-forwarded-client-cert").expect("the server's proxy says who called");
        assert!(certificate.starts_with(&format!("By={HTTPBIN};Hash=")), "{certificate}");
        assert!(certificate.ends_with(&format!("URI={SLEEP}")), "{certificate}");
        let metrics = until("the server's metrics", || {
            Some(server.proxy.metrics()).filter(|metrics| metrics.contains("istio_requests_total"))
        })
        .await;
        let line = metrics.lines().find(|line| line.starts_with("istio_requests_total")).unwrap();
        for label in [
            "connection_security_policy=\"mutual_tls\"",
            "reporter=\"destination\"",
            "source_workload=\"sleep-v1\"",
            &format!("source_principal=\"{SLEEP}\""),
            &format!("destination_principal=\"{HTTPBIN}\""),
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
    }
}

/// A listener for bytes instead of requests.
fn for_bytes(config: &mut ProxyConfig) {
    let mut listener = (*config.listeners["l"]).clone();
    listener.filter_chains[0].protocol = ChainProtocol::Tcp(TcpProxy {
        stat_prefix: "t".into(),
        clusters: vec![WeightedTcpCluster { cluster: "c".into(), weight: 1 }],
        access: TcpAccess::default(),
        idle_timeout_ms: 0,
        origin: None,
    });
    if let Some(tls) = &mut listener.filter_chains[0].tls {
        tls.alpn = vec!["istio-peer-exchange".into(), "istio".into()];
    }
    config.listeners.insert("l".into(), Arc::new(listener));
}

#[tokio::test]
async fn tcp_metrics_name_the_workloads_on_both_sides() {
    let mesh = Mesh::new();
    let application = Upstream::named("httpbin").await;
    let server = Bench::start();
    server.proxy.set_identity(mesh.identity(HTTPBIN)).unwrap();
    let mut setup = Setup::to(application.address);
    setup.telemetry.workload = WorkloadLabels {
        workload: "httpbin-v1".into(),
        namespace: "default".into(),
        app: "httpbin".into(),
        ..Default::default()
    };
    let mut config = strict(setup);
    for_bytes(&mut config);
    server.apply(config);
    let sidecar = Bench::start();
    sidecar.proxy.set_identity(mesh.identity(SLEEP)).unwrap();
    let mut config = client(server.address(), UpstreamTls::Mesh(mesh_tls(&[HTTPBIN])), |cluster| {
        cluster.protocol = UpstreamProtocol::Tcp;
    });
    for_bytes(&mut config);
    sidecar.apply(config);

    let answer = raw(sidecar.address(), b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("httpbin"), "only the application's bytes: {answer:?}");
    for (proxy, reporter) in [(&server.proxy, "destination"), (&sidecar.proxy, "source")] {
        let metrics = until("the connection's end", || {
            Some(proxy.metrics()).filter(|metrics| metrics.contains("istio_tcp_connections_closed_total"))
        })
        .await;
        let line = metrics.lines().find(|line| line.starts_with("istio_tcp_connections_closed_total")).unwrap();
        for label in [
            &*format!("reporter=\"{reporter}\""),
            "source_workload=\"sleep-v1\"",
            "source_app=\"sleep\"",
            "destination_workload=\"httpbin-v1\"",
            "destination_app=\"httpbin\"",
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
    }
}

#[tokio::test]
async fn fact_33_auto_mtls_is_decided_for_each_endpoint() {
    let mesh = Mesh::new();
    let (inside, outside) = (Upstream::named("inside").await, Upstream::named("outside").await);
    let server = Bench::start();
    server.proxy.set_identity(mesh.identity(HTTPBIN)).unwrap();
    server.apply(strict(Setup::to(inside.address)));
    let sidecar = Bench::start();
    sidecar.proxy.set_identity(mesh.identity(SLEEP)).unwrap();
    sidecar.apply(client(server.address(), UpstreamTls::Auto(mesh_tls(&[])), |cluster| {
        let mut with = endpoint(server.address());
        with.metadata.mtls = true;
        cluster.discovery = Discovery::Static(Endpoints { endpoints: vec![with, endpoint(outside.address)] });
        cluster.load_balancer = LoadBalancer::RoundRobin { warmup_ms: 0 };
    }));
    let bodies = [sidecar.get("/").await.body, sidecar.get("/").await.body];
    assert!(bodies.contains(&"inside".to_owned()) && bodies.contains(&"outside".to_owned()), "{bodies:?}");
}

#[tokio::test]
async fn fact_32_permissive_takes_mutual_tls_and_plaintext_on_one_port_and_strict_only_the_first() {
    let mesh = Mesh::new();
    let upstream = Upstream::named("httpbin").await;
    let server = Bench::start();
    server.proxy.set_identity(mesh.identity(HTTPBIN)).unwrap();
    server.apply(permissive(Setup::to(upstream.address)));
    let sidecar = Bench::start();
    sidecar.proxy.set_identity(mesh.identity(SLEEP)).unwrap();
    sidecar.apply(client(server.address(), UpstreamTls::Mesh(mesh_tls(&[])), |_| {}));
    assert_eq!(sidecar.get("/").await.status, 200);
    assert!(upstream.last().header("x-forwarded-client-cert").is_some());
    assert_eq!(server.get("/").await.status, 200, "plaintext, past the sidecar");
    assert!(upstream.last().header("x-forwarded-client-cert").is_none());

    let strict_server = Bench::start();
    strict_server.proxy.set_identity(mesh.identity(HTTPBIN)).unwrap();
    strict_server.apply(strict(Setup::to(upstream.address)));
    let refused = raw(strict_server.address(), b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
    assert!(!refused.contains("HTTP/1.1"), "plaintext gets no HTTP answer: {refused:?}");
    assert_eq!(sidecar.get("/").await.status, 200);
}

#[tokio::test]
async fn a_server_with_another_identity_is_not_talked_to() {
    let (upstream, server, sidecar) = pair(UpstreamProtocol::Http1).await;
    sidecar.apply(client(server.address(), UpstreamTls::Mesh(mesh_tls(&["spiffe://cluster.local/ns/default/sa/other"])), |_| {}));
    let answer = sidecar.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(sidecar.logged(" 503 UF ").await.contains("CERTIFICATE_VERIFY_FAILED"));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_client_of_another_mesh_is_refused() {
    let (upstream, server, sidecar) = pair(UpstreamProtocol::Http1).await;
    sidecar.proxy.set_identity(Mesh::new().identity(SLEEP)).unwrap();
    let answer = sidecar.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(upstream.count(), 0);
    drop(server);
}

#[tokio::test]
async fn a_new_certificate_drops_no_request() {
    let mesh = Mesh::new();
    let upstream = Upstream::named("httpbin").await;
    let server = Bench::start();
    server.proxy.set_identity(mesh.identity(HTTPBIN)).unwrap();
    server.apply(strict(Setup::to(upstream.address)));
    let sidecar = Arc::new(Bench::start());
    sidecar.proxy.set_identity(mesh.identity(SLEEP)).unwrap();
    // Every request is a new handshake.
    sidecar.apply(client(server.address(), UpstreamTls::Mesh(mesh_tls(&[])), |cluster| cluster.max_requests_per_connection = 1));
    let done = Arc::new(AtomicBool::new(false));
    let requests = {
        let (sidecar, done) = (sidecar.clone(), done.clone());
        tokio::spawn(async move {
            let mut statuses = Vec::new();
            while !done.load(Ordering::SeqCst) {
                statuses.push(sidecar.get("/").await.status);
            }
            statuses
        })
    };
    for _ in 0..5 {
        server.proxy.set_identity(mesh.identity(HTTPBIN)).unwrap();
        sidecar.proxy.set_identity(mesh.identity(SLEEP)).unwrap();
        let before = upstream.count();
        until("requests with the new certificates", || (upstream.count() >= before + 3).then_some(())).await;
    }
    done.store(true, Ordering::SeqCst);
    let statuses = requests.await.unwrap();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// A gateway that terminates TLS for `shop.example.com`, with a certificate from a Secret.
fn gateway(mesh: &Mesh, upstream: SocketAddr, client_certificate: ClientCertificate) -> Bench {
    let (certificate_chain, private_key) = mesh.issue(rcgen::SanType::DnsName("shop.example.com".try_into().unwrap()));
    let mut config = Setup::to(upstream).gateway().build();
    let mut listener = (*config.listeners["l"]).clone();
    listener.filter_chains[0].matches.server_names = vec!["shop.example.com".into()];
    listener.filter_chains[0].tls = Some(DownstreamTls {
        certificate: CertificateSource::Secret("kubernetes://istio-system/shop".into()),
        client_certificate,
        alpn: vec!["h2".into(), "http/1.1".into()],
        ..server_tls()
    });
    config.listeners.insert("l".into(), Arc::new(listener));
    let secret = Secret { certificate_chain, private_key, ca_certificates: mesh.roots(), error: None };
    config.secrets.insert("kubernetes://istio-system/shop".into(), Arc::new(secret));
    Bench::serving(config)
}

#[tokio::test]
async fn tls_of_ones_own_verifies_the_servers_name_and_presents_a_certificate_where_one_is_wanted() {
    let mesh = Mesh::new();
    let upstream = Upstream::named("web").await;
    let (certificate_chain, private_key) = mesh.issue(rcgen::SanType::DnsName("client.example.com".try_into().unwrap()));
    let with = |server: SocketAddr, sni: &str, names: &[&str], client_certificate: bool| {
        let mut target = cluster("c", &[server]);
        target.tls = UpstreamTls::Custom {
            sni: Some(sni.into()),
            client_certificate: client_certificate.then(|| CertificateSource::Secret("client".into())),
            ca: Some(CertificateSource::Secret("client".into())),
            subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
            skip_verification: false,
            min_version: TlsVersion::V1_2,
        };
        let mut config = Setup::new(vec![to("c")], vec![target]).build();
        let secret = Secret {
            certificate_chain: certificate_chain.clone(),
            private_key: private_key.clone(),
            ca_certificates: mesh.roots(),
            error: None,
        };
        config.secrets.insert("client".into(), Arc::new(secret));
        Bench::serving(config)
    };
    let simple = gateway(&mesh, upstream.address, ClientCertificate::None);
    let address = simple.address();
    assert_eq!(with(address, "shop.example.com", &[], false).get("/").await.body, "web");
    assert_eq!(with(address, "shop.example.com", &["shop.example.com"], false).get("/").await.status, 200);
    assert_eq!(with(address, "shop.example.com", &["other.example.com"], false).get("/").await.status, 503);
    let required = ClientCertificate::Required { subject_alt_names: vec!["client.example.com".into()] };
    let mutual = gateway(&mesh, upstream.address, required);
    assert_eq!(with(mutual.address(), "shop.example.com", &[], true).get("/").await.body, "web");
    let certificate = upstream.last().header("x-forwarded-client-cert").expect("the gateway says who called").to_owned();
    assert!(certificate.contains("DNS=client.example.com"), "{certificate}");
    assert_eq!(with(mutual.address(), "shop.example.com", &[], false).get("/").await.status, 503, "no certificate");
    let other = ClientCertificate::Required { subject_alt_names: vec!["admin.example.com".into()] };
    let refusing = gateway(&mesh, upstream.address, other);
    assert_eq!(with(refusing.address(), "shop.example.com", &[], true).get("/").await.status, 503, "another name");
}

#[tokio::test]
async fn a_gateway_terminates_tls_with_a_certificate_from_a_secret() {
    let mesh = Mesh::new();
    let upstream = Upstream::named("web").await;
    let gateway = gateway(&mesh, upstream.address, ClientCertificate::None);

    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::pem::PemObject;
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(mesh.roots().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let stream = connector.connect("shop.example.com".try_into().unwrap(), stream).await.unwrap();
    let request = Request::get("/").header("host", "shop.example.com").body(Default::default()).unwrap();
    let answer = exchange(stream, request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "web"));
    assert_eq!(answer.header("server"), Some("istio-envoy"));
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    assert!(connector.connect("other.example.com".try_into().unwrap(), stream).await.is_err(), "no chain for this name");
}
