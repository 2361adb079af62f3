//! Agents, proxies and istiod on one virtual network.

mod common;

use common::Pod;
use common::support::{Lab, service};
use http::StatusCode;

#[tokio::test]
async fn a_sidecar_becomes_ready_and_drains_at_the_end() {
    let lab = Lab::new().await;
    lab.kube.apply("services", service("default", "one"));
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let pod = Pod::new(&lab, "sleep", 20);
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
    let pod = Pod::new(&lab, "sleep", 20);
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
    let pod = Pod::new(&lab, "sleep", 20);
    pod.mount(&lab);
    let _agent = tokio::spawn(pod.command("proxy sidecar", &[("SECRET_TTL", "2s")]));
    let counted = "citadel_server_success_cert_issuance_count 2";
    lab.wait_for(15014, "/metrics", |page| page.contains(counted)).await;
    assert_eq!(pod.get(15021, "/healthz/ready").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_apps_probes_and_metrics_are_asked_through_the_agent() {
    let lab = Lab::new().await;
    let pod = Pod::new(&lab, "sleep", 20);
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
    let pod = Pod::new(&lab, "sleep", 20);
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
    let pod = Pod::new(&lab, "sleep", 20);
    assert_eq!(pod.command("dance", &[]).await, 1);
    assert_eq!(pod.command("request GET", &[]).await, 1);
    assert_eq!(pod.command("istio-iptables -m TPROXY", &[]).await, 1);
    insta::assert_snapshot!(pod.output(), @r#"
    Error: unknown command "dance" for "pilot-agent"; the commands are proxy, istio-iptables, request, wait and version
    Error: usage: pilot-agent request [--debug-port=15000] <method> <path>, for example: pilot-agent request GET stats/prometheus
    Error: interception mode TPROXY is not supported; use REDIRECT, or NONE to do without
    "#);
}
