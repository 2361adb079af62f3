//! A proxy under test with what is around it: configuration, upstreams, clients, a certificate authority.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use meshlab_net::OsNet;
use meshlab_proxy::{Proxy, ProxyOptions, Span, WorkloadIdentity};
use meshlab_proxy_config::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as an upstream saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Behaviour = Arc<dyn Fn(Seen, usize) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync>;

/// An HTTP server that remembers what it was asked. It ends with the test.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers 200 with its name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::with(move |_, _| Box::pin(async move { text(200, name) })).await
    }

    /// Answers with this status.
    pub(crate) async fn status(status: u16) -> Self {
        Self::with(move |_, _| Box::pin(async move { text(status, "") })).await
    }

    /// Answers as the function says, which is told the number of the request.
    pub(crate) async fn with(
        answer: impl Fn(Seen, usize) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync + 'static,
    ) -> Self {
        let behaviour: Behaviour = Arc::new(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), seen: Arc::default(), connections: Arc::default() };
        let (seen, connections) = (upstream.seen.clone(), upstream.connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, behaviour) = (seen.clone(), behaviour.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (seen, behaviour) = (seen.clone(), behaviour.clone());
                        async move {
                            let request = record(request).await;
                            let number = {
                                let mut seen = seen.lock().unwrap();
                                seen.push(request.clone());
                                seen.len()
                            };
                            Ok::<_, Infallible>(behaviour(request, number).await)
                        }
                    });
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        upstream
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().expect("the upstream was asked")
    }
}

async fn record(request: Request<Incoming>) -> Seen {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Seen {
        host: host.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default(),
        method: parts.method,
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

pub(crate) fn text(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// An address where nobody listens.
pub(crate) async fn refused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A proxy under test.
pub(crate) struct Bench {
    pub(crate) proxy: Proxy<OsNet>,
    pub(crate) logs: Arc<Mutex<Vec<String>>>,
    pub(crate) spans: Arc<Mutex<Vec<Span>>>,
}

impl Bench {
    pub(crate) fn start() -> Self {
        Self::with(ProxyOptions { admin_address: None, ..ProxyOptions::default() })
    }

    pub(crate) fn with(options: ProxyOptions) -> Self {
        let logs: Arc<Mutex<Vec<String>>> = Arc::default();
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let (log, span) = (logs.clone(), spans.clone());
        let options = ProxyOptions {
            access_log: Arc::new(move |line: &str| log.lock().unwrap().push(line.to_owned())),
            span_sink: Some(Arc::new(move |finished: &Span| span.lock().unwrap().push(finished.clone()))),
            ..options
        };
        Self { proxy: Proxy::start(OsNet, options), logs, spans }
    }

    /// A proxy with one listener.
    pub(crate) fn serving(config: ProxyConfig) -> Self {
        let bench = Self::start();
        bench.apply(config);
        bench
    }

    pub(crate) fn apply(&self, config: ProxyConfig) {
        self.proxy.apply(Arc::new(config)).expect("the configuration is good");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.bound_address("l").expect("the listener is bound")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path)).await
    }

    /// Sends a request on a connection of its own; the host is `app` unless it has one.
    pub(crate) async fn send(&self, request: http::request::Builder) -> Answer {
        self.send_body(request, "").await
    }

    pub(crate) async fn send_body(&self, request: http::request::Builder, body: &'static str) -> Answer {
        let mut request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        request.headers_mut().entry("host").or_insert(http::HeaderValue::from_static("app"));
        exchange(TcpStream::connect(self.address()).await.unwrap(), request).await
    }

    /// Waits until a line that has `part` was logged, and gives it.
    pub(crate) async fn logged(&self, part: &str) -> String {
        until(&format!("a log line with {part:?}"), || self.logs.lock().unwrap().iter().find(|line| line.contains(part)).cloned())
            .await
    }

    /// The value of a statistic of `/stats`.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let stats = self.proxy.stats();
        let line = stats.lines().find(|line| line.split(": ").next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no statistic {name} in {stats}"))
    }
}

/// Waits for a condition, for at most five seconds.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// One HTTP/1.1 exchange on a stream.
pub(crate) async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("a response");
    let answer = read(response).await;
    connection.abort();
    answer
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.expect("a whole body");
    let trailers = collected.trailers().cloned();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&collected.to_bytes()).into_owned(),
        trailers,
    }
}

/// Sends bytes as they are and reads what comes back until the proxy closes, or has sent a whole head and nothing more for a while.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut out = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let patience = Duration::from_millis(if out.is_empty() { 3000 } else { 150 });
        match tokio::time::timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) | Err(_) => return String::from_utf8_lossy(&out).into_owned(),
            Ok(Ok(read)) => out.extend_from_slice(&buffer[..read]),
        }
    }
}

/// A certificate authority of a mesh.
pub(crate) struct Mesh {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn roots(&self) -> String {
        self.ca.pem()
    }

    pub(crate) fn identity(&self, spiffe_id: &str) -> WorkloadIdentity {
        let (certificate_chain, private_key) = self.issue(SanType::URI(spiffe_id.try_into().unwrap()));
        WorkloadIdentity { certificate_chain, private_key, roots: self.ca.pem(), spiffe_id: spiffe_id.to_owned() }
    }

