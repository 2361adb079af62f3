//! Pages about traces: the search, and one trace as a waterfall.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use minijinja::{Value, context};
use serde::Serialize;

use super::api::{now, search};
use super::model::{Span, parse_trace_id, trace_id};
use super::store::Store;
use crate::pages::chart::{Dot, scatter};
use crate::pages::{Entry, Page, Product, Query, assets, parameter, value};

/// Rows drawn of one trace.
const MAX_ROWS: usize = 500;
/// Width of a row's picture.
const WIDTH: f64 = 1000.0;
/// Depth up to which names are indented.
const MAX_DEPTH: usize = 12;
const COLORS: usize = 12;

/// The pages, below a base path.
pub(super) fn router(store: Arc<Store>) -> Router {
    Router::new().route("/search", get(search_page)).route("/trace/{id}", get(trace_page)).merge(assets()).with_state(store)
}

/// Where a browser lands.
pub(super) fn home() -> Router {
    Router::new()
        .route("/", get(async || Redirect::temporary("jaeger/search")))
        .route("/jaeger", get(async || Redirect::temporary("jaeger/search")))
        .route("/jaeger/", get(async || Redirect::temporary("search")))
}

/// Its pages.
const PRODUCT: Product =
    Product { name: "Jaeger", pages: &[Entry { path: "search", title: "search", templates: &["search.html", "trace.html"] }] };

#[derive(Serialize)]
struct Found {
    id: String,
    name: String,
    services: String,
    start: String,
    spans: usize,
    duration: String,
    /// Share of the longest trace's duration, in percent.
    share: f64,
    failed: usize,
    /// Its dot among the others.
    #[serde(flatten)]
    dot: Dot,
}

async fn search_page(State(store): State<Arc<Store>>, mut query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "search.html", "", &query, &headers);
    let language = page.language;
    let services = store.services();
    let service = parameter(&query, "service").map(str::to_owned).or_else(|| services.first().cloned()).unwrap_or_default();
    let lookback = parameter(&query, "lookback").unwrap_or("1h").to_owned();
    query.retain(|(name, value)| !(value.is_empty() || name == "service" || name == "lookback"));
    query.extend([("service".to_owned(), service.clone()), ("lookback".to_owned(), lookback.clone())]);
    query.push(("limit".to_owned(), "50".to_owned()));
    let (mut traces, mut error) = (Vec::new(), String::new());
    if !service.is_empty() {
        match search(&query, now()) {
            Ok(search) => traces = store.search(&search),
            Err(message) => error = message,
        }
    }
    let times: Vec<_> = traces.iter().map(|spans| seconds(spans)).collect();
    let sizes: Vec<_> = traces.iter().map(|spans| spans.len()).collect();
    let (scatter, dots) = scatter(&times, &sizes);
    let longest = times.iter().map(|(_, duration)| *duration).fold(f64::MIN_POSITIVE, f64::max);
    let traces: Vec<_> = traces.iter().zip(dots).map(|(spans, dot)| found(spans, dot, longest)).collect();
    let counts = store.counts();
    let counts = format!(
        "{} {}, {} {}, {:.1} MiB; {}: {}",
        counts.traces,
        language.text("trace"),
        counts.spans,
        language.text("spans"),
        counts.bytes as f64 / f64::from(1 << 20),
        language.text("dropped"),
        counts.refused + counts.forgotten
    );
    let operations: BTreeSet<String> = store.operations(&service).into_iter().map(|(name, _)| name).collect();
    let text = |name: &str| parameter(&query, name).unwrap_or_default().to_owned();
    page.render(context! {
        services => value(services), service, operations => value(operations), operation => text("operation"), tag => text("tag"), min_duration => text("minDuration"),
        lookback, traces => value(traces), scatter => value(scatter), error, counts,
    })
}

/// Start and duration, in seconds.
fn seconds(spans: &[Span]) -> (f64, f64) {
    let (start, end) = extent(spans);
    (start as f64 / 1e6, (end - start) as f64 / 1e6)
}

