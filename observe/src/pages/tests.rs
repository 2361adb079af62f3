use axum::extract::Query as Extracted;
use http::HeaderMap;

use super::text::Language;
use super::*;

/// What is put wherever traffic can put text.
pub(crate) const HOSTILE: &str = "</title></script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}";

/// No page may have this: hostile text that was not escaped, or code within the page.
pub(crate) fn assert_harmless(html: &str) {
    for forbidden in ["<script>", "<img", "onerror=alert(1)>", "javascript:", " style=", "<style", "onclick"] {
        assert!(!html.contains(forbidden), "{forbidden} in {html}");
    }
    assert!(!html.contains(">49<"), "a template was evaluated in {html}");
}

/// The answer to a GET, after a look at its headers.
pub(crate) async fn page(router: &Router, path: &str, language: &str) -> (u16, String) {
    let request = http::Request::get(path).header("accept-language", language).body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-security-policy"], POLICY, "{path}");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn every_template_can_be_compiled() {
    for name in [
        "base",
        "macros",
        "error",
        "graph",
        "graph_picture",
        "dashboards",
        "dashboard",
        "panels",
        "query",
        "targets",
        "search",
        "trace",
    ] {
        TEMPLATES.get_template(&format!("{name}.html")).unwrap();
    }
}

#[test]
fn every_text_exists_in_both_languages() {
    let (ja, en) = (Language::Ja.texts(), Language::En.texts());
    assert_eq!(ja.len(), en.len());
    assert!(ja.values().chain(en.values()).all(|text| !text.is_empty()));
    assert!(en.values().all(|text| !text.chars().any(|character| ('\u{3040}'..='\u{30ff}').contains(&character))));
}

#[test]
fn the_language_is_the_urls_then_the_browsers() {
    let language = |url: &str, accept: &str| {
        let query = if url.is_empty() { Vec::new() } else { vec![("lang".to_owned(), url.to_owned())] };
        let headers: HeaderMap = [(header::ACCEPT_LANGUAGE, accept.parse().unwrap())].into_iter().collect();
        Language::of(&Extracted(query), &headers)
    };
    assert_eq!(language("", "fr-FR, ja;q=0.9, en;q=0.8"), Language::Ja);
    assert_eq!(language("en", "ja"), Language::En);
    assert_eq!(language("", "de"), Language::En);
    assert_eq!(language("xx", "ja-JP"), Language::Ja);
}

#[test]
fn a_chart_does_not_bridge_gaps_and_takes_any_number() {
    let points = vec![(0.0, 1.0), (10.0, 2.0), (20.0, f64::NAN), (30.0, 4.0), (40.0, f64::INFINITY)];
    let drawn = serde_json::to_value(chart::chart(&[("line".to_owned(), points)], 0.0, 40.0, "/s")).unwrap();
    insta::assert_json_snapshot!(drawn["lines"], @r#"
    [
      {
        "color": 0,
        "last": "–",
        "name": "line",
        "path": "M48.0 160.4h0.1L194.0 122.8M486.0 47.6h0.1"
      }
    ]
    "#);
    let many: Vec<_> = (0..30).map(|line| (line.to_string(), vec![(0.0, f64::from(line))])).collect();
    assert_eq!(serde_json::to_value(chart::chart(&many, 0.0, 0.0, "")).unwrap()["more"], 6);
    assert_eq!(serde_json::to_value(chart::chart(&[], 0.0, 1.0, "")).unwrap()["lines"], serde_json::json!([]));
}
