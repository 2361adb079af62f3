use axum::extract::Query as Extracted;
use http::HeaderMap;

use super::language::Language;
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
    for (name, _) in SOURCES {
        TEMPLATES.get_template(name).unwrap();
    }
}

#[test]
fn every_text_exists_in_both_languages() {
    let (ja, en) = (Language::Ja.texts(), Language::En.texts());
    assert_eq!((ja.len(), en.len()), (texts::TEXTS.len(), texts::TEXTS.len()), "a text is there twice");
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
        "area": "M70.0 140.0L179.5 98.0L179.5 182.0L70.0 182.0Z",
        "color": 0,
        "last": "–",
        "name": "line",
        "path": "M70.0 140.0h0.1L179.5 98.0M398.5 14.0h0.1"
      }
    ]
    "#);
    let nothing = [("0 / 0".to_owned(), vec![(0.0, f64::NAN), (10.0, f64::NAN)])];
    assert_eq!(serde_json::to_value(chart::chart(&nothing, 0.0, 10.0, "ms")).unwrap()["lines"], serde_json::json!([]));
    let many: Vec<_> = (0..30).map(|line| (line.to_string(), vec![(0.0, f64::from(line))])).collect();
    assert_eq!(serde_json::to_value(chart::chart(&many, 0.0, 0.0, "")).unwrap()["more"], 6);
    assert_eq!(serde_json::to_value(chart::chart(&[], 0.0, 1.0, "")).unwrap()["lines"], serde_json::json!([]));
}

#[test]
fn axes_have_round_marks_with_units() {
    let ticks = |values: &[f64], unit| {
        let points = values.iter().enumerate().map(|(index, value)| (index as f64 * 60.0, *value)).collect();
        let drawn = serde_json::to_value(chart::chart(&[("line".to_owned(), points)], 0.0, 300.0, unit)).unwrap();
        let labels = |axis: &str| {
            drawn[axis].as_array().unwrap().iter().map(|tick| tick[1].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        format!("{} | {}", labels("y_ticks").join(" "), labels("x_ticks").join(" "))
    };
    insta::assert_snapshot!(ticks(&[0.0, 12.8], "/s"), @"0 5/s 10/s 15/s | 00:00 00:01 00:02 00:03 00:04 00:05");
    insta::assert_snapshot!(ticks(&[99.0, 100.0], "%"), @"0 25 % 50 % 75 % 100 % | 00:00 00:01 00:02 00:03 00:04 00:05");
    insta::assert_snapshot!(ticks(&[0.0, 3700.0], "ms"), @"0 1 s 2 s 3 s 4 s | 00:00 00:01 00:02 00:03 00:04 00:05");
    insta::assert_snapshot!(ticks(&[-3.0, 3.0], ""), @"-4 -2 0 2 4 | 00:00 00:01 00:02 00:03 00:04 00:05");
    insta::assert_snapshot!(ticks(&[0.0, 0.0], ""), @"0 0.25 0.5 0.75 1 | 00:00 00:01 00:02 00:03 00:04 00:05");
}

#[test]
fn numbers_are_readable() {
    let texts: Vec<_> = [0.0, -0.0001, 0.004, 0.25, 1.0, 12.84, 488.0, 82_345.0, 1.5e6, f64::NAN].map(readable).into();
    assert_eq!(texts, ["0", "-1.0e-4", "0.004", "0.25", "1", "12.8", "488", "82.3k", "1.5M", "–"]);
    let texts = [(0.42, "ms"), (1500.0, "ms"), (2_048.0, "B/s"), (99.5, "%"), (3.0, "/s"), (f64::NAN, "ms")];
    assert_eq!(texts.map(|(value, unit)| measured(value, unit)), ["420 µs", "1.5 s", "2.05 kB/s", "99.5 %", "3/s", "–"]);
}

#[test]
fn links_to_the_other_language_keep_the_pages_parameters() {
    const PRODUCT: Product = Product { name: "Test", pages: &[] };
    let query = Extracted(vec![("lang".to_owned(), "ja".to_owned()), ("text".to_owned(), "a&b\"><".to_owned())]);
    let page = Page::new(&PRODUCT, "error.html", "", &query, &HeaderMap::new());
    assert_eq!(page.parameters, "text=a%26b%22%3E%3C&");
}
