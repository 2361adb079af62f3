//! Prometheus' own command line reads what we answer.

use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use meshlab_observe::StaticTarget;
use tokio::io::AsyncWriteExt;

use crate::support::{ours, query, serve, text, until};

const BODY: &str = "# HELP istio_requests_total Requests.\n# TYPE istio_requests_total counter\n\
    istio_requests_total{reporter=\"destination\",response_code=\"200\"} 20\n\
    istio_requests_total{reporter=\"source\",response_code=\"503\"} 3\n";

async fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = tokio::process::Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (.ci/install-tools does it)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn promtool_understands_the_api() {
    let target = serve(Router::new().route("/metrics", get(BODY))).await;
    let target = StaticTarget { job: "app".to_owned(), address: target, path: "/metrics".to_owned() };
    let (api, _end) = ours(vec![target], Duration::from_millis(100)).await;
    until("the sum", async || query(api, "sum(istio_requests_total) == 23", None).await?["data"]["result"].get(0).cloned()).await;
    let url = format!("http://{api}");
    assert!(promtool(&["query", "instant", &url, "sum(istio_requests_total)"], "").await.starts_with("{} => 23 @["));
    let range = promtool(&["query", "range", "--step=1s", &url, "sum by (reporter) (istio_requests_total)"], "").await;
    assert!(range.contains("{reporter=\"destination\"} =>"), "{range}");
    let series = promtool(&["query", "series", "--match=istio_requests_total", &url], "").await;
    assert_eq!(series.lines().count(), 2, "{series}");
    assert_eq!(promtool(&["query", "labels", &url, "response_code"], "").await, "200\n503\n");
    // What the server says of itself has nothing that the linter minds.
    let own = text(api, "/metrics").await.unwrap();
    assert_eq!(promtool(&["check", "metrics"], &own).await, "", "{own}");
}
