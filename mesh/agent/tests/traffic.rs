//! Requests between two apps whose pods have sidecars.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::support::Lab;
use common::{Pod, ask};
use http::StatusCode;
use meshlab_net::{PodNet, Record, ServicePort};
use serde_json::{Value, json};

/// The user that apps run as.
const APP: u32 = 1000;
const SERVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 30));

/// `sleep` calls `web` at `http://web/`; both pods have sidecars.
struct Mesh {
    lab: Lab,
    web: Pod,
    sleep: Pod,
}

impl Mesh {
    async fn start() -> Self {
        let lab = Lab::new().await;
        let (web, sleep) = (Pod::new(&lab, "web", 31), Pod::new(&lab, "sleep", 32));
        for pod in [&web, &sleep] {
            lab.kube.apply("pods", pod_object(pod));
        }
        let port = json!({ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" });
        lab.kube.apply(
            "services",
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
                "spec": { "clusterIP": SERVICE, "clusterIPs": [SERVICE], "selector": { "app": "web" }, "ports": [port] },
            }),
        );
        lab.kube.apply(
            "endpointslices",
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" } },
                "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
                "endpoints": [{
                    "addresses": [web.ip], "conditions": { "ready": true },
                    "targetRef": { "kind": "Pod", "name": "web-1", "namespace": "default" },
                }],
            }),
        );
        let endpoint = SocketAddr::new(web.ip, 8080);
        lab.net.upsert_service("default/web", vec![ServicePort::new(SocketAddr::new(SERVICE, 80), vec![endpoint])]);
        lab.net.upsert_record("web.default.svc.cluster.local", Record::Addresses(vec![SERVICE]));
        Self { lab, web, sleep }
    }

    /// Redirects the pods' traffic and starts their agents.
    async fn inject(&self) {
        let flags = "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020";
        self.web.start_app(8080).await;
        for pod in [&self.web, &self.sleep] {
            pod.mount(&self.lab);
            assert_eq!(pod.command(flags, &[]).await, 0);
            tokio::spawn(pod.command("proxy sidecar", &[]));
        }
        for pod in [&self.web, &self.sleep] {
            pod.wait_for(15021, "/healthz/ready", StatusCode::OK).await;
        }
    }

    /// The network as the app `sleep` sees it.
    fn client(&self) -> PodNet {
        self.sleep.net.with_uid(APP)
    }

    /// One request of `sleep` to `http://web/`.
    async fn request(&self) -> (StatusCode, String) {
        ask(&self.client(), SocketAddr::new(SERVICE, 80), "web", "/").await
    }

    /// Applies a resource and measures how long requests go on to be answered as before.
    async fn apply_and_wait(&self, plural: &str, object: Value, wanted: StatusCode) -> Duration {
        self.lab.kube.apply(plural, object);
        let applied = Instant::now();
        while self.request().await.0 != wanted {
            assert!(applied.elapsed() < Duration::from_secs(5), "never answered {wanted}: {}", self.sleep.output());
        }
        applied.elapsed()
    }
}

fn pod_object(pod: &Pod) -> Value {
    let app = pod.app;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{app}-1"), "namespace": "default",
            "labels": { "app": app, "security.istio.io/tlsMode": "istio", "service.istio.io/canonical-name": app },
        },
        "spec": {
            "serviceAccountName": app, "nodeName": "node-1",
            "containers": [{ "name": app, "ports": [{ "containerPort": 8080 }] }, { "name": "istio-proxy" }],
        },
        "status": { "podIP": pod.ip, "phase": "Running" },
    })
}

fn abort_all() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "hosts": ["web"], "http": [{
            "fault": { "abort": { "httpStatus": 418, "percentage": { "value": 100 } } },
            "route": [{ "destination": { "host": "web" } }],
        }] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_between_sidecars_are_mutually_authenticated() {
    let mesh = Mesh::start().await;
    let _istiod = mesh.lab.start_istiod();
    mesh.lab.wait_until_ready().await;
    mesh.inject().await;
    let (status, body) = mesh.request().await;
    assert_eq!(status, StatusCode::OK, "{body}\n{}\n{}", mesh.sleep.output(), mesh.web.output());
    assert!(body.contains("URI=spiffe://cluster.local/ns/default/sa/sleep"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_in_effect_soon_after_it_is_applied() {
    let mesh = Mesh::start().await;
    let _istiod = mesh.lab.start_istiod();
    mesh.lab.wait_until_ready().await;
    mesh.inject().await;
    assert_eq!(mesh.request().await.0, StatusCode::OK);
    let teapot = StatusCode::IM_A_TEAPOT;
    let took = mesh.apply_and_wait("virtualservices", abort_all(), teapot).await;
    // The promise is 100 ms for a release build; a test machine that does other things gets ten times that.
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarting_istiod_drops_no_request() {
    let mesh = Mesh::start().await;
    let istiod = mesh.lab.start_istiod();
    mesh.lab.wait_until_ready().await;
    mesh.inject().await;
    let requests = async {
        for _ in 0..100 {
            let (status, body) = mesh.request().await;
            assert_eq!(status, StatusCode::OK, "{body}");
        }
    };
    let restart = async {
        istiod.stop().await;
        mesh.lab.start_istiod()
    };
    let ((), _istiod) = tokio::join!(requests, restart);
    mesh.lab.wait_until_ready().await;
    mesh.lab.wait_for(15014, "/debug/syncz", |page| page.matches("SYNCED").count() == 2).await;
    mesh.apply_and_wait("virtualservices", abort_all(), StatusCode::IM_A_TEAPOT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_pod_finishes_what_it_serves() {
    let mesh = Mesh::start().await;
    let _istiod = mesh.lab.start_istiod();
    mesh.lab.wait_until_ready().await;
    mesh.inject().await;
    let client = mesh.client();
    let slow = tokio::spawn(async move { ask(&client, SocketAddr::new(SERVICE, 80), "web", "/slow").await });
    mesh.web.arrived.notified().await;
    mesh.web.shutdown.cancel();
    mesh.web.wait_for(15021, "/healthz/ready", StatusCode::SERVICE_UNAVAILABLE).await;
    mesh.web.release.notify_one();
    let (status, body) = slow.await.unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
}
