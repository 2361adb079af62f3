//! Admission webhooks on the cluster's network.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use meshlab_apiserver::{ApiServerOptions, UserInfo};
use meshlab_net::{HostOptions, Listener, Net, ServicePort, VirtualNet, VirtualNetOptions};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::Cluster;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

/// What a webhook was asked, and how it answers.
struct Webhook {
    reviews: Mutex<Vec<Value>>,
    answer: fn(&Value) -> Value,
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string())})
}

/// A certificate for a name, and what serves with it.
fn identity(name: &str) -> (String, tokio_rustls::TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.into()]).unwrap().self_signed(&key).unwrap().pem();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    (certificate, tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}

/// Serves HTTPS in a pod of its own behind the Service `default/hook`; returns its certificate.
async fn serve(network: &VirtualNet, webhook: Arc<Webhook>) -> String {
    let (certificate, acceptor) = identity("hook.default.svc");
    let address = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 9));
    let pod = network.attach(address, HostOptions::pod("hook", "default", "cluster.local")).unwrap();
    let mut listener = pod.listen(SocketAddr::new(address, 8443)).await.unwrap();
    let service = SocketAddr::from(([10, 96, 7, 7], 443));
    network.upsert_service("default/hook", vec![ServicePort::new(service, vec![SocketAddr::new(address, 8443)])]);
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            tokio::spawn(answer(acceptor.clone(), stream, webhook.clone()));
        }
    });
    certificate
}

/// Answers the requests of one connection.
async fn answer(
    acceptor: tokio_rustls::TlsAcceptor,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    webhook: Arc<Webhook>,
) {
    // A client that does not trust the certificate goes away.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: http::Request<Incoming>| {
        let webhook = webhook.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let review: Value = serde_json::from_slice(&body).unwrap();
            let mut response = (webhook.answer)(&review["request"]);
            response["uid"] = review["request"]["uid"].clone();
            webhook.reviews.lock().await.push(review);
            let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(answer.to_string()))))
        }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
}

struct Scene {
    cluster: Cluster,
    webhook: Arc<Webhook>,
    certificate: String,
}

impl Scene {
    async fn new(answer: fn(&Value) -> Value) -> Self {
        let network = VirtualNet::new(VirtualNetOptions::default());
        let webhook = Arc::new(Webhook { reviews: Mutex::default(), answer });
        let certificate = serve(&network, webhook.clone()).await;
        let cluster = Cluster::start_with(ApiServerOptions::new(network)).await;
        let service =
            "apiVersion: v1\nkind: Service\nmetadata: {name: hook}\nspec: {clusterIP: 10.96.7.7, ports: [{port: 443}]}\n";
        cluster.apply(service).await;
        Self { cluster, webhook, certificate }
    }

    /// Registers the webhook for ConfigMaps.
    async fn register(&self, kind: &str, more: Value) {
        let mut webhook = json!({
            "name": "hook.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {
                "service": {"namespace": "default", "name": "hook", "path": "/admit"},
                "caBundle": BASE64_STANDARD.encode(&self.certificate),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
        });
        for (name, value) in more.as_object().unwrap() {
            webhook[name] = value.clone();
        }
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "hook"}, "webhooks": [webhook],
        });
        self.cluster.apply(&configuration.to_string()).await;
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::default_namespaced(self.cluster.server.client(UserInfo::admin()))
    }

    async fn create(&self, name: &str) -> Result<ConfigMap, String> {
        self.create_labelled(name, json!({})).await
    }

    async fn create_labelled(&self, name: &str, labels: Value) -> Result<ConfigMap, String> {
        let map =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "data": {"from": "client"}})).unwrap();
        self.maps().create(&PostParams::default(), &map).await.map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        })
    }
}

#[tokio::test]
async fn a_mutating_webhook_changes_what_is_stored() {
    let scene = Scene::new(|_| patch(json!([{"op": "add", "path": "/data/from", "value": "webhook"}]))).await;
    scene.register("MutatingWebhookConfiguration", json!({})).await;
    let created = scene.create("one").await.unwrap();
    assert_eq!(created.data.unwrap()["from"], "webhook");
    let reviews = scene.webhook.reviews.lock().await;
    let request = &reviews[0]["request"];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["object"]["data"]["from"], "client");
    assert_eq!(request["oldObject"], Value::Null);
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(request["namespace"], "default");
}

