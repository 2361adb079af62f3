//! What a proxy reports, whole: every metric with its labels, every span with its tags, every log line, as Istio documents them.
//!
//! - <https://istio.io/latest/docs/reference/config/metrics/>
//! - <https://istio.io/latest/docs/tasks/observability/distributed-tracing/>
//! - <https://istio.io/latest/docs/tasks/observability/logs/access-log/>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_proxy::{ProxyOptions, Span};
use meshlab_proxy_config::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

const SLEEP: &str = "spiffe://cluster.local/ns/default/sa/sleep";
const HTTPBIN: &str = "spiffe://cluster.local/ns/default/sa/httpbin";

/// The labels that Istio's page documents, by the name they have in Prometheus.
const DOCUMENTED: [&str; 25] = [
    "connection_security_policy",
    "destination_app",
    "destination_canonical_revision",
    "destination_canonical_service",
    "destination_cluster",
    "destination_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_version",
    "destination_workload",
    "destination_workload_namespace",
    "grpc_response_status",
    "reporter",
    "request_protocol",
    "response_code",
    "response_flags",
    "source_app",
    "source_canonical_revision",
    "source_canonical_service",
    "source_cluster",
    "source_principal",
    "source_version",
    "source_workload",
    "source_workload_namespace",
];

fn workload(app: &str) -> WorkloadLabels {
    WorkloadLabels {
        workload: format!("{app}-v1"),
        namespace: "default".into(),
        app: app.into(),
        version: "v1".into(),
        canonical_service: app.into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        ..WorkloadLabels::default()
    }
}

fn options(app: &str) -> ProxyOptions {
    let node_id = format!("sidecar~10.244.0.7~{app}-v1-abc.default~default.svc.cluster.local");
    ProxyOptions { admin_address: None, node_id, ..ProxyOptions::default() }
}

fn tracing(app: &str) -> Tracing {
    Tracing {
        sampling: Fraction::ALL,
        cluster: "zipkin".into(),
        exporter: SpanExporter::Zipkin,
        service_name: format!("{app}.default"),
        custom_tags: BTreeMap::new(),
    }
}

/// Two sidecars with mutual TLS between them: the client's, the server's.
struct Pair {
    client: Bench,
    server: Bench,
}

impl Pair {
    /// In front of an application.
    fn new(protocol: UpstreamProtocol, chain_protocol: impl Fn(HttpConnection) -> ChainProtocol, application: Cluster) -> Self {
        let mesh = Mesh::new();
        let named = |app: &str, id: &str| {
            let bench = Bench::with(options(app));
            bench.proxy.set_identity(mesh.identity(id)).unwrap();
            bench
        };
        let (client, server) = (named("sleep", SLEEP), named("httpbin", HTTPBIN));
        let service = ServiceIdentity {
            host: "httpbin.default.svc.cluster.local".into(),
            name: "httpbin".into(),
            namespace: "default".into(),
        };
        let configure = |setup: Setup, app: &str, tls: Option<DownstreamTls>| {
            let mut setup = setup;
            setup.telemetry.workload = workload(app);
            setup.telemetry.tracing = Some(tracing(app));
            for route in setup.hosts.iter_mut().flat_map(|host| &mut host.routes) {
                route.operation = "httpbin.default.svc.cluster.local:8000/*".into();
            }
            let mut config = setup.build();
            let mut listener = (*config.listeners["l"]).clone();
            let chain = &mut listener.filter_chains[0];
            if let ChainProtocol::Http(http) = chain.protocol.clone() {
                chain.protocol = chain_protocol(http);
            }
            chain.tls = tls;
            config.listeners.insert("l".into(), Arc::new(listener));
            config
        };
        let mut inbound = application;
        inbound.name = "inbound|80||".into();
        inbound.service = service.clone();
        let tls = DownstreamTls {
            certificate: CertificateSource::Workload,
            client_certificate: ClientCertificate::Mesh { trust_domains: vec!["cluster.local".into()] },
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            alpn: vec!["istio-peer-exchange".into(), "istio-h2".into(), "istio-http/1.1".into(), "istio".into()],
        };
        server.apply(configure(Setup::new(vec![to("inbound|80||")], vec![inbound]).inbound(), "httpbin", Some(tls)));
        let mut outbound = cluster("outbound|8000||httpbin.default.svc.cluster.local", &[server.address()]);
        outbound.protocol = protocol;
        outbound.service = service;
        outbound.tls = UpstreamTls::Mesh(MeshTls {
            sni: "outbound_.8000_._.httpbin.default.svc.cluster.local".into(),
            alpn: vec!["istio-peer-exchange".into(), "istio".into()],
            subject_alt_names: vec![HTTPBIN.into()],
        });
        client.apply(configure(Setup::new(vec![to(&outbound.name)], vec![outbound]), "sleep", None));
        Self { client, server }
    }

