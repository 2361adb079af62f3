//! istiod on a virtual network against an API server on the wire: certificates, configuration, webhooks, restarts.

mod support;

use std::time::Duration;

use http::StatusCode;
use meshlab_proxy_config::discovery::{CertificateResponse, ControlMessage, Node, ProxyMessage, Rejection};
use serde_json::json;
use support::{Lab, service};

const SECOND: Duration = Duration::from_secs(1);

fn node(namespace: &str) -> Node {
    Node { pod: "sleep-1".into(), namespace: namespace.into(), service_account: "sleep".into(), ..Node::default() }
}

#[tokio::test]
async fn istiod_sets_up_the_mesh_and_becomes_ready() {
    let lab = Lab::new().await;
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let secret = lab.kube.get("/api/v1", "secrets", "istio-system", "istio-ca-secret").expect("the CA is kept");
    assert_eq!(secret["type"], "istio.io/ca-root");
    let map = lab.kube.wait("/api/v1", "configmaps", "default", "istio-ca-root-cert", |_| true).await;
    assert!(map["data"]["root-cert.pem"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    lab.kube.apply("namespaces", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "later" } }));
    lab.kube.wait("/api/v1", "configmaps", "later", "istio-ca-root-cert", |_| true).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let patched = |config: &serde_json::Value| config["webhooks"][0]["clientConfig"]["caBundle"].is_string();
    lab.kube.wait(group, "mutatingwebhookconfigurations", "", "istio-sidecar-injector", patched).await;
    let strict = |config: &serde_json::Value| config["webhooks"][0]["failurePolicy"] == "Fail";
    lab.kube.wait(group, "validatingwebhookconfigurations", "", "istio-validator-istio-system", strict).await;
    let metrics = lab.get(15014, "/metrics").await.1;
    assert!(metrics.contains("pilot_k8s_cfg_events{type=\"Namespace\",event=\"add\"}"), "{metrics}");
}

#[tokio::test]
async fn a_certificate_needs_a_token_and_has_its_identity() {
    let lab = Lab::new().await;
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let (status, body) = lab.ask_certificate("token-of:default:sleep").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let issued: CertificateResponse = serde_json::from_str(&body).unwrap();
    assert_eq!(support::spiffe_id(&issued.chain[0]), "spiffe://cluster.local/ns/default/sa/sleep");
    assert_eq!(issued.chain.last().unwrap(), &lab.root(), "the root comes last");
    let (status, body) = lab.ask_certificate("stolen").await;
    assert_eq!((status, body.as_str()), (StatusCode::UNAUTHORIZED, "token is not authenticated: invalid bearer token"));
}

#[tokio::test]
async fn a_proxy_gets_all_once_and_then_what_changed() {
    let lab = Lab::new().await;
    lab.kube.apply("services", service("default", "one"));
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let mut proxy = lab.connect(node("default"), "token-of:default:sleep").await;
    let first = proxy.update().await;
    assert!(first.complete);
    let names: Vec<_> = first.clusters.set.keys().filter(|name| name.contains("one.default")).collect();
    assert_eq!(names, ["outbound|80||one.default.svc.cluster.local"]);
    proxy.send(&ProxyMessage::Ack { version: first.version }).await;

    lab.kube.apply("services", service("default", "two"));
    let second = tokio::time::timeout(SECOND, proxy.update()).await.expect("within a second");
    assert!(!second.complete && second.version > first.version);
    assert!(second.clusters.set.keys().all(|name| name.contains("two.default")), "{:?}", second.clusters.set.keys());
    let rejected = vec![Rejection { resource: "cluster x".into(), message: "no".into() }];
    proxy.send(&ProxyMessage::Nack { version: second.version, rejected }).await;
    let synced = lab.wait_for(15014, "/debug/syncz", |page| page.contains("ERROR")).await;
    assert!(synced.contains("\"proxy\":\"sleep-1.default\"") && synced.contains("cluster x"), "{synced}");
}

#[tokio::test]
async fn a_proxy_cannot_have_the_configuration_of_another_namespace() {
    let lab = Lab::new().await;
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let mut proxy = lab.connect(node("kube-system"), "token-of:default:sleep").await;
    assert!(proxy.next().await.is_none(), "the stream is closed without a word");
}

#[tokio::test]
async fn a_restarted_istiod_goes_on_with_the_same_root() {
    let lab = Lab::new().await;
    let istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let root = lab.root();
    let mut proxy = lab.connect(node("default"), "token-of:default:sleep").await;
    assert!(matches!(proxy.next().await, Some(ControlMessage::Update(_))));
    istiod.stop().await;
    let _again = lab.start_istiod();
    lab.wait_until_ready().await;
    assert_eq!(lab.root(), root);
    let mut proxy = lab.connect(node("default"), "token-of:default:sleep").await;
    assert!(proxy.update().await.complete);
}

#[tokio::test]
async fn an_invalid_resource_says_so_in_its_status() {
    let lab = Lab::new().await;
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let filter = json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": { "name": "f", "namespace": "default", "generation": 1 }, "spec": {},
    });
    lab.kube.apply("envoyfilters", filter);
    let said = |object: &serde_json::Value| object["status"]["conditions"][0]["reason"] == "NoEffect";
    lab.kube.wait("/apis/networking.istio.io/v1alpha3", "envoyfilters", "default", "f", said).await;
}

#[tokio::test]
async fn what_is_missing_is_said_at_the_start() {
    let lab = Lab::new().await;
    let error = lab.run_istiod_without_token().await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot read /var/run/secrets/kubernetes.io/serviceaccount/ca.crt: entity not found; istiod needs a service account's token and CA certificate");
}
