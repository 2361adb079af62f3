//! The overview: how the mesh fares, what wants attention, and what each namespace does.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use minijinja::{Value, context};
use serde::Serialize;

use super::model::{Edge, Graph, GraphType, Health, Key, Outcome, compute};
use super::page::name;
use super::{Language, PRODUCT, Prometheus, Query};
use crate::access_logs::flags::flag;
use crate::inventory::Inventory;
use crate::pages::chart::sparkline;
use crate::pages::{Page, live, measured, part, value};
use crate::prometheus_client::Series;

/// Time from one update to the next.
const LIVE: Duration = Duration::from_secs(5);
/// What sparklines span, in seconds, and their step.
const SPAN: f64 = 900.0;
const STEP: f64 = 15.0;
/// Entries of the list of what wants attention, at most.
const MAX_NOTES: usize = 12;

/// Requests as they were seen: by the calling side, or by the called one where the caller has no proxy.
macro_rules! requests {
    ($more:literal) => {
        concat!(
            "(rate(istio_requests_total{reporter=\"source\"",
            $more,
            "}[1m]) or rate(istio_requests_total{reporter=\"destination\",source_workload=\"unknown\"",
            $more,
            "}[1m]))"
        )
    };
}

const RATE: &str = concat!("sum(", requests!(""), ")");
const SUCCESS: &str = concat!(
    "100 - 100 * ((sum(",
    requests!(",response_code=~\"5..|0\""),
    ") or vector(0)) + (sum(",
    requests!(",response_code=\"200\",grpc_response_status=~\"[1-9]|1[0-6]\""),
    ") or vector(0))) / (sum(",
    requests!(""),
    ") > 0)"
);
const P95: &str =
    "histogram_quantile(0.95, sum by (le) (rate(istio_request_duration_milliseconds_bucket{reporter=\"source\"}[1m])))";
const MTLS: &str = "100 * (sum(rate(istio_requests_total{reporter=\"destination\",connection_security_policy=\"mutual_tls\"}[1m])) or vector(0)) \
    / (sum(rate(istio_requests_total{reporter=\"destination\"}[1m])) > 0)";
const BY_NAMESPACE: &str = concat!("sum by (destination_workload_namespace) (", requests!(""), ")");
const PROXIES: &str = "sum(pilot_xds)";
const REJECTS: &str = "sum(pilot_total_xds_rejects)";
const DROPPED: &str = "sum by (__name__) ({__name__=~\"meshlab_prometheus_dropped_total|jaeger_collector_spans_dropped_total|\
    jaeger_collector_spans_rejected_total|envoy_tracing_spans_dropped|envoy_metrics_series_dropped\"}) > 0";

/// A number that tells how the mesh fares.
#[derive(Serialize)]
struct Figure {
    title: &'static str,
    value: String,
    line: String,
    area: String,
    health: &'static str,
}

/// Something that wants attention.
#[derive(Serialize)]
struct Note {
    /// Which text it is: `failing`, `plaintext`, `no_sidecar`, `not_ready`, `rejected`.
    kind: &'static str,
    health: &'static str,
    subject: String,
    detail: String,
    explained: Vec<&'static str>,
    namespace: String,
    workload: String,
}

#[derive(Serialize)]
struct NamespaceRow {
    name: String,
    injected: bool,
    pods: usize,
    proxied: usize,
    rate: String,
    errors: String,
    p95: String,
    health: &'static str,
    line: String,
    area: String,
}

pub(super) async fn page(
    State(prometheus): State<Prometheus>,
    State(client): State<kube::Client>,
    query: Query,
    headers: HeaderMap,
) -> Response {
    let page = Page::new(&PRODUCT, "overview.html", "../", &query, &headers);
    let live = format!("overview/live?lang={}", page.language.code());
    page.render(context! { live, ..content(&prometheus, &client, page.language).await })
}

pub(super) async fn updates(
    State(prometheus): State<Prometheus>,
    State(client): State<kube::Client>,
    query: Query,
    headers: HeaderMap,
) -> Response {
    let language = Language::of(&query, &headers);
    live(LIVE, move || {
        let (prometheus, client) = (prometheus.clone(), client.clone());
        async move { part("overview_part.html", "../", language, content(&prometheus, &client, language).await) }
    })
}

