//! The graph as a picture.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use minijinja::{Value, context};
use serde::Serialize;
use url::form_urlencoded;

use super::layout::{NODE_HEIGHT, NODE_WIDTH, layout};
use super::model::{Edge, Graph, Key};
use super::{Language, Prometheus, Query, Question};
use crate::pages::{Page, readable, value};

/// Longest label of a node, in characters.
const MAX_LABEL: usize = 20;

#[derive(Serialize)]
struct DrawnNode {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    label: String,
    detail: String,
    failing: bool,
}

#[derive(Serialize)]
struct DrawnEdge {
    from: String,
    to: String,
    path: String,
    thickness: String,
    label: String,
    label_x: f64,
    label_y: f64,
    locked: bool,
    health: &'static str,
    protocol: String,
    rate: String,
    errors: String,
    p95: String,
    mtls: String,
}

fn frame(template: &'static str, language: Language) -> Page<'static> {
    Page { template, product: "Kiali", root: "../", language }
}

pub(super) async fn page(State(prometheus): State<Prometheus>, query: Query, headers: HeaderMap) -> Response {
    let language = Language::of(&query, &headers);
    let page = frame("graph.html", language);
    let question = match Question::of(&query) {
        Ok(question) => question,
        Err(message) => return page.error(StatusCode::BAD_REQUEST, &message),
    };
    let (graph, known) = tokio::join!(question.answer(&prometheus), prometheus.label_values("destination_workload_namespace"));
    let graph = match graph {
        Ok(graph) => graph,
        Err(message) => return page.error(StatusCode::SERVICE_UNAVAILABLE, &message),
    };
    let namespaces = question.namespaces.join(",");
    let parameters = form_urlencoded::Serializer::new(String::new())
        .append_pair("namespaces", &namespaces)
        .append_pair("duration", &question.duration.to_string())
        .append_pair("graphType", question.kind.name())
        .append_pair("lang", language.code())
        .finish();
    page.render(context! {
        namespaces, known => value(known.unwrap_or_default()), duration => question.duration, graph_type => question.kind.name(),
        live => format!("live?{parameters}"), ..picture_context(&graph),
    })
}

/// The picture alone.
pub(super) fn picture(graph: &Graph, language: Language) -> Result<String, String> {
    frame("graph_picture.html", language).text(picture_context(graph)).map_err(|error| error.to_string())
}

fn picture_context(graph: &Graph) -> Value {
    let keys: Vec<&Key> = graph.nodes.keys().collect();
    let index = |key: &Key| keys.binary_search(&key).unwrap_or_default();
    let ends: Vec<_> = graph.edges.keys().map(|(from, to)| (index(from), index(to))).collect();
    let layout = layout(keys.len(), &ends);
    let nodes: Vec<_> = keys
        .iter()
        .zip(&layout.positions)
        .map(|(key, (x, y))| DrawnNode {
            x: x - NODE_WIDTH / 2.0,
            y: y - NODE_HEIGHT / 2.0,
            width: NODE_WIDTH,
            height: NODE_HEIGHT,
            label: shortened(&name(key)),
            detail: shortened(&key.namespace),
            failing: graph.edges.iter().any(|(ends, edge)| ends.1 == **key && edge.rate_of(&['5', '0']) > 0.0),
        })
        .collect();
    let edges: Vec<_> = graph
        .edges
        .iter()
        .zip(&ends)
        .map(|(((from, to), edge), (a, b))| draw(edge, &name(from), &name(to), layout.positions[*a], layout.positions[*b]))
        .collect();
    context! { nodes => value(nodes), edges => value(edges), width => layout.width, height => layout.height }
}

fn name(key: &Key) -> String {
    if key.version.is_empty() || key.version == "unknown" { key.name.clone() } else { format!("{} {}", key.name, key.version) }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_LABEL { text.to_owned() } else { text.chars().take(MAX_LABEL - 1).chain(['…']).collect() }
}

fn draw(edge: &Edge, from: &str, to: &str, a: (f64, f64), b: (f64, f64)) -> DrawnEdge {
    let half = NODE_WIDTH / 2.0;
    let (path, label_x, label_y) = if a == b {
        let (x, top) = (a.0, a.1 - NODE_HEIGHT / 2.0);
        (format!("M{} {top}C{} {} {} {} {} {top}", x - 20.0, x - 30.0, top - 34.0, x + 30.0, top - 34.0, x + 20.0), x, top - 20.0)
    } else {
        // Forward from the right side to the left one; back, the other way round and bent below.
        let forward = b.0 > a.0;
        let (x1, x2) = if forward { (a.0 + half, b.0 - half) } else { (a.0 - half, b.0 + half) };
        let bend = if forward { 0.0 } else { 46.0 };
        let middle = f64::midpoint(x1, x2);
        let path = format!("M{x1:.1} {:.1}C{middle:.1} {:.1} {middle:.1} {:.1} {x2:.1} {:.1}", a.1, a.1 + bend, b.1 + bend, b.1);
        (path, middle, f64::midpoint(a.1, b.1) + bend * 0.75 - 6.0)
    };
    let (rate, errors) = (edge.rate(), edge.errors());
    let tcp = edge.protocol == "tcp";
    let measured = if tcp { format!("{}B/s", readable(edge.throughput)) } else { format!("{}/s", readable(rate)) };
    let health = match errors {
        _ if !tcp && rate == 0.0 => "idle",
        _ if edge.rate_of(&['5', '0']) > 0.0 => "failing",
        errors if errors > 0.0 => "warning",
        _ => "",
    };
    let share = if errors > 0.0 { format!(" · {errors:.0}% ✕") } else { String::new() };
    let p95 = edge.p95.map(|p95| format!("{} ms", readable(p95))).unwrap_or_default();
    DrawnEdge {
        from: from.to_owned(),
        to: to.to_owned(),
        path,
        thickness: format!("{:.1}", (1.5 + rate.max(0.0).sqrt() / 2.0).min(7.0)),
        label: format!("{measured}{share}"),
        label_x,
        label_y,
        locked: edge.mtls.is_some_and(|mtls| mtls >= 99.9),
        health,
        protocol: edge.protocol.clone(),
        rate: measured,
        errors: format!("{errors:.1} %"),
        p95,
        mtls: edge.mtls.map(|mtls| format!("{mtls:.0} %")).unwrap_or_default(),
    }
}
