//! Prometheus' own pages: a query box, and the targets with what was dropped.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{Redirect, Response};
use axum::routing::get;
use http::HeaderMap;
use minijinja::{Value, context};
use serde::Serialize;

use super::api::Server;
use super::labels::Labels;
use super::promql::{self, Answer, Budget, format_number};
use super::scrape::now;
use crate::pages::chart::chart;
use crate::pages::{Entry, Page, Product, Query, assets, number, parameter, value};

/// Rows of a table.
const MAX_ROWS: usize = 1000;
/// Points of a line.
const POINTS: i64 = 120;

/// The pages.
pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(async || Redirect::temporary("query")))
        .route("/graph", get(async || Redirect::temporary("query")))
        .route("/query", get(query_page))
        .route("/targets", get(targets_page))
        .merge(assets())
        .with_state(server)
}

/// Its pages.
const PRODUCT: Product = Product {
    name: "Prometheus",
    pages: &[
        Entry { path: "query", title: "query", templates: &["query.html"] },
        Entry { path: "targets", title: "targets", templates: &["targets.html"] },
    ],
};

/// Queries to begin with.
const EXAMPLES: &[&str] = &[
    "up",
    "sum by (destination_service_name, response_code) (istio_requests_total{reporter=\"destination\"})",
    "rate(pilot_xds_pushes[5m])",
];

async fn query_page(State(server): State<Arc<Server>>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "query.html", "", &query, &headers);
    let (text, minutes) = (parameter(&query, "query").unwrap_or_default().to_owned(), number(&query, "minutes", 5, 1..=60));
    let (mut drawn, mut rows, mut error) = (Value::from(()), Vec::new(), String::new());
    if !text.is_empty() {
        let (end, span) = (now(), minutes.cast_signed() * 60_000);
        let (asked, budget) = (text.clone(), Budget::default());
        let answer = server.evaluate(move |tsdb| {
            let answer = promql::instant(tsdb, &asked, end, budget)?;
            let series = match answer {
                Answer::Vector(_) | Answer::Scalar(_) => promql::range(tsdb, &asked, (end - span, end, span / POINTS), budget)?,
                Answer::Matrix(_) | Answer::Text(_) => Vec::new(),
            };
            Ok((answer, series))
        });
        match answer.await {
            Ok((answer, series)) => {
                rows = table(answer);
                let seconds = |millis: i64| millis as f64 / 1000.0;
                let lines = series.into_iter().map(|(labels, samples)| {
                    (name(&labels), samples.iter().map(|sample| (seconds(sample.time), sample.value)).collect::<Vec<_>>())
                });
                let lines: Vec<_> = lines.collect();
                if !lines.is_empty() {
                    drawn = value(chart(&lines, seconds(end - span), seconds(end), ""));
                }
            }
            Err(refused) => refused.message().clone_into(&mut error),
        }
    }
    let names = server.tsdb.label_values("__name__", &[], i64::MIN, i64::MAX);
    let more = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    page.render(
        context! { query => text, minutes, chart => drawn, rows => value(rows), more, error, names => value(names), examples => value(EXAMPLES) },
    )
}

/// As PromQL writes a series.
fn name(labels: &Labels) -> String {
    let rest = labels.without_name();
    if rest.pairs().is_empty() && !labels.name().is_empty() {
        labels.name().to_owned()
    } else {
        format!("{}{rest}", labels.name())
    }
}

fn table(answer: Answer) -> Vec<(String, String)> {
    match answer {
        Answer::Scalar(value) => vec![("scalar".to_owned(), format_number(value))],
        Answer::Text(text) => vec![("string".to_owned(), text)],
        Answer::Vector(samples) => samples.iter().map(|(labels, sample)| (name(labels), format_number(sample.value))).collect(),
        Answer::Matrix(series) => {
            let values = |samples: &[super::chunk::Sample]| {
                let last = samples.iter().rev().take(20).rev();
                last.map(|sample| format!("{} @{}", format_number(sample.value), sample.time as f64 / 1000.0))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            series.iter().map(|(labels, samples)| (name(labels), values(samples))).collect()
        }
    }
}

#[derive(Serialize)]
struct TargetRow {
    url: String,
    up: bool,
    state: &'static str,
    pod: String,
    samples: usize,
    duration: String,
    error: String,
}

async fn targets_page(State(server): State<Arc<Server>>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "targets.html", "", &query, &headers);
    let targets: Vec<TargetRow> = server
        .pool
        .lock()
        .iter()
        .map(|(target, status)| {
            let status = status.lock();
            let label = |name: &str| target.labels.get(name).cloned().unwrap_or_default();
            TargetRow {
                url: target.url(),
                up: status.up == Some(true),
                state: status.up.map_or("unknown", |up| if up { "up" } else { "down" }),
                pod: format!("{}/{}", label("namespace"), label("pod")),
                samples: status.samples,
                duration: format!("{:.1} ms", status.duration.as_secs_f64() * 1e3),
                error: status.error.clone(),
            }
        })
        .collect();
    let size = server.tsdb.size();
    let sizes = [
        (page.language.text("series"), size.series.to_string()),
        (page.language.text("samples"), size.samples.to_string()),
        ("MiB", format!("{:.1}", size.bytes as f64 / f64::from(1 << 20))),
    ];
    page.render(context! { targets => value(targets), sizes => value(sizes), dropped => value(server.tsdb.dropped.read()) })
}