/// What cannot be had is said in `troubles`; the rest is shown.
async fn content(prometheus: &Prometheus, client: &kube::Client, language: Language) -> Value {
    let end = (jiff::Timestamp::now().as_second() as f64 / STEP).floor() * STEP;
    let range = |query| prometheus.range(query, end - SPAN, end, STEP);
    let (graph, inventory, rate, success, p95, mtls, namespaces, proxies, rejects, dropped) = tokio::join!(
        compute(prometheus, &[], GraphType::Workload, 60),
        Inventory::look(client),
        range(RATE),
        range(SUCCESS),
        range(P95),
        range(MTLS),
        range(BY_NAMESPACE),
        range(PROXIES),
        prometheus.query(REJECTS),
        prometheus.query(DROPPED),
    );
    let troubles: Vec<String> = [graph.as_ref().err(), inventory.as_ref().err()].into_iter().flatten().cloned().collect();
    let (graph, inventory) = (graph.unwrap_or_default(), inventory.unwrap_or_default());
    let figure = |title, series: Result<Vec<Series>, String>, unit, health: fn(f64) -> Health| {
        let points = series.unwrap_or_default().into_iter().next().map(|series| series.points).unwrap_or_default();
        // What ended before now is not what is now.
        let last = points.last().filter(|(time, value)| *time >= end - STEP && value.is_finite()).map(|(_, value)| *value);
        let (line, area) = sparkline(&points, end - SPAN, end);
        let value = last.map_or("–".to_owned(), |last| measured(last, unit));
        Figure { title: language.text(title), value, line, area, health: last.map_or(Health::Idle, health).name() }
    };
    let share = |success: f64| match success {
        100.0.. => Health::Healthy,
        90.0..100.0 => Health::Degraded,
        _ => Health::Failure,
    };
    let encrypted = |mtls: f64| if mtls >= 99.9 { Health::Healthy } else { Health::Degraded };
    let figures = [
        figure("rate", rate, "/s", |_| Health::Healthy),
        figure("success_rate", success, "%", share),
        figure("latency_p95", p95, "ms", |_| Health::Healthy),
        figure("mtls_share", mtls, "%", encrypted),
        figure("proxies", proxies, "", |_| Health::Healthy),
    ];
    let mut notes = notes(&graph, &inventory, language);
    if let Some((_, rejected)) = rejects.unwrap_or_default().first().filter(|(_, rejected)| *rejected > 0.0) {
        notes.insert(0, Note { detail: measured(*rejected, ""), ..Note::new("rejected", Health::Failure) });
    }
    let more_notes = notes.len().saturating_sub(MAX_NOTES);
    notes.truncate(MAX_NOTES);
    let dropped = dropped.unwrap_or_default();
    let dropped: Vec<_> = dropped.iter().map(|(metric, count)| (metric.get("__name__"), measured(*count, ""))).collect();
    context! {
        troubles => value(troubles), figures => value(figures), quiet => graph.edges.is_empty(), notes => value(notes), more_notes,
        namespaces => value(namespace_rows(&graph, &inventory, namespaces.unwrap_or_default(), end)), dropped => value(dropped),
    }
}

impl Note {
    fn new(kind: &'static str, health: Health) -> Self {
        Self {
            kind,
            health: health.name(),
            subject: String::new(),
            detail: String::new(),
            explained: Vec::new(),
            namespace: String::new(),
            workload: String::new(),
        }
    }
}