    /// Both sides' metrics, once each has what begins so.
    async fn metrics(&self, name: &str) -> String {
        let of = async |bench: &Bench| {
            until(name, || Some(bench.proxy.metrics()).filter(|metrics| metrics.contains(&format!("\n{name}{{")))).await
        };
        format!("{}\n{}", golden(&of(&self.client).await), golden(&of(&self.server).await))
    }
}

/// Type, and one series of each of Istio's metrics: labels that are equal in all of them come once.
fn golden(metrics: &str) -> String {
    let mut out = String::new();
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let types: BTreeMap<&str, &str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("istio_"))
        .collect();
    for line in metrics.lines().filter(|line| line.starts_with("istio_") && !line.starts_with("istio_build")) {
        let (name, rest) = line.split_once('{').unwrap();
        let (labels, _) = rest.rsplit_once("} ").unwrap();
        // One bucket stands for all of them.
        if labels.contains("le=\"") && !labels.ends_with("le=\"+Inf\"") {
            continue;
        }
        let labels = labels.trim_end_matches("le=\"+Inf\"").trim_end_matches(',');
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|base| types.contains_key(base));
        let kind = types[base.unwrap_or(name)];
        sets.entry(labels.to_owned()).or_default().push(format!("{} ({kind})", base.unwrap_or(name)));
    }
    for (labels, mut names) in sets {
        names.sort();
        names.dedup();
        names.iter().for_each(|name| writeln!(out, "{name}").unwrap());
        let labels = labels.strip_suffix('"').unwrap_or(&labels);
        labels.split("\",").for_each(|label| writeln!(out, "  {label}\"").unwrap());
    }
    out
}

