//! Agents, proxies and istiod on one virtual network.

#[path = "../../control/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
use support::{Lab, MemoryFiles, service};
use tokio_util::sync::CancellationToken;

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 20));
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod with an agent in it.
struct Pod {
    /// The pod's network as a process that is not the proxy sees it.
    net: PodNet,
    files: MemoryFiles,
    output: Arc<Mutex<String>>,
    shutdown: CancellationToken,
}

impl Pod {
    fn new(lab: &Lab) -> Self {
        let net = lab.net.attach(POD, HostOptions::pod("sleep-1", "default", "cluster.local")).unwrap();
        Self { net, files: MemoryFiles::default(), output: Arc::default(), shutdown: CancellationToken::new() }
    }

    /// What the kubelet mounts.
    fn mount(&self, lab: &Lab) {
        self.files.write("/var/run/secrets/istio/root-cert.pem", lab.root().as_bytes()).unwrap();
        self.files.write("/var/run/secrets/tokens/istio-token", b"token-of:default:sleep").unwrap();
        self.files.write("/etc/istio/pod/labels", b"app=\"sleep\"\n").unwrap();
    }

    fn command(&self, args: &str, more: &[(&str, &str)]) -> impl Future<Output = i32> + Send + use<> {
        let sink = self.output.clone();
        let host = Host {
            net: self.net.with_uid(1337),
            files: self.files.clone(),
            redirector: self.net.clone(),
            stdout: Arc::new(move |text: &str| sink.lock().unwrap().push_str(text)),
        };
        let own = [
            ("POD_NAME", "sleep-1"),
            ("POD_NAMESPACE", "default"),
            ("SERVICE_ACCOUNT", "sleep"),
            ("INSTANCE_IP", "10.244.0.20"),
            ("PROXY_CONFIG", "{\"terminationDrainDuration\":\"250ms\"}"),
        ];
        let env: BTreeMap<_, _> = own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let args: Vec<_> = args.split(' ').map(str::to_owned).collect();
        let shutdown = self.shutdown.clone();
        async move { meshlab_agent::run(host, &env, &args, shutdown).await }
    }

    fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Asks one of the pod's ports, as the kubelet would.
    async fn get(&self, port: u16, path: &str) -> (StatusCode, String) {
        let Ok(stream) = self.net.connect(SocketAddr::new(POD, port)).await else {
            return (StatusCode::BAD_GATEWAY, "nobody listens".into());
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response =
            sender.send_request(Request::get(path).header("host", "pod").body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let status = response.status();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    async fn wait_for(&self, port: u16, path: &str, wanted: StatusCode) -> String {
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

    /// An app that answers every path with its path, or 500 for `/broken`.
    async fn start_app(&self, port: u16) {
        let mut listener = self.net.listen(SocketAddr::from(([0, 0, 0, 0], port))).await.unwrap();
        tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let path = request.uri().path().to_owned();
                    let status = if path == "/broken" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                    let mut response = Response::new(Full::new(Bytes::from(format!("app_asked{{path=\"{path}\"}} 1\n"))));
                    *response.status_mut() = status;
                    Ok::<_, std::convert::Infallible>(response)
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
    }
}

#[tokio::test]
async fn a_sidecar_becomes_ready_and_drains_at_the_end() {
    let lab = Lab::new().await;
    lab.kube.apply("services", service("default", "one"));
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let pod = Pod::new(&lab);
    pod.mount(&lab);
    let agent = tokio::spawn(pod.command("proxy sidecar --domain $(POD_NAMESPACE).svc.cluster.local", &[]));
    pod.wait_for(15021, "/healthz/ready", StatusCode::OK).await;
    lab.wait_for(15014, "/debug/syncz", |page| page.contains("\"status\":\"SYNCED\"")).await;
    assert!(pod.wait_for(15090, "/stats/prometheus", StatusCode::OK).await.contains("istio_"));
    pod.shutdown.cancel();
    assert!(pod.wait_for(15021, "/healthz/ready", StatusCode::SERVICE_UNAVAILABLE).await.contains("draining"));
    assert_eq!(agent.await.unwrap(), 0, "{}", pod.output());
}

#[tokio::test]
async fn an_agent_waits_for_istiod_and_outlives_its_restart() {
    let lab = Lab::new().await;
    let istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let pod = Pod::new(&lab);
    pod.mount(&lab);
    istiod.stop().await;
    let _agent = tokio::spawn(pod.command("proxy sidecar", &[]));
    assert!(pod.wait_for(15021, "/healthz/ready", StatusCode::SERVICE_UNAVAILABLE).await.contains("proxy has no"));
    let istiod = lab.start_istiod();
    pod.wait_for(15021, "/healthz/ready", StatusCode::OK).await;
    istiod.stop().await;
    assert_eq!(pod.get(15021, "/healthz/ready").await.0, StatusCode::OK, "what it has stays in effect");
    lab.kube.apply("services", service("default", "two"));
    let _istiod = lab.start_istiod();
    lab.wait_for(15014, "/debug/syncz", |page| page.contains("SYNCED")).await;
}

#[tokio::test]
async fn certificates_are_rotated_before_they_expire() {
    let lab = Lab::new().await;
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let pod = Pod::new(&lab);
    pod.mount(&lab);
    let _agent = tokio::spawn(pod.command("proxy sidecar", &[("SECRET_TTL", "2s")]));
    let counted = "citadel_server_success_cert_issuance_count 2";
    lab.wait_for(15014, "/metrics", |page| page.contains(counted)).await;
    assert_eq!(pod.get(15021, "/healthz/ready").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_apps_probes_and_metrics_are_asked_through_the_agent() {
    let lab = Lab::new().await;
    let pod = Pod::new(&lab);
    pod.start_app(8080).await;
    let probers = r#"{"/app-health/app/readyz":{"httpGet":{"path":"/fine","port":8080}},
        "/app-health/app/livez":{"httpGet":{"path":"/broken","port":8080}},
        "/app-health/app/startupz":{"tcpSocket":{"port":8081}}}"#;
    let env =
        [("ISTIO_KUBE_APP_PROBERS", probers), ("ISTIO_PROMETHEUS_ANNOTATIONS", r#"{"scrape":"true","port":"8080","path":"/m"}"#)];
    assert_eq!(pod.command("istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020", &[]).await, 0);
    assert!(pod.net.redirect().is_some());
    let _agent = tokio::spawn(pod.command("proxy sidecar", &env));
    pod.wait_for(15020, "/app-health/app/readyz", StatusCode::OK).await;
    assert_eq!(pod.get(15020, "/app-health/app/livez").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(pod.get(15020, "/app-health/app/startupz").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(pod.get(15020, "/app-health/other/livez").await.0, StatusCode::BAD_REQUEST);
    let metrics = pod.get(15020, "/stats/prometheus").await.1;
    assert!(metrics.contains("app_asked{path=\"/m\"} 1"), "{metrics}");
}

#[tokio::test]
async fn processes_of_the_pod_can_drain_and_end_the_agent() {
    let lab = Lab::new().await;
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let pod = Pod::new(&lab);
    pod.mount(&lab);
    let agent = tokio::spawn(pod.command("proxy sidecar", &[]));
    assert_eq!(pod.command("wait", &[]).await, 0, "{}", pod.output());
    assert_eq!(pod.command("request --debug-port=15020 POST drain", &[]).await, 0);
    assert_eq!(pod.get(15021, "/healthz/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(pod.command("request --debug-port=15020 POST quitquitquit", &[]).await, 0);
    assert_eq!(agent.await.unwrap(), 0);
}

#[tokio::test]
async fn what_an_agent_cannot_do_is_said() {
    let lab = Lab::new().await;
    let pod = Pod::new(&lab);
    assert_eq!(pod.command("dance", &[]).await, 1);
    assert_eq!(pod.command("request GET", &[]).await, 1);
    assert_eq!(pod.command("istio-iptables -m TPROXY", &[]).await, 1);
    insta::assert_snapshot!(pod.output(), @r#"
    Error: unknown command "dance" for "pilot-agent"; the commands are proxy, istio-iptables, request, wait and version
    Error: usage: pilot-agent request [--debug-port=15000] <method> <path>, for example: pilot-agent request GET stats/prometheus
    Error: interception mode TPROXY is not supported; use REDIRECT, or NONE to do without
    "#);
}
