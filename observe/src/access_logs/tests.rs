use axum::Router;
use axum::routing::get;

use super::*;
use crate::inventory::tests::cluster;
use crate::pages::tests::{HOSTILE, assert_harmless, page as open};

/// A failed request with hostile text wherever a client can put some, one that was well, and a line of the proxy itself.
fn log() -> String {
    let line = |time: &str, path: &str, code: u16, flags: &str, details: &str, agent: &str| {
        format!(
            r#"[{time}] "GET {path} HTTP/1.1" {code} {flags} {details} - "-" 0 91 3 - "10.244.0.1" "{agent}" "98dabb88" "{agent}" "10.244.0.34:8080" outbound|80|v1|webapp-service.webapp.svc.cluster.local - 10.96.0.7:80 10.244.0.9:40 - default"#
        )
    };
    let well = line("2026-11-22T22:34:01.000Z", "/well", 200, "-", "via_upstream", "curl");
    let failed = line("2026-11-22T22:34:02.000Z", HOSTILE, 503, "UH,ZZ", "no_healthy_upstream", HOSTILE);
    let denied = line("2026-11-22T22:34:03.000Z", "/denied", 403, "-", "rbac_access_denied_matched_policy[none]", "curl");
    [well, failed, denied, "2026-11-22T22:34:00Z info ready".to_owned()].join("\n")
}

fn router() -> Router {
    Router::new().route("/logs", get(page)).with_state(cluster(&log()))
}

#[tokio::test]
async fn flags_are_explained_and_no_text_of_traffic_becomes_code() {
    let (status, html) = open(&router(), "/logs", "en").await;
    assert_eq!(status, 200, "{html}");
    assert_harmless(&html);
    for text in [
        "No healthy endpoint",
        "A flag that is not known here",
        "An AuthorizationPolicy denied it",
        "other lines: 1",
        "&#x2f;well",
    ] {
        assert!(html.contains(text), "{text} is not in {html}");
    }
    let (status, html) = open(&router(), "/logs", "ja").await;
    assert_eq!(status, 200, "{html}");
    assert!(html.contains("健全なエンドポイントがありません"), "{html}");
}

#[tokio::test]
async fn filters_choose_lines_and_are_harmless_too() {
    let (_, html) = open(&router(), "/logs?only=errors", "en").await;
    assert!(!html.contains("&#x2f;well") && html.contains("&#x2f;denied"), "{html}");
    let (_, html) = open(&router(), "/logs?text=%2Fdenied", "en").await;
    assert!(html.contains("rbac_access_denied") && !html.contains("no_healthy_upstream"), "{html}");
    let hostile: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let (status, html) = open(&router(), &format!("/logs?text={hostile}x&namespace={hostile}&workload={hostile}"), "en").await;
    assert_eq!(status, 200);
    assert_harmless(&html);
    assert!(html.contains("No log lines"), "{html}");
}

#[test]
fn every_flag_is_explained_once() {
    let mut shorts: Vec<_> = flags::FLAGS.iter().map(|flag| flag.short).collect();
    shorts.sort_unstable();
    shorts.dedup();
    assert_eq!(shorts.len(), flags::FLAGS.len());
}
