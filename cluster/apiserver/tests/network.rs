//! The server on the cluster's network: pods reach it at its Service's address, and it reaches pods for `/proxy`.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meshlab_apiserver::{ApiServerOptions, TokenRequest, UserInfo};
use meshlab_net::{HostOptions, Listener, Net, PodNet, VirtualNet, VirtualNetOptions};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use support::Cluster;

const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);

async fn scene() -> (Cluster, PodNet) {
    let network = VirtualNet::new(VirtualNetOptions::default());
    let pod = network.attach(IpAddr::V4(POD), HostOptions::pod("web", "default", "cluster.local")).unwrap();
    (Cluster::start_with(ApiServerOptions::new(network)).await, pod)
}

#[tokio::test]
async fn a_pod_reaches_the_server_with_its_token() {
    let (cluster, pod) = scene().await;
    let token = cluster.server.issue_service_account_token("default", "default", &TokenRequest::default()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.server.ca_certificate().as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = pod.connect(SocketAddr::from(([10, 96, 0, 1], 443))).await.unwrap();
    let name = ServerName::try_from("kubernetes.default.svc").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut get = async |path: &str| {
        let request = http::Request::builder()
            .uri(path)
            .header("host", "kubernetes")
            .header("authorization", format!("Bearer {}", token.token))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    assert_eq!(get("/version").await["major"], "1");
    let refused = get("/api/v1/namespaces/default/pods").await;
    let who = "User \"system:serviceaccount:default:default\" cannot list resource \"pods\"";
    assert!(refused["message"].as_str().unwrap().contains(who), "{refused}");
}

#[tokio::test]
async fn requests_are_proxied_to_pods_and_services() {
    let (cluster, pod) = scene().await;
    let mut listener = pod.listen(SocketAddr::new(IpAddr::V4(POD), 8080)).await.unwrap();
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let service = service_fn(async |request: http::Request<hyper::body::Incoming>| {
                let text = format!("{} {}", request.method(), request.uri());
                Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(text))))
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    let manifests = [
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [
            {"name": "web", "image": "app", "ports": [{"containerPort": 8080}]}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": [POD.to_string()]}], "ports": [{"name": "http", "port": 8080}]}),
    ];
    for manifest in manifests {
        cluster.apply(&manifest.to_string()).await;
    }
    let status = json!({"status": {"podIP": POD.to_string()}}).to_string();
    cluster.kubectl(&["patch", "pod", "web", "--subresource=status", "--type=merge", "-p", &status]).await;
    let get = async |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/{path}")]).await;
    assert_eq!(get("pods/web/proxy/a/b?c=d").await, "GET /a/b?c=d");
    assert_eq!(get("pods/web:8080/proxy/").await, "GET /");
    assert_eq!(get("services/web:http/proxy/x").await, "GET /x");
    assert_eq!(get("services/web:80/proxy/x").await, "GET /x");
    let missing = cluster.refused(&["get", "--raw", "/api/v1/namespaces/default/services/web:81/proxy/"], None).await;
    assert!(missing.contains("no service port \"81\" found for service \"web\""), "{missing}");
    drop(cluster.server.client(UserInfo::admin()));
}
