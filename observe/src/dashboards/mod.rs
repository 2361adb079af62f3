//! Dashboards and a metrics explorer: Grafana's place among the addons.

mod catalogue;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::join_all;
use http::{HeaderMap, StatusCode};
use meshlab_net::Net;
use minijinja::{Value, context};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::form_urlencoded;

use crate::pages::chart::{Chart, chart};
use crate::pages::{Asked, Entry, Language, Page, Product, Query, assets, live, number, parameter, part, value};
use crate::prometheus_client::{Metric, Prometheus, Series};
use crate::server;
use catalogue::{DASHBOARDS, Dashboard, Panel};

/// How a Grafana is run.
#[derive(Debug, Clone)]
pub struct GrafanaOptions {
    /// Where its pages are served.
    pub listen: SocketAddr,
    /// Host and port of the Prometheus it asks.
    pub prometheus: (String, u16),
}

impl Default for GrafanaOptions {
    fn default() -> Self {
        Self { listen: server::any(3000), prometheus: ("prometheus.istio-system".to_owned(), 9090) }
    }
}

/// Rows of a table.
const MAX_ROWS: usize = 500;
/// Points of a line.
const POINTS: f64 = 120.0;

/// Serves dashboards until `shutdown`.
///
/// # Errors
/// Its port cannot be listened on, or its listener ends.
pub async fn grafana<N: Net>(net: N, options: GrafanaOptions, shutdown: CancellationToken) -> io::Result<()> {
    let listener = server::bind(&net, options.listen).await?;
    let prometheus = Prometheus::new(net, &options.prometheus.0, options.prometheus.1);
    server::serve(listener, router(prometheus), shutdown).await
}

fn router(prometheus: Prometheus) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/dashboards", get(list))
        .route("/d/{id}", get(page))
        .route("/live/{id}", get(updates))
        .route("/explore", get(explore))
        .route("/explore/live", get(explore_updates))
        .route(
            "/api/health",
            get(async || axum::Json(json!({"database": "ok", "version": env!("CARGO_PKG_VERSION"), "commit": ""}))),
        )
        .merge(assets())
        .with_state(prometheus)
}

/// Its pages.
const PRODUCT: Product = Product {
    name: "Grafana",
    pages: &[
        Entry { path: "dashboards", title: "dashboards", templates: &["dashboards.html", "dashboard.html"] },
        Entry { path: "explore", title: "explore", templates: &["query.html"] },
    ],
};

/// Time from one update of a dashboard to the next.
const LIVE: Duration = Duration::from_secs(5);

async fn list(query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "dashboards.html", "", &query, &headers);
    let text = |name| page.language.text(name);
    let dashboard = |dashboard: &Dashboard| {
        let panels: Vec<_> = dashboard.panels.iter().map(|panel| text(panel.title)).collect();
        context! { id => dashboard.id, title => text(dashboard.title), about => text(dashboard.about), panels }
    };
    page.render(context! { dashboards => DASHBOARDS.iter().map(dashboard).collect::<Vec<_>>() })
}

/// What of a dashboard is to be shown.
#[derive(Clone)]
struct Choice {
    dashboard: &'static Dashboard,
    /// Of the dashboard's variable; empty: all.
    value: String,
    minutes: u64,
    language: Language,
}

impl Choice {
    fn of(id: &str, query: &Query, headers: &HeaderMap) -> Option<Self> {
        Some(Self {
            dashboard: DASHBOARDS.iter().find(|dashboard| dashboard.id == id)?,
            value: parameter(query, "value").unwrap_or_default().to_owned(),
            minutes: number(query, "minutes", 5, 1..=60),
            language: Language::of(query, headers),
        })
    }

    /// A panel's query for the chosen value: `$filter` becomes a matcher of the variable's label at the called side, `$source` one of
    /// the same label at the calling side.
    fn query(&self, panel: &Panel) -> String {
        let matcher = |side: &str| match self.dashboard.variable {
            Some(variable) if !self.value.is_empty() => format!(",{}={:?}", variable.label(side), self.value),
            _ => String::new(),
        };
        panel.query.replace("$filter", &matcher("destination")).replace("$source", &matcher("source"))
    }

    async fn panels(&self, prometheus: &Prometheus) -> Vec<Value> {
        join_all(self.dashboard.panels.iter().map(|panel| self.panel(prometheus, panel))).await
    }

    async fn panel(&self, prometheus: &Prometheus, panel: &Panel) -> Value {
        let query = self.query(panel);
        let title = self.language.text(panel.title);
        match draw(prometheus, &query, self.minutes, panel.unit, |metric| name(metric, panel.legend, title)).await {
            Ok(chart) => context! { id => panel.title, title, query, chart => value(chart), error => "" },
            Err(error) => context! { id => panel.title, title, query, error },
        }
    }
}