fn label_names(golden: &str) -> BTreeSet<&str> {
    golden.lines().filter_map(|line| line.strip_prefix("  ")?.split_once('=')).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn metrics_of_http() {
    let upstream = Upstream::named("httpbin").await;
    let pair = Pair::new(UpstreamProtocol::Http1, ChainProtocol::Http, cluster("app", &[upstream.address]));
    assert_eq!(pair.client.get("/").await.status, 200);
    let metrics = pair.metrics("istio_requests_total").await;
    assert_eq!(label_names(&metrics), BTreeSet::from(DOCUMENTED));
    insta::assert_snapshot!(metrics, @r#"
    istio_request_bytes (histogram)
    istio_request_duration_milliseconds (histogram)
    istio_requests_total (counter)
    istio_response_bytes (histogram)
      connection_security_policy="unknown"
      destination_app="httpbin"
      destination_canonical_revision="v1"
      destination_canonical_service="httpbin"
      destination_cluster="Kubernetes"
      destination_principal="spiffe://cluster.local/ns/default/sa/httpbin"
      destination_service="httpbin.default.svc.cluster.local"
      destination_service_name="httpbin"
      destination_service_namespace="default"
      destination_version="v1"
      destination_workload="httpbin-v1"
      destination_workload_namespace="default"
      grpc_response_status=""
      reporter="source"
      request_protocol="http"
      response_code="200"
      response_flags="-"
      source_app="sleep"
      source_canonical_revision="v1"
      source_canonical_service="sleep"
      source_cluster="Kubernetes"
      source_principal="spiffe://cluster.local/ns/default/sa/sleep"
      source_version="v1"
      source_workload="sleep-v1"
      source_workload_namespace="default"

    istio_request_bytes (histogram)
    istio_request_duration_milliseconds (histogram)
    istio_requests_total (counter)
    istio_response_bytes (histogram)
      connection_security_policy="mutual_tls"
      destination_app="httpbin"
      destination_canonical_revision="v1"
      destination_canonical_service="httpbin"
      destination_cluster="Kubernetes"
      destination_principal="spiffe://cluster.local/ns/default/sa/httpbin"
      destination_service="httpbin.default.svc.cluster.local"
      destination_service_name="httpbin"
      destination_service_namespace="default"
      destination_version="v1"
      destination_workload="httpbin-v1"
      destination_workload_namespace="default"
      grpc_response_status=""
      reporter="destination"
      request_protocol="http"
      response_code="200"
      response_flags="-"
      source_app="sleep"
      source_canonical_revision="v1"
      source_canonical_service="sleep"
      source_cluster="Kubernetes"
      source_principal="spiffe://cluster.local/ns/default/sa/sleep"
      source_version="v1"
      source_workload="sleep-v1"
      source_workload_namespace="default"
    "#);
}

#[tokio::test]
async fn metrics_of_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut application = cluster("app", &[listener.local_addr().unwrap()]);
    application.protocol = UpstreamProtocol::Http2;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_| async {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "5".parse().unwrap());
                let data = bytes::Bytes::from_static(&[0, 0, 0, 0, 2, b'o', b'k']);
                let frames = [http_body::Frame::data(data), http_body::Frame::trailers(trailers)].map(Ok::<_, std::io::Error>);
                let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
                Ok::<_, std::convert::Infallible>(
                    Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
                )
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let pair = Pair::new(UpstreamProtocol::Http2, ChainProtocol::Http, application);
    let stream = TcpStream::connect(pair.client.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://httpbin:8000/hello.Greeter/SayHello")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "3S")
        .body(http_body_util::Full::new(bytes::Bytes::from_static(&[0, 0, 0, 0, 0])))
        .unwrap();
    read(sender.send_request(request).await.unwrap()).await;
    let metrics = pair.metrics("istio_response_messages_total").await;
    assert_eq!(label_names(&metrics), BTreeSet::from(DOCUMENTED));
    insta::assert_snapshot!(metrics, @r#"
    istio_request_bytes (histogram)
    istio_request_duration_milliseconds (histogram)
    istio_request_messages_total (counter)
    istio_requests_total (counter)
    istio_response_bytes (histogram)
    istio_response_messages_total (counter)
      connection_security_policy="unknown"
      destination_app="httpbin"
      destination_canonical_revision="v1"
      destination_canonical_service="httpbin"
      destination_cluster="Kubernetes"
      destination_principal="spiffe://cluster.local/ns/default/sa/httpbin"
      destination_service="httpbin.default.svc.cluster.local"
      destination_service_name="httpbin"
      destination_service_namespace="default"
      destination_version="v1"
      destination_workload="httpbin-v1"
      destination_workload_namespace="default"
      grpc_response_status="5"
      reporter="source"
      request_protocol="grpc"
      response_code="200"
      response_flags="-"
      source_app="sleep"
      source_canonical_revision="v1"
      source_canonical_service="sleep"
      source_cluster="Kubernetes"
      source_principal="spiffe://cluster.local/ns/default/sa/sleep"
      source_version="v1"
      source_workload="sleep-v1"
      source_workload_namespace="default"

    istio_request_bytes (histogram)
    istio_request_duration_milliseconds (histogram)
    istio_request_messages_total (counter)
    istio_requests_total (counter)
    istio_response_bytes (histogram)
    istio_response_messages_total (counter)
      connection_security_policy="mutual_tls"
      destination_app="httpbin"
      destination_canonical_revision="v1"
      destination_canonical_service="httpbin"
      destination_cluster="Kubernetes"
      destination_principal="spiffe://cluster.local/ns/default/sa/httpbin"
      destination_service="httpbin.default.svc.cluster.local"
      destination_service_name="httpbin"
      destination_service_namespace="default"
      destination_version="v1"
      destination_workload="httpbin-v1"
      destination_workload_namespace="default"
      grpc_response_status="5"
      reporter="destination"
      request_protocol="grpc"
      response_code="200"
      response_flags="-"
      source_app="sleep"
      source_canonical_revision="v1"
      source_canonical_service="sleep"
      source_cluster="Kubernetes"
      source_principal="spiffe://cluster.local/ns/default/sa/sleep"
      source_version="v1"
      source_workload="sleep-v1"
      source_workload_namespace="default"
    "#);
    let span = until("the client's span", || pair.client.spans.lock().unwrap().first().cloned()).await;
    let grpc: Vec<String> =
        span.tags.iter().filter(|(name, _)| name.starts_with("grpc.")).map(|(n, v)| format!("{n}={v}")).collect();
    insta::assert_snapshot!(grpc.join("\n"), @r"
    grpc.authority=httpbin:8000
    grpc.content_type=application/grpc
    grpc.path=/hello.Greeter/SayHello
    grpc.status_code=5
    grpc.timeout=3S
    ");
}

#[tokio::test]
async fn metrics_of_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut application = cluster("app", &[listener.local_addr().unwrap()]);
    application.protocol = UpstreamProtocol::Tcp;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let tcp = |http: HttpConnection| {
        let cluster = match http.edge {
            EdgePolicy::SidecarInbound => "inbound|80||",
            _ => "outbound|8000||httpbin.default.svc.cluster.local",
        };
        ChainProtocol::Tcp(TcpProxy {
            stat_prefix: "tcp".into(),
            clusters: vec![WeightedTcpCluster { cluster: cluster.into(), weight: 1 }],
            access: TcpAccess::default(),
            idle_timeout_ms: 0,
            origin: None,
        })
    };
    let pair = Pair::new(UpstreamProtocol::Tcp, tcp, application);
    let mut stream = TcpStream::connect(pair.client.address()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    drop(stream);
    let metrics = pair.metrics("istio_tcp_connections_closed_total").await;
    let http_only = ["grpc_response_status", "response_code"];
    let documented: BTreeSet<&str> = DOCUMENTED.into_iter().filter(|label| !http_only.contains(label)).collect();
    assert_eq!(label_names(&metrics), documented);
    insta::assert_snapshot!(metrics, @r#"
    istio_tcp_connections_closed_total (counter)
    istio_tcp_connections_opened_total (counter)
    istio_tcp_received_bytes_total (counter)
    istio_tcp_sent_bytes_total (counter)
      connection_security_policy="unknown"
      destination_app="httpbin"
      destination_canonical_revision="v1"
      destination_canonical_service="httpbin"
      destination_cluster="Kubernetes"
      destination_principal="spiffe://cluster.local/ns/default/sa/httpbin"
      destination_service="httpbin.default.svc.cluster.local"
      destination_service_name="httpbin"
      destination_service_namespace="default"
      destination_version="v1"
      destination_workload="httpbin-v1"
      destination_workload_namespace="default"
      reporter="source"
      request_protocol="tcp"
      response_flags="-"
      source_app="sleep"
      source_canonical_revision="v1"
      source_canonical_service="sleep"
      source_cluster="Kubernetes"
      source_principal="spiffe://cluster.local/ns/default/sa/sleep"
      source_version="v1"
      source_workload="sleep-v1"
      source_workload_namespace="default"

    istio_tcp_connections_closed_total (counter)
    istio_tcp_connections_opened_total (counter)
    istio_tcp_received_bytes_total (counter)
    istio_tcp_sent_bytes_total (counter)
      connection_security_policy="mutual_tls"
      destination_app="httpbin"
      destination_canonical_revision="v1"
      destination_canonical_service="httpbin"
      destination_cluster="Kubernetes"
      destination_principal="spiffe://cluster.local/ns/default/sa/httpbin"
      destination_service="httpbin.default.svc.cluster.local"
      destination_service_name="httpbin"
      destination_service_namespace="default"
      destination_version="v1"
      destination_workload="httpbin-v1"
      destination_workload_namespace="default"
      reporter="destination"
      request_protocol="tcp"
      response_flags="-"
      source_app="sleep"
      source_canonical_revision="v1"
      source_canonical_service="sleep"
      source_cluster="Kubernetes"
      source_principal="spiffe://cluster.local/ns/default/sa/sleep"
      source_version="v1"
      source_workload="sleep-v1"
      source_workload_namespace="default"
    "#);
    let mut lines = String::new();
    let duration = regex::Regex::new(r#"" 5 5 \d+ - ""#).unwrap();
    for bench in [&pair.client, &pair.server] {
        let line = masked_line(&bench.logged("|80").await, &[]);
        lines.push_str(&duration.replace(&line, "\" 5 5 DURATION - \""));
    }
    insta::assert_snapshot!(lines, @r#"
    [TIME] "- - -" 0 - - - "-" 5 5 DURATION - "-" "-" "-" "-" "ADDRESS" outbound|8000||httpbin.default.svc.cluster.local ADDRESS ADDRESS ADDRESS - -
    [TIME] "- - -" 0 - - - "-" 5 5 DURATION - "-" "-" "-" "-" "ADDRESS" inbound|80|| ADDRESS ADDRESS ADDRESS outbound_.8000_._.httpbin.default.svc.cluster.local -
    "#);
}

/// A span without what differs from run to run.
fn masked(span: &Span, addresses: &[(String, &str)]) -> String {
    let mut out = format!("{} ({:?}) of {}\n", span.name, span.kind, span.service);
    for (name, value) in &span.tags {
        let value = addresses.iter().fold(value.clone(), |value, (address, name)| value.replace(address, name));
        let value = if name == "guid:x-request-id" { "UUID".to_owned() } else { value };
        writeln!(out, "  {name}={value}").unwrap();
    }
    out
}

#[tokio::test]
async fn spans_of_a_request() {
    let upstream = Upstream::status(503).await;
    let pair = Pair::new(UpstreamProtocol::Http1, ChainProtocol::Http, cluster("app", &[upstream.address]));
    pair.client.send_body(Request::post("/orders?id=1").header("user-agent", "curl/8.11.0"), "12345").await;
    let (client, server) = (
        until("the client's span", || pair.client.spans.lock().unwrap().first().cloned()).await,
        until("the server's span", || pair.server.spans.lock().unwrap().first().cloned()).await,
    );
    assert_eq!((server.trace_id, server.parent_id), (client.trace_id, Some(client.span_id)));
    assert_eq!(client.parent_id, None);
    let addresses = [(upstream.address.to_string(), "UPSTREAM"), (pair.server.address().to_string(), "SERVER")];
    insta::assert_snapshot!(format!("{}\n{}", masked(&client, &addresses), masked(&server, &addresses)), @r"
    httpbin.default.svc.cluster.local:8000/* (Client) of sleep.default
      component=proxy
      downstream_cluster=-
      error=true
      guid:x-request-id=UUID
      http.method=POST
      http.protocol=HTTP/1.1
      http.status_code=503
      http.url=http://app/orders?id=1
      istio.canonical_revision=v1
      istio.canonical_service=sleep
      istio.cluster_id=Kubernetes
      istio.mesh_id=cluster.local
      istio.namespace=default
      node_id=sidecar~10.244.0.7~sleep-v1-abc.default~default.svc.cluster.local
      peer.address=127.0.0.1
      request_size=5
      response_flags=-
      response_size=0
      upstream_cluster=outbound|8000||httpbin.default.svc.cluster.local
      upstream_cluster.name=outbound|8000||httpbin.default.svc.cluster.local
      user_agent=curl/8.11.0

    httpbin.default.svc.cluster.local:8000/* (Server) of httpbin.default
      component=proxy
      downstream_cluster=-
      error=true
      guid:x-request-id=UUID
      http.method=POST
      http.protocol=HTTP/1.1
      http.status_code=503
      http.url=http://app/orders?id=1
      istio.canonical_revision=v1
      istio.canonical_service=httpbin
      istio.cluster_id=Kubernetes
      istio.mesh_id=cluster.local
      istio.namespace=default
      node_id=sidecar~10.244.0.7~httpbin-v1-abc.default~default.svc.cluster.local
      peer.address=127.0.0.1
      request_size=5
      response_flags=-
      response_size=0
      upstream_cluster=inbound|80||
      upstream_cluster.name=inbound|80||
      user_agent=curl/8.11.0
    ");
}

/// A log line with the places of moments, addresses and durations instead of them.
fn masked_line(line: &str, places: &[(String, &str)]) -> String {
    let line = places.iter().fold(line.to_owned(), |line, (address, name)| line.replace(address, name));
    let pattern = |pattern: &str| regex::Regex::new(pattern).unwrap();
    let line = pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z").replace_all(&line, "TIME").into_owned();
    let line = pattern(r"127\.0\.0\.\d:\d+").replace_all(&line, "ADDRESS").into_owned();
    pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}").replace_all(&line, "UUID").into_owned()
}

#[tokio::test]
async fn log_lines_of_a_request() {
    let upstream = Upstream::named("httpbin").await;
    let pair = Pair::new(UpstreamProtocol::Http1, ChainProtocol::Http, cluster("app", &[upstream.address]));
    pair.client.send_body(Request::post("/orders?id=1").header("user-agent", "curl/8.11.0"), "12345").await;
    let places = [
        (upstream.address.to_string(), "UPSTREAM"),
        (pair.server.address().to_string(), "SERVER"),
        (pair.client.address().to_string(), "CLIENT"),
    ];
    let mut lines = String::new();
    // Duration and the upstream's service time, in milliseconds.
    let durations = regex::Regex::new(r#"" 5 7 \d+ \d+ ""#).unwrap();
    for bench in [&pair.client, &pair.server] {
        let line = masked_line(&bench.logged("/orders").await, &places);
        lines.push_str(&durations.replace(&line, "\" 5 7 DURATION SERVICE-TIME \""));
    }
    insta::assert_snapshot!(lines, @r#"
    [TIME] "POST /orders?id=1 HTTP/1.1" 200 - via_upstream - "-" 5 7 DURATION SERVICE-TIME "-" "curl/8.11.0" "UUID" "app" "SERVER" outbound|8000||httpbin.default.svc.cluster.local ADDRESS CLIENT ADDRESS - default
    [TIME] "POST /orders?id=1 HTTP/1.1" 200 - via_upstream - "-" 5 7 DURATION SERVICE-TIME "-" "curl/8.11.0" "UUID" "app" "UPSTREAM" inbound|80|| ADDRESS SERVER ADDRESS outbound_.8000_._.httpbin.default.svc.cluster.local default
    "#);
}

#[tokio::test]
async fn basics_of_envoys_own_metrics() {
    let upstream = Upstream::named("httpbin").await;
    let bench = Setup::new(vec![to("c")], vec![cluster("c", &[upstream.address])]).serve();
    assert_eq!(bench.get("/").await.status, 200);
    let metrics = bench.proxy.metrics();
    let names: BTreeSet<String> = metrics
        .lines()
        .filter(|line| line.starts_with("envoy_"))
        .map(|line| {
            let (name, labels) = line.split_once('{').unwrap();
            let labels: Vec<&str> =
                labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name).collect();
            format!("{name}{{{}}}", labels.join(","))
        })
        .collect();
    insta::assert_snapshot!(names.into_iter().collect::<Vec<_>>().join("\n"), @r"
    envoy_cluster_manager_active_clusters{}
    envoy_cluster_membership_healthy{cluster_name}
    envoy_cluster_membership_total{cluster_name}
    envoy_cluster_outlier_detection_ejections_active{cluster_name}
    envoy_cluster_outlier_detection_ejections_detected_consecutive_5xx{cluster_name}
    envoy_cluster_outlier_detection_ejections_enforced_consecutive_5xx{cluster_name}
    envoy_cluster_outlier_detection_ejections_enforced_consecutive_gateway_failure{cluster_name}
    envoy_cluster_outlier_detection_ejections_enforced_consecutive_local_origin_failure{cluster_name}
    envoy_cluster_outlier_detection_ejections_enforced_total{cluster_name}
    envoy_cluster_outlier_detection_ejections_overflow{cluster_name}
    envoy_cluster_ssl_connection_error{cluster_name}
    envoy_cluster_ssl_handshake{cluster_name}
    envoy_cluster_upstream_cx_active{cluster_name}
    envoy_cluster_upstream_cx_connect_fail{cluster_name}
    envoy_cluster_upstream_cx_connect_timeout{cluster_name}
    envoy_cluster_upstream_cx_destroy{cluster_name}
    envoy_cluster_upstream_cx_http1_total{cluster_name}
    envoy_cluster_upstream_cx_http2_total{cluster_name}
    envoy_cluster_upstream_cx_idle_timeout{cluster_name}
    envoy_cluster_upstream_cx_max_requests{cluster_name}
    envoy_cluster_upstream_cx_none_healthy{cluster_name}
    envoy_cluster_upstream_cx_overflow{cluster_name}
    envoy_cluster_upstream_cx_rx_bytes_total{cluster_name}
    envoy_cluster_upstream_cx_total{cluster_name}
    envoy_cluster_upstream_cx_tx_bytes_total{cluster_name}
    envoy_cluster_upstream_rq_active{cluster_name}
    envoy_cluster_upstream_rq_cancelled{cluster_name}
    envoy_cluster_upstream_rq_completed{cluster_name}
    envoy_cluster_upstream_rq_pending_active{cluster_name}
    envoy_cluster_upstream_rq_pending_failure_eject{cluster_name}
    envoy_cluster_upstream_rq_pending_overflow{cluster_name}
    envoy_cluster_upstream_rq_pending_total{cluster_name}
    envoy_cluster_upstream_rq_per_try_timeout{cluster_name}
    envoy_cluster_upstream_rq_retry_limit_exceeded{cluster_name}
    envoy_cluster_upstream_rq_retry_overflow{cluster_name}
    envoy_cluster_upstream_rq_retry_success{cluster_name}
    envoy_cluster_upstream_rq_retry{cluster_name}
    envoy_cluster_upstream_rq_rx_reset{cluster_name}
    envoy_cluster_upstream_rq_timeout{cluster_name}
    envoy_cluster_upstream_rq_total{cluster_name}
    envoy_cluster_upstream_rq_tx_reset{cluster_name}
    envoy_cluster_upstream_rq_xx{cluster_name,response_code_class}
    envoy_http_downstream_cx_protocol_error{}
    envoy_listener_downstream_cx_active{}
    envoy_listener_downstream_cx_overflow{}
    envoy_listener_downstream_cx_total{}
    envoy_listener_manager_lds_update_rejected{}
    envoy_listener_manager_lds_update_success{}
    envoy_listener_manager_total_listeners_active{}
    envoy_listener_no_filter_chain_match{}
    envoy_listener_ssl_connection_error{}
    envoy_listener_ssl_handshake{}
    envoy_metrics_series_dropped{}
    envoy_server_live{}
    envoy_server_total_connections{}
    envoy_server_uptime{}
    envoy_tracing_spans_dropped{}
    ");
}
