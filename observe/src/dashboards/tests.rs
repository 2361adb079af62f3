use std::net::Ipv4Addr;

use meshlab_net::{Listener, OsNet};

use super::*;
use crate::metrics::parse_query;
use crate::pages::tests::{HOSTILE, assert_harmless, page};

async fn lab(shutdown: CancellationToken) -> Router {
    let range = async |query: Query| {
        if parameter(&query, "query").unwrap_or_default().contains("pilot_xds_pushes") {
            return (
                StatusCode::UNPROCESSABLE_ENTITY,
                axum::Json(json!({"status": "error", "errorType": "execution", "error": HOSTILE})),
            );
        }
        let end: f64 = parameter(&query, "end").unwrap_or_default().parse().unwrap_or_default();
        let result = json!([{"metric": {"destination_workload": HOSTILE}, "values": [[end - 10.0, "1"], [end, "2"]]}]);
        (StatusCode::OK, axum::Json(json!({"status": "success", "data": {"resultType": "matrix", "result": result}})))
    };
    let instant = async || {
        axum::Json(
            json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {"path": HOSTILE}, "value": [0, "1"]}]}}),
        )
    };
    let prometheus = Router::new().route("/api/v1/query_range", get(range)).route("/api/v1/query", get(instant)).route(
        "/api/v1/label/{name}/values",
        get(async || axum::Json(json!({"status": "success", "data": ["webapp", HOSTILE]}))),
    );
    let listener = OsNet.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let port = listener.local_addr().port();
    tokio::spawn(server::serve(listener, prometheus, shutdown));
    router(Prometheus::new(OsNet, "127.0.0.1", port))
}

#[tokio::test]
async fn every_dashboard_is_drawn_in_both_languages_and_harmless() {
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let router = lab(shutdown).await;
    let hostile: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for language in ["ja", "en"] {
        for dashboard in DASHBOARDS {
            let (status, html) = page(&router, &format!("/d/{}?value={hostile}", dashboard.id), language).await;
            assert_eq!(status, 200, "{html}");
            assert_harmless(&html);
            assert!(html.contains("<path class=\"line c0\""), "{html}");
        }
        let (_, html) = page(&router, &format!("/explore?query={hostile}"), language).await;
        assert_harmless(&html);
        assert!(html.contains("data-live=\"explore"), "{html}");
        let (_, html) = page(&router, "/explore", language).await;
        assert!(!html.contains("data-live"), "nothing is asked, nothing is followed: {html}");
        assert_eq!(page(&router, "/", language).await.0, 200);
    }
    let (_, html) = page(&router, "/d/control-plane", "en").await;
    assert!(html.contains("class=\"bad\""), "the error of one panel is shown, the others are drawn");
    let (status, html) = page(&router, "/d/%3Cscript%3E", "en").await;
    assert_eq!(status, 404);
    assert_harmless(&html);
}

#[tokio::test]
async fn the_explorers_chart_and_values_are_sent_anew() {
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let router = lab(shutdown).await;
    let request = http::Request::get("/explore/live?query=up&lang=en").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = futures::StreamExt::next(&mut response.into_body().into_data_stream()).await.unwrap().unwrap();
    let first = String::from_utf8_lossy(&first);
    assert!(first.starts_with("event: part"), "{first}");
    assert!(first.contains("data-key=\"chart\"") && first.contains("data-key=\"result\""), "{first}");
    assert_harmless(&first.replace("data: ", ""));
}

#[test]
fn every_query_is_promql() {
    for dashboard in DASHBOARDS {
        for panel in dashboard.panels {
            for value in ["", "a\"b"] {
                let choice = Choice { dashboard, value: value.to_owned(), minutes: 5, language: Language::En };
                let query = choice.query(panel);
                parse_query(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
            }
            assert_ne!(Language::Ja.text(panel.title), panel.title, "{} has no text", panel.title);
        }
    }
}

#[test]
fn every_panel_of_a_workload_is_about_the_chosen_one() {
    let dashboard = DASHBOARDS.iter().find(|dashboard| dashboard.id == "workload").unwrap();
    let choice = Choice { dashboard, value: "api-v1".to_owned(), minutes: 5, language: Language::En };
    for panel in dashboard.panels {
        let query = choice.query(panel);
        let side = if panel.title == "outbound" { "source" } else { "destination" };
        assert!(query.contains(&format!("reporter=\"{side}\",{side}_workload=\"api-v1\"")), "{query}");
    }
}