async fn page(State(prometheus): State<Prometheus>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "dashboard.html", "../", &query, &headers);
    let Some(choice) = Choice::of(&id, &query, &headers) else {
        return page.error(StatusCode::NOT_FOUND, &format!("There is no dashboard {id:?}."));
    };
    let language = page.language;
    let variable = match choice.dashboard.variable {
        None => Value::from(()),
        Some(variable) => {
            let mut values = prometheus.label_values(&variable.label("destination")).await.unwrap_or_default();
            values.extend(prometheus.label_values(&variable.label("source")).await.unwrap_or_default());
            values.push(choice.value.clone());
            values.sort();
            values.dedup();
            values.retain(|value| value != "unknown" && !value.is_empty());
            context! { title => language.text(variable.title), values, chosen => choice.value.clone() }
        }
    };
    let parameters = form_urlencoded::Serializer::new(String::new())
        .append_pair("value", &choice.value)
        .append_pair("minutes", &choice.minutes.to_string())
        .append_pair("lang", language.code())
        .finish();
    let others = DASHBOARDS.iter().map(|other| context! { id => other.id, title => language.text(other.title) });
    page.render(context! {
        id => choice.dashboard.id, title => language.text(choice.dashboard.title), about => language.text(choice.dashboard.about),
        variable, minutes => choice.minutes, others => others.collect::<Vec<_>>(),
        live => format!("../live/{}?{parameters}", choice.dashboard.id), panels => choice.panels(&prometheus).await,
    })
}

async fn updates(State(prometheus): State<Prometheus>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let Some(choice) = Choice::of(&id, &query, &headers) else {
        return (StatusCode::NOT_FOUND, "There is no such dashboard.\n").into_response();
    };
    live(LIVE, move || {
        let (choice, prometheus) = (choice.clone(), prometheus.clone());
        async move { part("panels.html", "../", choice.language, context! { panels => choice.panels(&prometheus).await }) }
    })
}

/// Queries to begin with, for those who have never written one.
const EXAMPLES: &[&str] = &[
    "sum by (destination_workload) (rate(istio_requests_total{reporter=\"destination\"}[1m]))",
    "sum by (source_workload, destination_service_name, response_code, response_flags) (rate(istio_requests_total{reporter=\"source\",response_code!=\"200\"}[1m])) > 0",
    "histogram_quantile(0.95, sum by (le, destination_service_name) (rate(istio_request_duration_milliseconds_bucket{reporter=\"destination\"}[1m])))",
    "sum by (connection_security_policy) (rate(istio_requests_total{reporter=\"destination\"}[1m]))",
    "up",
];

/// The chart and the values of now.
async fn answer(asked: &Asked, prometheus: &Prometheus) -> Value {
    let (query, minutes) = (asked.query.as_str(), asked.minutes);
    let drawn = draw(prometheus, query, minutes, "", |metric| name(metric, &[], query));
    let (samples, drawn) = tokio::join!(prometheus.query(query), drawn);
    match (samples, drawn) {
        (Err(error), _) | (_, Err(error)) => context! { query, minutes, error, chart => (), rows => (), more => 0 },
        (Ok(samples), Ok(chart)) => {
            let row = |(metric, value): &(Metric, f64)| (name(metric, &[], "{}"), value.to_string());
            let rows: Vec<_> = samples.iter().take(MAX_ROWS).map(row).collect();
            let chart = if samples.is_empty() && chart.is_empty() { Value::from(()) } else { value(chart) };
            context! { query, minutes, chart, rows => value(rows), more => samples.len().saturating_sub(MAX_ROWS), error => "" }
        }
    }
}

async fn explore(State(prometheus): State<Prometheus>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "query.html", "", &query, &headers);
    let asked = Asked::of(&query, &headers);
    let live = asked.live("explore/live");
    let answer = async {
        if live.is_empty() {
            return context! { query => "", minutes => asked.minutes, error => "", rows => () };
        }
        answer(&asked, &prometheus).await
    };
    let (answer, names) = tokio::join!(answer, prometheus.label_values("__name__"));
    page.render(context! { live, names => names.unwrap_or_default(), examples => value(EXAMPLES), ..answer })
}

async fn explore_updates(State(prometheus): State<Prometheus>, query: Query, headers: HeaderMap) -> Response {
    let asked = Asked::of(&query, &headers);
    live(LIVE, move || {
        let (asked, prometheus) = (asked.clone(), prometheus.clone());
        async move { part("query_part.html", "", asked.language, answer(&asked, &prometheus).await) }
    })
}

async fn draw(
    prometheus: &Prometheus,
    query: &str,
    minutes: u64,
    unit: &str,
    name: impl Fn(&Metric) -> String,
) -> Result<Chart, String> {
    let span = (minutes * 60) as f64;
    let step = (span / POINTS).max(5.0).round();
    // On the grid of steps, so that lines do not jump about when they are drawn anew.
    let end = (jiff::Timestamp::now().as_second() as f64 / step).floor() * step;
    let series = prometheus.range(query, end - span, end, step).await?;
    let line = |series: Series| (name(&series.metric), series.points);
    Ok(chart(&series.into_iter().map(line).collect::<Vec<_>>(), end - span, end, unit))
}

/// The values of the labels in `legend`, or all labels; `total` if there is none.
fn name(metric: &Metric, legend: &[&str], total: &str) -> String {
    let named: Vec<_> = legend.iter().filter_map(|label| metric.get(*label)).filter(|value| !value.is_empty()).cloned().collect();
    if !named.is_empty() {
        return named.join(" / ");
    }
    let labels: Vec<_> =
        metric.iter().filter(|(label, _)| *label != "__name__").map(|(label, value)| format!("{label}={value:?}")).collect();
    let name = metric.get("__name__").map(String::as_str).unwrap_or_default();
    match (name, &labels[..]) {
        ("", []) => total.to_owned(),
        (name, []) => name.to_owned(),
        (name, labels) => format!("{name}{{{}}}", labels.join(", ")),
    }
}

#[cfg(test)]
mod tests;