/// What wants attention, the worst first.
fn notes(graph: &Graph, inventory: &Inventory, language: Language) -> Vec<Note> {
    let mut failing: Vec<_> = graph.edges.iter().filter(|(_, edge)| edge.health() >= Health::Degraded).collect();
    failing
        .sort_by(|(_, a), (_, b)| b.health().cmp(&a.health()).then((b.errors() * b.rate()).total_cmp(&(a.errors() * a.rate()))));
    let mut notes: Vec<_> = failing.into_iter().map(|(ends, edge)| failing_note(ends, edge, language)).collect();
    for ((from, to), edge) in graph.edges.iter().filter(|(_, edge)| edge.mtls.is_some_and(|mtls| mtls < 99.9)) {
        notes.push(Note {
            subject: format!("{} → {}", caller(from, language), called(to, language)),
            detail: measured(100.0 - edge.mtls.unwrap_or_default(), "%"),
            ..Note::new("plaintext", Health::Degraded)
        });
    }
    for (namespace, _) in inventory.injected.iter().filter(|(_, injected)| **injected) {
        let bare = inventory.pods.iter().filter(|pod| pod.namespace == *namespace && !pod.proxied && !pod.opted_out).count();
        if bare > 0 {
            let subject = namespace.clone();
            notes.push(Note { subject, detail: bare.to_string(), ..Note::new("no_sidecar", Health::Degraded) });
        }
    }
    for pod in inventory.pods.iter().filter(|pod| !pod.ready) {
        notes.push(Note {
            subject: pod.name.clone(),
            detail: format!("kubectl describe pod -n {} {}", pod.namespace, pod.name),
            ..Note::new("not_ready", Health::Degraded)
        });
    }
    notes
}

fn caller(key: &Key, language: Language) -> String {
    if key.is_unknown() { language.text("outside_mesh").to_owned() } else { name(key) }
}

fn called(key: &Key, language: Language) -> String {
    if key.is_unknown() { language.text("nowhere").to_owned() } else { name(key) }
}

fn failing_note((from, to): &(Key, Key), edge: &Edge, language: Language) -> Note {
    let mut causes: BTreeMap<String, f64> = BTreeMap::new();
    let mut explained = Vec::new();
    for ((code, flags, _), rate) in edge.responses.iter().filter(|((code, _, _), _)| edge.outcome(code) != Outcome::Success) {
        let cause = if flags == "-" { code.clone() } else { format!("{code} {flags}") };
        *causes.entry(cause).or_default() += rate;
        for known in flags.split(',').filter_map(flag) {
            if !explained.contains(&known.meaning(language)) {
                explained.push(known.meaning(language));
            }
        }
    }
    let causes: Vec<_> = causes.into_iter().map(|(cause, rate)| format!("{cause} ({})", measured(rate, "/s"))).collect();
    let known = !from.is_unknown();
    Note {
        subject: format!("{} → {}", caller(from, language), called(to, language)),
        detail: format!("{} · {}", measured(edge.errors(), "%"), causes.join(", ")),
        explained,
        namespace: if known { from.namespace.clone() } else { to.namespace.clone() },
        workload: if known { from.name.clone() } else { to.name.clone() },
        ..Note::new("failing", edge.health())
    }
}

fn namespace_rows(graph: &Graph, inventory: &Inventory, series: Vec<Series>, end: f64) -> Vec<NamespaceRow> {
    let known = |name: &&String| inventory.pods.iter().any(|pod| pod.namespace == **name);
    let row = |(name, injected): (&String, &bool)| {
        let pods = || inventory.pods.iter().filter(|pod| pod.namespace == *name);
        let incoming = || graph.edges.iter().filter(|(ends, _)| ends.1.namespace == *name).map(|(_, edge)| edge);
        let rate = incoming().fold(0.0, |sum, edge| sum + edge.rate());
        let failed = incoming().fold(0.0, |sum, edge| sum + edge.errors() / 100.0 * edge.rate());
        let points = series.iter().find(|series| series.metric.get("destination_workload_namespace") == Some(name));
        let (line, area) = points.map(|series| sparkline(&series.points, end - SPAN, end)).unwrap_or_default();
        NamespaceRow {
            name: name.clone(),
            injected: *injected,
            pods: pods().count(),
            proxied: pods().filter(|pod| pod.proxied).count(),
            rate: measured(rate, "/s"),
            errors: if rate > 0.0 { format!("{:.1} %", failed / rate * 100.0) } else { String::new() },
            p95: incoming().filter_map(|edge| edge.p95).reduce(f64::max).map(|p95| measured(p95, "ms")).unwrap_or_default(),
            health: incoming().map(Edge::health).max().unwrap_or(Health::Idle).name(),
            line,
            area,
        }
    };
    inventory.injected.iter().filter(|(name, _)| known(name)).map(row).collect()
}
