//! A small cluster for tests: a virtual network, an API server, an istiod pod and whoever asks it.

#![expect(dead_code, reason = "no test uses all of it; the tests of the agent use it too")]

pub(crate) mod fake_kube;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use fake_kube::FakeKube;
use http::{Request, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_control::ControlError;
use meshlab_net::{HostOptions, Net, PodNet, Record, VirtualNet, VirtualNetOptions};
use meshlab_proxy_config::discovery::{
    CERTIFICATE_PATH, CertificateRequest, ControlMessage, MessageReader, Node, ProxyMessage, STREAM_PATH, Update, encode_message,
};
use meshlab_proxy_config::{Files, Log};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where istiod's pod is.
pub(crate) const ISTIOD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 10));
const API_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2));
const NAME: &str = "istiod.istio-system.svc";

/// Files in memory.
#[derive(Clone, Default)]
pub(crate) struct MemoryFiles(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.0.lock().unwrap().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().insert(path.to_owned(), content.to_vec());
        Ok(())
    }
}

pub(crate) struct Lab {
    pub(crate) net: VirtualNet,
    pub(crate) kube: FakeKube,
    istiod: PodNet,
    client: PodNet,
    logs: Arc<Mutex<Vec<String>>>,
}

/// A running istiod.
pub(crate) struct Istiod {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), ControlError>>,
}