/// `longest`: the duration of the longest trace, in seconds.
fn found(spans: &[Span], dot: Dot, longest: f64) -> Found {
    let services: BTreeSet<&str> = spans.iter().map(|span| span.process.service.as_str()).collect();
    let (start, end) = extent(spans);
    Found {
        id: spans.first().map(|span| trace_id(span.trace)).unwrap_or_default(),
        name: spans.first().map(title).unwrap_or_default(),
        services: services.into_iter().collect::<Vec<_>>().join(", "),
        start: clock(start),
        spans: spans.len(),
        duration: span_of_time(end - start),
        share: seconds(spans).1 / longest * 100.0,
        failed: spans.iter().filter(|span| span.is_error()).count(),
        dot,
    }
}

/// The service, and what it was asked for: of HTTP method and path, else the operation.
fn title(span: &Span) -> String {
    let tag = |name: &str| span.tags.iter().find(|(key, _)| key == name).map(|(_, value)| plain(value));
    let path = tag("http.url").and_then(|url| Some(url::Url::parse(&url).ok()?.path().to_owned()));
    match (tag("http.method"), path) {
        (Some(method), Some(path)) => format!("{}: {method} {path}", span.process.service),
        _ => format!("{}: {}", span.process.service, span.name),
    }
}

/// Start of the first and end of the last span, in microseconds.
fn extent(spans: &[Span]) -> (u64, u64) {
    let start = spans.iter().map(|span| span.start).min().unwrap_or_default();
    (start, spans.iter().map(Span::end).max().unwrap_or(start))
}

fn clock(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok()).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