    /// PEM of a certificate and its key.
    pub(crate) fn issue(&self, name: SanType) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

pub(crate) fn origin(kind: &str, name: &str) -> Origin {
    Origin { kind: kind.into(), namespace: "default".into(), name: name.into(), path: String::new() }
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { address, weight: 1, priority: 0, metadata: EndpointMetadata::default() }
}

pub(crate) fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    Cluster {
        name: name.into(),
        discovery: Discovery::Static(Endpoints { endpoints: addresses.iter().copied().map(endpoint).collect() }),
        load_balancer: LoadBalancer::LeastRequest { warmup_ms: 0 },
        connect_timeout_ms: 10_000,
        protocol: UpstreamProtocol::Http1,
        tls: UpstreamTls::Disable,
        circuit_breaker: CircuitBreaker::default(),
        outlier_detection: None,
        max_requests_per_connection: 0,
        idle_timeout_ms: 0,
        tcp_keepalive: None,
        proxy_protocol: None,
        service: ServiceIdentity {
            host: format!("{name}.default.svc.cluster.local"),
            name: name.into(),
            namespace: "default".into(),
        },
        origins: vec![origin("Service", name)],
    }
}

pub(crate) fn destination(cluster: &str, weight: u32) -> Destination {
    Destination {
        cluster: cluster.into(),
        weight,
        request_headers: HeaderOperations::default(),
        response_headers: HeaderOperations::default(),
        authority_rewrite: None,
    }
}

pub(crate) fn forward(cluster: &str) -> Forward {
    Forward {
        destinations: vec![destination(cluster, 1)],
        rewrite: None,
        authority_rewrite: None,
        timeout_ms: 0,
        retry: None,
        mirrors: Vec::new(),
        hash_policy: Vec::new(),
        upgrades: vec!["websocket".into()],
    }
}

pub(crate) fn any_path() -> RouteMatch {
    path(PathMatch::Prefix("/".into()))
}

pub(crate) fn path(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ignore_path_case: false, headers: Vec::new(), query: Vec::new(), claims: Vec::new() }
}

pub(crate) fn route(name: &str, matches: RouteMatch, action: RouteAction) -> Route {
    Route {
        name: name.into(),
        matches,
        action,
        request_headers: HeaderOperations::default(),
        response_headers: HeaderOperations::default(),
        fault: None,
        cors: None,
        operation: String::new(),
        origin: Some(origin("VirtualService", name)),
    }
}

pub(crate) fn to(cluster: &str) -> Route {
    route("default", any_path(), RouteAction::Forward(Box::new(forward(cluster))))
}

pub(crate) fn forwarding(change: impl FnOnce(&mut Forward)) -> Route {
    let mut action = forward("c");
    change(&mut action);
    route("default", any_path(), RouteAction::Forward(Box::new(action)))
}

pub(crate) fn virtual_host(name: &str, domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes,
        require_tls: false,
    }
}

pub(crate) fn http_connection() -> HttpConnection {
    HttpConnection {
        route_config: "r".into(),
        stat_prefix: "test".into(),
        edge: EdgePolicy::SidecarOutbound,
        access: HttpAccess::default(),
        stream_idle_timeout_ms: 0,
        path_normalization: PathNormalization::Base,
    }
}

pub(crate) fn chain(name: &str, protocol: ChainProtocol) -> FilterChain {
    FilterChain { name: name.into(), matches: FilterChainMatch::default(), tls: None, protocol }
}

pub(crate) fn listener(direction: Direction, chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: "l".into(),
        address: "127.0.0.1:0".parse().unwrap(),
        bind: true,
        use_original_destination: false,
        direction,
        filter_chains: chains,
        default_filter_chain: None,
    }
}

/// A configuration of one listener `l`, one route table `r`, and clusters.
pub(crate) struct Setup {
    pub(crate) direction: Direction,
    pub(crate) http: HttpConnection,
    pub(crate) hosts: Vec<VirtualHost>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) telemetry: TelemetryConfig,
}

impl Setup {
    pub(crate) fn new(routes: Vec<Route>, clusters: Vec<Cluster>) -> Self {
        Self {
            direction: Direction::Outbound,
            http: http_connection(),
            hosts: vec![virtual_host("app", &["*"], routes)],
            clusters,
            telemetry: TelemetryConfig {
                access_logs: vec![AccessLog { format: LogFormat::Text(ISTIO_LOG.into()), filter: None, client: None }],
                ..TelemetryConfig::default()
            },
        }
    }

    /// Everything goes to one upstream.
    pub(crate) fn to(upstream: SocketAddr) -> Self {
        Self::new(vec![to("c")], vec![cluster("c", &[upstream])])
    }

    pub(crate) fn inbound(mut self) -> Self {
        self.direction = Direction::Inbound;
        self.http.edge = EdgePolicy::SidecarInbound;
        self
    }

    pub(crate) fn gateway(mut self) -> Self {
        self.direction = Direction::Gateway;
        self.http.edge = EdgePolicy::Gateway { trusted_proxies: 0 };
        self
    }

    pub(crate) fn build(self) -> ProxyConfig {
        let listener = listener(self.direction, vec![chain("http", ChainProtocol::Http(self.http))]);
        let virtual_hosts = self.hosts.into_iter().map(Arc::new).collect();
        let routes = RouteConfiguration { name: "r".into(), virtual_hosts, ignore_port_in_host: true };
        ProxyConfig {
            listeners: BTreeMap::from([("l".to_owned(), Arc::new(listener))]),
            routes: BTreeMap::from([("r".to_owned(), Arc::new(routes))]),
            clusters: self.clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster))).collect(),
            telemetry: Arc::new(self.telemetry),
            ..ProxyConfig::default()
        }
    }

    pub(crate) fn serve(self) -> Bench {
        Bench::serving(self.build())
    }
}

/// Istio's default access log format.
pub(crate) const ISTIO_LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
