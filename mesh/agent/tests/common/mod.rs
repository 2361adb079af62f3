//! A pod with an agent in it, beside the istiod and API server of [`support`].

#[path = "../../../control/tests/support/mod.rs"]
pub(crate) mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meshlab_agent::Host;
use meshlab_net::{HostOptions, Listener, Net, PodNet};
use meshlab_proxy_config::Files;
use support::{Lab, MemoryFiles};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);

/// A pod whose agent runs as service account `<app>` of namespace `default`.
pub(crate) struct Pod {
    pub(crate) app: &'static str,
    pub(crate) ip: IpAddr,
    /// The pod's network as the kubelet, a process of user 0, sees it.
    pub(crate) net: PodNet,
    files: MemoryFiles,
    output: Arc<Mutex<String>>,
    pub(crate) shutdown: CancellationToken,
    /// `/slow` has been asked of the app.
    pub(crate) arrived: Arc<Notify>,
    /// Lets the app answer it.
    pub(crate) release: Arc<Notify>,
}

impl Pod {
    /// The pod `<app>-1` at 10.244.0.`last`.
    pub(crate) fn new(lab: &Lab, app: &'static str, last: u8) -> Self {
        let ip = IpAddr::from([10, 244, 0, last]);
        let net = lab.net.attach(ip, HostOptions::pod(format!("{app}-1"), "default", "cluster.local")).unwrap();
        Self {
            app,
            ip,
            net,
            files: MemoryFiles::default(),
            output: Arc::default(),
            shutdown: CancellationToken::new(),
            arrived: Arc::default(),
            release: Arc::default(),
        }
    }

    /// What the kubelet mounts.
    pub(crate) fn mount(&self, lab: &Lab) {
        self.files.write("/var/run/secrets/istio/root-cert.pem", lab.root().as_bytes()).unwrap();
        self.files.write("/var/run/secrets/tokens/istio-token", format!("token-of:default:{}", self.app).as_bytes()).unwrap();
        self.files.write("/etc/istio/pod/labels", format!("app=\"{}\"\n", self.app).as_bytes()).unwrap();
    }

    /// Runs a command of pilot-agent in the proxy's container.
    pub(crate) fn command(&self, args: &str, more: &[(&str, &str)]) -> impl Future<Output = i32> + Send + use<> {
        let sink = self.output.clone();
        let host = Host {
            net: self.net.with_uid(1337),
            files: self.files.clone(),
            redirector: self.net.clone(),
            stdout: Arc::new(move |text: &str| sink.lock().unwrap().push_str(text)),
        };
        let (name, ip) = (format!("{}-1", self.app), self.ip.to_string());
        let own = [
            ("POD_NAME", name.as_str()),
            ("POD_NAMESPACE", "default"),
            ("SERVICE_ACCOUNT", self.app),
            ("INSTANCE_IP", ip.as_str()),
            ("PROXY_CONFIG", "{\"terminationDrainDuration\":\"250ms\"}"),
        ];
        let env: BTreeMap<_, _> = own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let args: Vec<_> = args.split(' ').map(str::to_owned).collect();
        let shutdown = self.shutdown.clone();
        async move { meshlab_agent::run(host, &env, &args, shutdown).await }
    }

    /// What the commands have printed.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Asks one of the pod's own ports, as the kubelet would.
    pub(crate) async fn get(&self, port: u16, path: &str) -> (StatusCode, String) {
        ask(&self.net, SocketAddr::new(self.ip, port), "pod", path).await
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn wait_for(&self, port: u16, path: &str, wanted: StatusCode) -> String {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.get(port, path).await;
            if status == wanted {
                return body;
            }
            assert!(tokio::time::Instant::now() < until, "{path}: {status} {body}\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An app that says what it was asked and by whom; `/broken` is answered 500, `/slow` when [`Pod::release`] is notified.
    pub(crate) async fn start_app(&self, port: u16) {
        let mut listener = self.net.listen(SocketAddr::from(([0, 0, 0, 0], port))).await.unwrap();
        let (arrived, release) = (self.arrived.clone(), self.release.clone());
        tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                let (arrived, release) = (arrived.clone(), release.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (arrived, release) = (arrived.clone(), release.clone());
                    async move {
                        let path = request.uri().path().to_owned();
                        if path == "/slow" {
                            arrived.notify_one();
                            release.notified().await;
                        }
                        let by = request.headers().get("x-forwarded-client-cert").map_or("", |value| value.to_str().unwrap());
                        let status = if path == "/broken" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                        let mut response =
                            Response::new(Full::new(Bytes::from(format!("app_asked{{path=\"{path}\"}} 1\n# {by}\n"))));
                        *response.status_mut() = status;
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
    }
}

/// One request over a connection of its own; 502 when there is no connection.
pub(crate) async fn ask(net: &PodNet, address: SocketAddr, host: &str, path: &str) -> (StatusCode, String) {
    let Ok(stream) = net.connect(address).await else { return (StatusCode::BAD_GATEWAY, "nobody listens".into()) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new()).unwrap();
    match sender.send_request(request).await {
        Ok(response) => {
            let status = response.status();
            let body = response.into_body().collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
            (status, String::from_utf8(body).unwrap())
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    }
}
