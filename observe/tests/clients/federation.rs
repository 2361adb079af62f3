//! A real Prometheus takes over the series of ours.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use meshlab_observe::StaticTarget;
use serde_json::json;

use crate::support::{Prometheus, ours, query, serve, until};

const BODY: &str = "# TYPE istio_requests_total counter\n\
    istio_requests_total{reporter=\"destination\",path=\"<script>\\\"\\\\\"} 20\n\
    istio_requests_total{reporter=\"source\"} 3\nother 1\n";

#[tokio::test]
async fn a_prometheus_federates_from_ours() {
    let target = serve(Router::new().route("/metrics", get(BODY))).await;
    let instance = target.to_string();
    let target = StaticTarget { job: "app".to_owned(), address: target, path: "/metrics".to_owned() };
    let (api, _end) = ours(vec![target], Duration::from_millis(100)).await;
    let federate = format!(
        "{{job_name: federate, honor_labels: true, metrics_path: /federate, \
         params: {{'match[]': ['{{__name__=~\"istio_.*\"}}', 'up{{job=\"app\"}}']}}, static_configs: [{{targets: ['{api}']}}]}}"
    );
    let prometheus = Prometheus::start(&[federate], "100ms").await;
    let found = until("the series", async || {
        let found = query(prometheus.address, "sort(istio_requests_total)", None).await?["data"]["result"].clone();
        (found.as_array()?.len() == 2).then_some(found)
    })
    .await;
    let labels = |index: usize| found[index]["metric"].clone();
    assert_eq!(labels(0), json!({"__name__": "istio_requests_total", "instance": instance, "job": "app", "reporter": "source"}));
    assert_eq!((&found[0]["value"][1], &found[1]["value"][1]), (&json!("3"), &json!("20")));
    assert_eq!(labels(1)["path"], "<script>\"\\");
    let other = query(prometheus.address, "count({__name__=~\"other|scrape_.*\", job=\"app\"})", None).await.unwrap();
    assert_eq!(other["data"]["result"], json!([]), "only what was asked for");
    // The moment of a sample is that of our scrape, not of the federation's.
    let (ours, theirs) = (query(api, "timestamp(up{job=\"app\"})", None).await, {
        query(prometheus.address, "timestamp(up{job=\"app\"})", None).await
    });
    let time = |answer: Option<serde_json::Value>| -> f64 {
        answer.unwrap()["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap()
    };
    assert!((time(ours) - time(theirs)).abs() < 5.0);
}