#[tokio::test]
async fn a_denial_is_told_in_the_words_of_the_webhook() {
    let scene = Scene::new(|request| match request["operation"].as_str() {
        Some("DELETE") => json!({"allowed": false}),
        _ if request["name"] == "bad" => json!({"allowed": false, "status": {"message": "no bad ones", "code": 400}}),
        _ => json!({"allowed": true, "warnings": ["mind the gap"]}),
    })
    .await;
    scene.register("ValidatingWebhookConfiguration", json!({})).await;
    let denied = scene.create("bad").await.unwrap_err();
    assert_eq!(denied, "admission webhook \"hook.example.com\" denied the request: no bad ones");
    scene.create("good").await.unwrap();
    let denied = scene.maps().delete("good", &DeleteParams::default()).await.unwrap_err().to_string();
    assert!(denied.contains("admission webhook \"hook.example.com\" denied the request without explanation"), "{denied}");
    let warned = scene.cluster.kubectl(&["create", "configmap", "warned"]).await;
    assert_eq!(warned, "configmap/warned created\nWarning: mind the gap\n");
}

#[tokio::test]
async fn selectors_and_conditions_decide_who_is_asked() {
    let scene = Scene::new(|_| json!({"allowed": false})).await;
    let kind = "ValidatingWebhookConfiguration";
    let asked = async |more: Value, labels: Value| {
        scene.register(kind, more).await;
        let result = scene.create_labelled("probe", labels).await.is_err();
        if !result {
            scene.cluster.kubectl(&["delete", "validatingwebhookconfigurations", "hook"]).await;
            scene.cluster.kubectl(&["delete", "configmap", "probe"]).await;
        }
        result
    };
    let selector = |key: &str| json!({"matchLabels": {key: "yes"}});
    assert!(asked(json!({"objectSelector": selector("ask")}), json!({"ask": "yes"})).await);
    assert!(!asked(json!({"objectSelector": selector("ask")}), json!({"ask": "no"})).await);
    assert!(!asked(json!({"objectSelector": {}, "namespaceSelector": selector("ask")}), json!({})).await);
    let condition = |expression: &str| json!({"objectSelector": {}, "namespaceSelector": {}, "matchConditions": [{"name": "c", "expression": expression}]});
    assert!(asked(condition("object.metadata.name == 'probe'"), json!({})).await);
    assert!(!asked(condition("request.userInfo.username != 'kubernetes-admin'"), json!({})).await);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_fails_or_is_ignored() {
    let scene = Scene::new(|_| json!({"allowed": true})).await;
    scene.register("ValidatingWebhookConfiguration", json!({"timeoutSeconds": 1})).await;
    scene.cluster.server.client(UserInfo::admin());
    scene.cluster.kubectl(&["delete", "service", "hook"]).await;
    let failed = scene.create("one").await.unwrap_err();
    let expected = "Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: service \"hook\" not found";
    assert_eq!(failed, expected);
    scene.register("ValidatingWebhookConfiguration", json!({"failurePolicy": "Ignore"})).await;
    scene.create("one").await.unwrap();
}

#[tokio::test]
async fn a_webhook_is_told_of_a_dry_run() {
    let scene = Scene::new(|_| json!({"allowed": true})).await;
    scene.register("ValidatingWebhookConfiguration", json!({"sideEffects": "NoneOnDryRun"})).await;
    scene.cluster.kubectl(&["create", "configmap", "dry", "--dry-run=server"]).await;
    assert_eq!(scene.webhook.reviews.lock().await[0]["request"]["dryRun"], true);
}

/// Serves the same webhook on the machine's own 127.0.0.1; returns its URL and its certificate.
async fn serve_on_machine(webhook: Arc<Webhook>) -> (String, String) {
    let (certificate, acceptor) = identity("127.0.0.1");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}/admit", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(acceptor.clone(), stream, webhook.clone()));
        }
    });
    (url, certificate)
}

