//! Dashboards and a metrics explorer: Grafana's place among the addons.

mod catalogue;

use std::io;
use std::net::SocketAddr;

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

use crate::pages::chart::chart;
use crate::pages::{Language, Page, Query, assets, live, number, parameter, value};
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
        .route(
            "/api/health",
            get(async || axum::Json(json!({"database": "ok", "version": env!("CARGO_PKG_VERSION"), "commit": ""}))),
        )
        .merge(assets())
        .with_state(prometheus)
}

fn frame(template: &'static str, root: &'static str, language: Language) -> Page<'static> {
    Page { template, product: "Grafana", root, language }
}

async fn list(query: Query, headers: HeaderMap) -> Response {
    let language = Language::of(&query, &headers);
    let dashboard = |dashboard: &Dashboard| context! { id => dashboard.id, title => language.text(dashboard.title) };
    frame("dashboards.html", "", language).render(context! { dashboards => DASHBOARDS.iter().map(dashboard).collect::<Vec<_>>() })
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
            minutes: number(query, "minutes", 15, 1..=60),
            language: Language::of(query, headers),
        })
    }

    /// The filter of the variable, to stand behind other matchers.
    fn filter(&self) -> String {
        match self.dashboard.variable {
            Some((label, _)) if !self.value.is_empty() => format!(",{label}={:?}", self.value),
            _ => String::new(),
        }
    }

    async fn panels(&self, prometheus: &Prometheus) -> Vec<Value> {
        join_all(self.dashboard.panels.iter().map(|panel| self.panel(prometheus, panel))).await
    }

    async fn panel(&self, prometheus: &Prometheus, panel: &Panel) -> Value {
        let query = panel.query.replace("$filter", &self.filter());
        let title = self.language.text(panel.title);
        match draw(prometheus, &query, self.minutes, panel.unit, panel.legend).await {
            Ok(chart) => context! { title, query, chart => value(chart), error => "" },
            Err(error) => context! { title, query, error },
        }
    }
}

async fn page(State(prometheus): State<Prometheus>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let Some(choice) = Choice::of(&id, &query, &headers) else {
        let page = frame("error.html", "../", Language::of(&query, &headers));
        return page.error(StatusCode::NOT_FOUND, &format!("There is no dashboard {id:?}."));
    };
    let language = choice.language;
    let variable = match choice.dashboard.variable {
        None => Value::from(()),
        Some((label, title)) => {
            let mut values = prometheus.label_values(label).await.unwrap_or_default();
            values.retain(|value| value != "unknown");
            context! { title => language.text(title), values, chosen => choice.value.clone() }
        }
    };
    let parameters = form_urlencoded::Serializer::new(String::new())
        .append_pair("value", &choice.value)
        .append_pair("minutes", &choice.minutes.to_string())
        .append_pair("lang", language.code())
        .finish();
    frame("dashboard.html", "../", language).render(context! {
        title => language.text(choice.dashboard.title), variable, minutes => choice.minutes,
        live => format!("../live/{id}?{parameters}"), panels => choice.panels(&prometheus).await,
    })
}

async fn updates(State(prometheus): State<Prometheus>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let Some(choice) = Choice::of(&id, &query, &headers) else {
        return (StatusCode::NOT_FOUND, "There is no such dashboard.\n").into_response();
    };
    live(move || {
        let (choice, prometheus) = (choice.clone(), prometheus.clone());
        async move {
            let panels = choice.panels(&prometheus).await;
            frame("panels.html", "../", choice.language).text(context! { panels }).map_err(|error| error.to_string())
        }
    })
}

async fn explore(State(prometheus): State<Prometheus>, query: Query, headers: HeaderMap) -> Response {
    let language = Language::of(&query, &headers);
    let (text, minutes) = (parameter(&query, "query").unwrap_or_default(), number(&query, "minutes", 15, 1..=60));
    let (mut chart, mut rows, mut error) = (Value::from(()), Vec::new(), String::new());
    if !text.is_empty() {
        match prometheus.query(text).await {
            Ok(samples) => {
                rows = samples.iter().take(500).map(|(metric, value)| (name(metric, &[]), value.to_string())).collect()
            }
            Err(message) => error = message,
        }
        if error.is_empty() {
            match draw(&prometheus, text, minutes, "", &[]).await {
                Ok(drawn) => chart = value(drawn),
                Err(message) => error = message,
            }
        }
    }
    let links = [("", language.text("dashboards"))];
    frame("query.html", "", language)
        .render(context! { query => text, minutes, chart, rows => value(rows), error, links => value(links) })
}

async fn draw(
    prometheus: &Prometheus,
    query: &str,
    minutes: u64,
    unit: &str,
    legend: &[&str],
) -> Result<crate::pages::chart::Chart, String> {
    let span = (minutes * 60) as f64;
    let step = (span / POINTS).max(5.0).round();
    // On the grid of steps, so that lines do not jump about when they are drawn anew.
    let end = (jiff::Timestamp::now().as_second() as f64 / step).floor() * step;
    let series = prometheus.range(query, end - span, end, step).await?;
    let line = |series: Series| (name(&series.metric, legend), series.points);
    Ok(chart(&series.into_iter().map(line).collect::<Vec<_>>(), end - span, end, unit))
}

/// The values of the labels in `legend`, or all labels.
fn name(metric: &Metric, legend: &[&str]) -> String {
    let named: Vec<_> = legend.iter().filter_map(|label| metric.get(*label)).filter(|value| !value.is_empty()).cloned().collect();
    if !named.is_empty() {
        return named.join(" / ");
    }
    let labels: Vec<_> =
        metric.iter().filter(|(label, _)| *label != "__name__").map(|(label, value)| format!("{label}={value:?}")).collect();
    let name = metric.get("__name__").map(String::as_str).unwrap_or_default();
    if labels.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(", ")) }
}

#[cfg(test)]
mod tests;
