//! Prometheus' own pages: a query box, and the targets with what was dropped.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{Redirect, Response};
use axum::routing::get;
use http::HeaderMap;
use minijinja::{Value, context};
use parking_lot::Mutex;
use serde::Serialize;

use super::api::Server;
use super::chunk::Sample;
use super::labels::Labels;
use super::promql::{self, Answer, Budget, format_number};
use super::scrape::{Status, now};
use super::target::Target;
use crate::pages::chart::chart;
use crate::pages::{Asked, Entry, Language, Page, Product, Query, assets, live, part, value};

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
        .route("/query/live", get(query_updates))
        .route("/targets", get(targets_page))
        .route("/targets/live", get(targets_updates))
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

/// The chart and the values of now.
async fn answer(asked: &Asked, server: &Arc<Server>) -> Value {
    let (end, span) = (now(), asked.minutes.cast_signed() * 60_000);
    let step = span / POINTS;
    // On the grid of steps, so that lines do not jump about when they are drawn anew.
    let latest = end - end % step;
    let (text, budget) = (asked.query.clone(), Budget::default());
    let answer = server.evaluate(move |tsdb| {
        let answer = promql::instant(tsdb, &text, end, budget)?;
        let series = match answer {
            Answer::Vector(_) | Answer::Scalar(_) => promql::range(tsdb, &text, (latest - span, latest, step), budget)?,
            Answer::Matrix(_) | Answer::Text(_) => Vec::new(),
        };
        Ok((answer, series))
    });
    let (query, minutes) = (asked.query.as_str(), asked.minutes);
    match answer.await {
        Ok((answer, series)) => {
            let mut rows = table(answer);
            let more = rows.len().saturating_sub(MAX_ROWS);
            rows.truncate(MAX_ROWS);
            let seconds = |millis: i64| millis as f64 / 1000.0;
            let line = |(labels, samples): (Labels, Vec<Sample>)| {
                (name(&labels), samples.iter().map(|sample| (seconds(sample.time), sample.value)).collect::<Vec<_>>())
            };
            let lines: Vec<_> = series.into_iter().map(line).collect();
            let drawn = if lines.is_empty() {
                Value::from(())
            } else {
                value(chart(&lines, seconds(latest - span), seconds(latest), ""))
            };
            context! { query, minutes, chart => drawn, rows => value(rows), more, error => "" }
        }
        Err(refused) => context! { query, minutes, chart => (), rows => (), more => 0, error => refused.message() },
    }
}

async fn query_page(State(server): State<Arc<Server>>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "query.html", "", &query, &headers);
    let asked = Asked::of(&query, &headers);
    let live = asked.live("query/live");
    let answer = if live.is_empty() {
        context! { query => "", minutes => asked.minutes, error => "", rows => () }
    } else {
        answer(&asked, &server).await
    };
    let names = server.tsdb.label_values("__name__", &[], i64::MIN, i64::MAX);
    page.render(context! { live, names => value(names), examples => value(EXAMPLES), ..answer })
}

async fn query_updates(State(server): State<Arc<Server>>, query: Query, headers: HeaderMap) -> Response {
    let asked = Asked::of(&query, &headers);
    let period = server.interval;
    live(period, move || {
        let (asked, server) = (asked.clone(), server.clone());
        async move { part("query_part.html", "", asked.language, answer(&asked, &server).await) }
    })
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
            let values = |samples: &[Sample]| {
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
    let live = format!("targets/live?lang={}", page.language.code());
    page.render(context! { live, ..targets(&server, page.language) })
}

async fn targets_updates(State(server): State<Arc<Server>>, query: Query, headers: HeaderMap) -> Response {
    let language = Language::of(&query, &headers);
    let period = server.interval;
    live(period, move || std::future::ready(part("targets_part.html", "", language, targets(&server, language))))
}

/// Every target with how it fares, and what is in memory.
fn targets(server: &Server, language: Language) -> Value {
    let row = |(target, status): (&Target, &Arc<Mutex<Status>>)| {
        let status = status.lock();
        let label = |name: &str| target.labels.get(name).map(String::as_str);
        let pod = label("namespace").zip(label("pod"));
        TargetRow {
            url: target.url(),
            up: status.up == Some(true),
            state: status.up.map_or("unknown", |up| if up { "up" } else { "down" }),
            pod: pod.map_or_else(|| "–".to_owned(), |(namespace, pod)| format!("{namespace}/{pod}")),
            samples: status.samples,
            duration: format!("{:.1} ms", status.duration.as_secs_f64() * 1e3),
            error: status.error.clone(),
        }
    };
    let targets: Vec<TargetRow> = server.pool.lock().iter().map(row).collect();
    let size = server.tsdb.size();
    let sizes = [
        (language.text("series"), size.series.to_string()),
        (language.text("samples"), size.samples.to_string()),
        ("MiB", format!("{:.1}", size.bytes as f64 / f64::from(1 << 20))),
    ];
    context! { targets => value(targets), sizes => value(sizes), dropped => value(server.tsdb.dropped.read()) }
}