fn span_of_time(micros: u64) -> String {
    match micros {
        0 => "0".to_owned(),
        1..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[derive(Serialize)]
struct Row {
    depth: usize,
    x: f64,
    width: f64,
    color: usize,
    failed: bool,
    service: String,
    operation: String,
    duration: String,
    /// Position and width of the parts that determine how long the trace takes.
    critical: Vec<(f64, f64)>,
    tags: Vec<(String, String)>,
}

async fn trace_page(State(store): State<Arc<Store>>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "trace.html", "../", &query, &headers);
    match parse_trace_id(&id).and_then(|id| store.trace(id)) {
        Some(spans) => page.render(waterfall(&spans)),
        None => page.error(StatusCode::NOT_FOUND, "trace not found").into_response(),
    }
}

fn waterfall(spans: &[Span]) -> Value {
    let (start, end) = extent(spans);
    let length = (end - start).max(1) as f64;
    let x = |time: u64| (time.saturating_sub(start)) as f64 / length * WIDTH;
    let services: BTreeSet<&str> = spans.iter().map(|span| span.process.service.as_str()).collect();
    let color: BTreeMap<&str, usize> =
        services.into_iter().enumerate().map(|(index, service)| (service, index % COLORS)).collect();
    let tree = Tree::new(spans);
    let critical = tree.critical_path();
    let row = |(index, depth): &(usize, usize)| {
        let span = &spans[*index];
        let (from, to) = (x(span.start), x(span.end()));
        let tags = span.tags.iter().chain(&span.process.tags).map(|(name, value)| (name.clone(), plain(value)));
        let events =
            span.events.iter().flat_map(|event| &event.fields).map(|(name, value)| (format!("event: {name}"), plain(value)));
        // Two units are the least that can be seen.
        let width = (to - from).max(2.0);
        Row {
            depth: (*depth).min(MAX_DEPTH),
            x: from.min(WIDTH - width),
            width,
            color: color.get(span.process.service.as_str()).copied().unwrap_or_default(),
            failed: span.is_error(),
            service: span.process.service.clone(),
            operation: span.name.clone(),
            duration: span_of_time(span.duration),
            critical: critical
                .get(index)
                .into_iter()
                .flatten()
                .map(|(from, to)| (x(*from), (x(*to) - x(*from)).max(0.5)))
                .collect(),
            tags: tags.chain(events).chain(span.warnings.iter().map(|warning| ("warning".to_owned(), warning.clone()))).collect(),
        }
    };
    let rows: Vec<Row> = tree.order().iter().take(MAX_ROWS).map(row).collect();
    let ticks: Vec<_> = (0..=4_u64).map(|tick| span_of_time((end - start) * tick / 4)).collect();
    context! {
        name => spans.first().map(title).unwrap_or_default(), id => spans.first().map(|span| trace_id(span.trace)).unwrap_or_default(),
        start => clock(start), duration => span_of_time(end - start), services => value(color.into_iter().collect::<Vec<_>>()),
        more => spans.len().saturating_sub(MAX_ROWS), rows => value(rows), ticks => value(ticks),
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Spans by what they are part of.
struct Tree<'a> {
    spans: &'a [Span],
    roots: Vec<usize>,
    children: Vec<Vec<usize>>,
}

impl<'a> Tree<'a> {
    /// `spans` are in order of their start.
    fn new(spans: &'a [Span]) -> Self {
        // A client's and a server's span may share an identity (Zipkin's do): the first has it.
        let mut owner: HashMap<u64, usize> = HashMap::new();
        for (index, span) in spans.iter().enumerate() {
            owner.entry(span.id).or_insert(index);
        }
        let (mut roots, mut children) = (Vec::new(), vec![Vec::new(); spans.len()]);
        for (index, span) in spans.iter().enumerate() {
            match span.parent.and_then(|parent| owner.get(&parent)) {
                // Spans are sorted, so that a parent that comes later cannot make a circle.
                Some(parent) if *parent < index => children[*parent].push(index),
                _ => roots.push(index),
            }
        }
        Self { spans, roots, children }
    }

    /// Every span with its depth, parents before children.
    fn order(&self) -> Vec<(usize, usize)> {
        let mut order = Vec::with_capacity(self.spans.len());
        let mut stack: Vec<_> = self.roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((index, depth)) = stack.pop() {
            order.push((index, depth));
            stack.extend(self.children[index].iter().rev().map(|child| (*child, depth + 1)));
        }
        order
    }

    /// The stretches of each span without which the trace would have been shorter: from the end back, always into the child that
    /// ended last.
    fn critical_path(&self) -> BTreeMap<usize, Vec<(u64, u64)>> {
        let mut path: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
        let longest = self.roots.iter().max_by_key(|root| self.spans[**root].duration);
        let mut stack: Vec<_> = longest.map(|root| (*root, self.spans[*root].end())).into_iter().collect();
        while let Some((index, until)) = stack.pop() {
            let span = &self.spans[index];
            let whole = until.min(span.end());
            let mut until = whole;
            let mut children = self.children[index].clone();
            children.sort_by_key(|child| std::cmp::Reverse(self.spans[*child].end()));
            for child in children {
                let inner = &self.spans[child];
                // One that still ran when its successor began held up nobody.
                if inner.start >= until || inner.start < span.start || (until < whole && inner.end() > until) {
                    continue;
                }
                let end = inner.end().min(until);
                if until > end {
                    path.entry(index).or_default().push((end, until));
                }
                stack.push((child, end));
                until = inner.start;
            }
            if until > span.start {
                path.entry(index).or_default().push((span.start, until));
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::model::Process;

    fn span(id: u64, parent: Option<u64>, start: u64, duration: u64) -> Span {
        Span {
            trace: 1,
            id,
            parent,
            process: Arc::new(Process { service: format!("s{id}"), tags: Vec::new() }),
            name: "op".to_owned(),
            start,
            duration,
            tags: Vec::new(),
            events: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_critical_path_goes_through_the_child_that_ended_last() {
        let spans = [span(1, None, 0, 100), span(2, Some(1), 10, 40), span(3, Some(1), 20, 70), span(4, Some(3), 30, 50)];
        let path = Tree::new(&spans).critical_path();
        assert_eq!(path, [(0, vec![(90, 100), (0, 20)]), (2, vec![(80, 90), (20, 30)]), (3, vec![(30, 80)])].into());
    }

    #[test]
    fn a_circle_of_parents_is_drawn_nonetheless() {
        let spans = [span(1, Some(2), 0, 10), span(2, Some(1), 0, 10), span(3, Some(3), 0, 10)];
        let tree = Tree::new(&spans);
        assert_eq!(tree.order().len(), 3);
        tree.critical_path();
    }
}