#[tokio::test]
async fn a_webhook_is_reached_by_its_url() {
    let scene = Scene::new(|_| json!({"allowed": true})).await;
    let refuses = Arc::new(Webhook { reviews: Mutex::default(), answer: |_| json!({"allowed": false}) });
    let (url, certificate) = serve_on_machine(refuses.clone()).await;
    let by_url = json!({"clientConfig": {"url": url, "caBundle": BASE64_STANDARD.encode(&certificate)}});
    scene.register("ValidatingWebhookConfiguration", by_url.clone()).await;
    let denied = scene.create("one").await.unwrap_err();
    assert!(denied.contains("denied the request without explanation"), "{denied}");
    assert_eq!(refuses.reviews.lock().await.len(), 1);
    let mut untrusted = by_url;
    untrusted["clientConfig"]["caBundle"] = json!(BASE64_STANDARD.encode(&scene.certificate));
    scene.register("ValidatingWebhookConfiguration", untrusted).await;
    let denied = scene.create("two").await.unwrap_err();
    assert!(denied.contains("failed to call webhook: Post") && denied.contains("certificate"), "{denied}");
    assert_eq!(refuses.reviews.lock().await.len(), 1);
}

#[tokio::test]
async fn a_mutating_webhook_sees_what_later_ones_changed_if_it_wants_to() {
    let scene = Scene::new(|request| match &request["object"]["data"] {
        data if data["second"].is_null() => patch(json!([{"op": "add", "path": "/data/first", "value": "alone"}])),
        _ => patch(json!([{"op": "add", "path": "/data/first", "value": "both"}])),
    })
    .await;
    let second = Arc::new(Webhook {
        reviews: Mutex::default(),
        answer: |_| patch(json!([{"op": "add", "path": "/data/second", "value": "yes"}])),
    });
    let (url, certificate) = serve_on_machine(second.clone()).await;
    for (policy, seen) in [("Never", "alone"), ("IfNeeded", "both")] {
        scene.register("MutatingWebhookConfiguration", json!({"reinvocationPolicy": policy})).await;
        let later = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "later"}, "webhooks": [{
            "name": "later.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": url, "caBundle": BASE64_STANDARD.encode(&certificate)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
        }]});
        scene.cluster.apply(&later.to_string()).await;
        let created = scene.create(&format!("map-{}", policy.to_lowercase())).await.unwrap();
        assert_eq!(created.data.unwrap()["first"], seen, "{policy}");
    }
    assert_eq!((scene.webhook.reviews.lock().await.len(), second.reviews.lock().await.len()), (3, 2));
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_in_time_fails_or_is_ignored() {
    let scene = Scene::new(|_| json!({"allowed": true})).await;
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}/admit", silent.local_addr().unwrap());
    let slow = |policy: &str| {
        let ca = BASE64_STANDARD.encode(&scene.certificate);
        json!({"clientConfig": {"url": url, "caBundle": ca}, "timeoutSeconds": 1, "failurePolicy": policy})
    };
    scene.register("ValidatingWebhookConfiguration", slow("Fail")).await;
    let failed = scene.create("one").await.unwrap_err();
    let expected = format!(
        "Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: Post \"{url}?timeout=1s\": \
         context deadline exceeded"
    );
    assert_eq!(failed, expected);
    scene.register("ValidatingWebhookConfiguration", slow("Ignore")).await;
    scene.create("one").await.unwrap();
}

#[tokio::test]
async fn a_condition_without_an_answer_fails_or_is_skipped() {
    let scene = Scene::new(|_| json!({"allowed": true})).await;
    let condition = |policy: &str| json!({"failurePolicy": policy, "matchConditions": [{"name": "odd", "expression": "object.data.missing == 'x'"}]});
    scene.register("ValidatingWebhookConfiguration", condition("Fail")).await;
    let failed = scene.create("one").await.unwrap_err();
    assert!(failed.contains("match condition \"odd\" cannot be evaluated"), "{failed}");
    scene.register("ValidatingWebhookConfiguration", condition("Ignore")).await;
    scene.create("one").await.unwrap();
    assert!(scene.webhook.reviews.lock().await.is_empty());
}
