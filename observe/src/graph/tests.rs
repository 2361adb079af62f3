use std::net::Ipv4Addr;

use meshlab_net::{Listener, OsNet};
use serde_json::Value;

use super::*;
use crate::inventory::tests::cluster;
use crate::pages::tests::{HOSTILE, assert_harmless, page};

/// Answers every query for request rates with the same series, others with none; after `sum(broken)` with an error.
async fn prometheus(shutdown: CancellationToken) -> Prometheus {
    let answer = async |query: Query| {
        let asked = parameter(&query, "query").unwrap_or_default().to_owned();
        let metric = |reporter: &str, from: &str, to: &str, code: &str, policy: &str| {
            json!({"metric": {
                "reporter": reporter, "source_workload": from, "source_workload_namespace": "webapp", "source_canonical_service": from, "source_version": "v1",
                "destination_workload": to, "destination_workload_namespace": "webapp", "destination_canonical_service": to, "destination_version": "v1",
                "destination_service_name": "svc", "destination_service_namespace": "webapp", "request_protocol": "http", "response_code": code,
                "response_flags": "-", "connection_security_policy": policy,
            }, "value": [0, "5"]})
        };
        let result = if asked.contains("istio_requests_total") {
            json!([
                metric("source", "gateway", HOSTILE, "200", "unknown"),
                metric("destination", "gateway", HOSTILE, "200", "mutual_tls"),
                metric("source", HOSTILE, "payment", "503", "unknown")
            ])
        } else {
            json!([])
        };
        axum::Json(json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
    };
    let router = Router::new().route("/api/v1/query", get(answer)).route(
        "/api/v1/label/{name}/values",
        get(async || axum::Json(json!({"status": "success", "data": ["webapp", "unknown", HOSTILE]}))),
    );
    let listener = OsNet.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let port = listener.local_addr().port();
    tokio::spawn(server::serve(listener, router, shutdown));
    Prometheus::new(OsNet, "127.0.0.1", port)
}

#[tokio::test]
async fn the_picture_shows_errors_and_padlocks_and_no_text_of_traffic_becomes_code() {
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let router = router(Sources { prometheus: prometheus(shutdown).await, client: cluster("") });
    for language in ["ja", "en"] {
        let (status, html) = page(&router, "/kiali/console/graph?namespaces=webapp&duration=60s", language).await;
        assert_eq!(status, 200, "{html}");
        assert_harmless(&html);
        assert!(html.contains("class=\"edge failure\"") && html.contains("class=\"padlock\""), "{html}");
        assert!(html.contains("<animateMotion") && html.contains("class=\"moving error\""), "{html}");
        assert!(html.contains(if language == "ja" { "サービスグラフ" } else { "Service graph" }));
    }
    let (status, html) = page(&router, "/kiali/console/graph?graphType=%3Cscript%3E", "en").await;
    assert_eq!(status, 400);
    assert_harmless(&html);
    for file in ["style.css", "live.js", "chart.js", "icon.svg"] {
        assert_eq!(page(&router, &format!("/kiali/static/{file}"), "en").await.0, 200);
    }
}

#[tokio::test]
async fn the_overview_says_what_wants_attention() {
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let router = router(Sources { prometheus: prometheus(shutdown).await, client: cluster("") });
    for language in ["ja", "en"] {
        let (status, html) = page(&router, "/kiali/console/overview", language).await;
        assert_eq!(status, 200, "{html}");
        assert_harmless(&html);
        assert!(html.contains("503 (5&#x2f;s)") && html.contains("100 %"), "{html}");
        assert!(html.contains("kubectl rollout restart deployment -n webapp"), "a pod has no sidecar: {html}");
    }
}

#[tokio::test]
async fn updates_are_events_with_the_picture() {
    use futures::StreamExt;
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let router = router(Sources { prometheus: prometheus(shutdown).await, client: cluster("") });
    let request = http::Request::get("/kiali/console/live?lang=en").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    let event = response.into_body().into_data_stream().next().await.unwrap().unwrap();
    let event = String::from_utf8(event.to_vec()).unwrap();
    assert!(event.contains("event: part\n") && event.contains("<svg"), "{event}");
    assert_harmless(&event);
}

#[tokio::test]
async fn a_prometheus_that_is_away_is_said() {
    let router = router(Sources { prometheus: Prometheus::new(OsNet, "127.0.0.1", 1), client: cluster("") });
    let (status, html) = page(&router, "/kiali/console/graph", "en").await;
    assert_eq!(status, 503);
    assert!(html.contains("Prometheus at 127.0.0.1:1 does not answer"), "{html}");
    let request =
        http::Request::get("/kiali/api/namespaces/graph?namespaces=webapp&duration=60s").body(axum::body::Body::empty()).unwrap();
    assert_eq!(tower::ServiceExt::oneshot(router, request).await.unwrap().status(), 503);
}

#[test]
fn the_json_is_kialis() {
    let value: Value = json::graph(&model::tests::example(), GraphType::VersionedApp, 60, 1_700_000_000);
    let of = |name: &str, label: &str| {
        let mut data = value["elements"]["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["data"].clone())
            .find(|data| data["app"] == name && data["version"] == label)
            .unwrap();
        data["id"] = json!("id");
        data
    };
    insta::assert_json_snapshot!(of("webapp", "v2"), @r#"
    {
      "app": "webapp",
      "cluster": "Kubernetes",
      "destServices": [
        {
          "cluster": "Kubernetes",
          "name": "svc",
          "namespace": "webapp"
        }
      ],
      "healthData": null,
      "id": "id",
      "isRoot": false,
      "namespace": "webapp",
      "nodeType": "app",
      "traffic": [
        {
          "protocol": "http",
          "rates": {
            "httpIn": "2.00",
            "httpIn5xx": "2.00"
          }
        }
      ],
      "version": "v2",
      "workload": "webapp-v2"
    }
    "#);
    let mut edge = value["elements"]["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| edge["data"].clone())
        .find(|edge| edge["traffic"]["responses"]["503"].is_object())
        .unwrap();
    let ids = ["id", "source", "target"].map(|name| edge.as_object_mut().unwrap().remove(name).unwrap());
    assert!(value["elements"]["nodes"].as_array().unwrap().iter().any(|node| node["data"]["id"] == ids[2]));
    insta::assert_json_snapshot!(edge, @r#"
    {
      "traffic": {
        "protocol": "http",
        "rates": {
          "http": "2.00",
          "http5xx": "2.00",
          "httpPercentErr": "100.0",
          "httpPercentReq": "20.0"
        },
        "responses": {
          "503": {
            "flags": {
              "-": "100.0"
            },
            "hosts": {
              "svc": "100.0"
            }
          }
        }
      }
    }
    "#);
}