impl Istiod {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let net = VirtualNet::new(VirtualNetOptions::default());
        let pod =
            |ip: IpAddr, name: &str, namespace: &str| net.attach(ip, HostOptions::pod(name, namespace, "cluster.local")).unwrap();
        let kube = FakeKube::start(pod(API_SERVER, "kube", "kube-system"), API_SERVER).await;
        let istiod = pod(ISTIOD, "istiod", "istio-system");
        let client = pod(IpAddr::V4(Ipv4Addr::new(10, 244, 0, 99)), "client", "default");
        net.upsert_record("istiod.istio-system.svc.cluster.local", Record::Addresses(vec![ISTIOD]));
        for namespace in ["default", "istio-system", "kube-system"] {
            kube.apply("namespaces", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
        }
        let webhook = |kind: &str, name: &str, webhook: &str| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": { "name": name, "labels": { "istio.io/rev": "default" } },
                "webhooks": [{ "name": webhook, "clientConfig": {}, "failurePolicy": "Ignore" }],
            })
        };
        let mutating = webhook("MutatingWebhookConfiguration", "istio-sidecar-injector", "namespace.sidecar-injector.istio.io");
        kube.apply("mutatingwebhookconfigurations", mutating);
        let validating = webhook("ValidatingWebhookConfiguration", "istio-validator-istio-system", "rev.validation.istio.io");
        kube.apply("validatingwebhookconfigurations", validating);
        Self { net, kube, istiod, client, logs: Arc::default() }
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let port = self.kube.address.port().to_string();
        let pairs = [
            ("KUBERNETES_SERVICE_HOST", API_SERVER.to_string()),
            ("KUBERNETES_SERVICE_PORT", port),
            ("POD_NAMESPACE", "istio-system".into()),
            ("POD_NAME", "istiod-1".into()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn log(&self) -> Log {
        let logs = self.logs.clone();
        Log::new(move |line| logs.lock().unwrap().push(line.to_owned()))
    }

    pub(crate) fn start_istiod(&self) -> Istiod {
        let files = MemoryFiles::default();
        let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
        files.write(&format!("{folder}/ca.crt"), self.kube.ca.as_bytes()).unwrap();
        files.write(&format!("{folder}/token"), b"token-of:istio-system:istiod").unwrap();
        files.write(&format!("{folder}/namespace"), b"istio-system").unwrap();
        let shutdown = CancellationToken::new();
        let (net, env, log, token) = (self.istiod.clone(), self.environment(), self.log(), shutdown.clone());
        let task =
            tokio::spawn(async move { meshlab_control::run(net, files, &env, &["discovery".to_owned()], log, token).await });
        Istiod { shutdown, task }
    }

    pub(crate) async fn run_istiod_without_token(&self) -> Result<(), ControlError> {
        let (net, env) = (self.istiod.clone(), self.environment());
        meshlab_control::run(net, MemoryFiles::default(), &env, &[], self.log(), CancellationToken::new()).await
    }

    pub(crate) async fn wait_until_ready(&self) {
        self.wait_for(8080, "/ready", |_| true).await;
    }

    /// Asks again until the page answers 200 and `test` holds.
    pub(crate) async fn wait_for(&self, port: u16, path: &str, test: impl Fn(&str) -> bool) -> String {
        let patience = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let (status, page) = self.get(port, path).await;
            if status == StatusCode::OK && test(&page) {
                return page;
            }
            assert!(tokio::time::Instant::now() < patience, "{path}: {status} {page}\n{}", self.logs.lock().unwrap().concat());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks a page of istiod; 503 while nobody listens.
    pub(crate) async fn get(&self, port: u16, path: &str) -> (StatusCode, String) {
        let Ok(stream) = self.client.connect(SocketAddr::new(ISTIOD, port)).await else {
            return (StatusCode::SERVICE_UNAVAILABLE, String::new());
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header(header::HOST, NAME).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    /// The mesh's root certificate.
    pub(crate) fn root(&self) -> String {
        let secret = self.kube.get("/api/v1", "secrets", "istio-system", "istio-ca-secret").unwrap();
        let root = base64::engine::general_purpose::STANDARD.decode(secret["data"]["root-cert.pem"].as_str().unwrap()).unwrap();
        String::from_utf8(root).unwrap()
    }

    async fn secure(&self) -> hyper::client::conn::http2::SendRequest<UnsyncBoxBody<Bytes, Infallible>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.root().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = self.client.connect(SocketAddr::new(ISTIOD, 15012)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn request(path: &str, token: &str, body: UnsyncBoxBody<Bytes, Infallible>) -> Request<UnsyncBoxBody<Bytes, Infallible>> {
        let request = Request::post(format!("https://{NAME}{path}")).header(header::AUTHORIZATION, format!("Bearer {token}"));
        request.body(body).unwrap()
    }

    pub(crate) async fn ask_certificate(&self, token: &str) -> (StatusCode, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let body = Full::from(encode_message(&CertificateRequest { csr, validity_s: 0 })).boxed_unsync();
        let response = self.secure().await.send_request(Self::request(CERTIFICATE_PATH, token, body)).await.unwrap();
        let status = response.status();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    /// Opens a configuration stream and says hello.
    pub(crate) async fn connect(&self, node: Node, token: &str) -> Proxy {
        let (outgoing, receiver) = mpsc::channel(8);
        let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)).boxed_unsync();
        let mut sender = self.secure().await;
        let response = sender.send_request(Self::request(STREAM_PATH, token, body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let proxy = Proxy { outgoing, incoming: response.into_body(), reader: MessageReader::default(), ready: Vec::new() };
        proxy.send(&ProxyMessage::Hello(Box::new(node))).await;
        proxy
    }
}

/// A proxy's end of a configuration stream.
pub(crate) struct Proxy {
    outgoing: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    incoming: Incoming,
    reader: MessageReader<ControlMessage>,
    ready: Vec<ControlMessage>,
}

impl Proxy {
    pub(crate) async fn send(&self, message: &ProxyMessage) {
        self.outgoing.send(Ok(Frame::data(encode_message(message).into()))).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<ControlMessage> {
        while self.ready.is_empty() {
            let data = self.incoming.frame().await?.ok()?.into_data().unwrap_or_default();
            self.ready.extend(self.reader.push(&data).unwrap());
        }
        Some(self.ready.remove(0))
    }

    pub(crate) async fn update(&mut self) -> Update {
        let ControlMessage::Update(update) = self.next().await.expect("an update");
        *update
    }
}

pub(crate) fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": namespace },
        "spec": { "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] },
    })
}

pub(crate) fn spiffe_id(pem: &str) -> String {
    let pem = x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    match &names[0] {
        x509_parser::extensions::GeneralName::URI(uri) => (*uri).to_owned(),
        other => panic!("no URI: {other}"),
    }
}
