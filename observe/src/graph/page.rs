//! The graph as a picture.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use minijinja::{Value, context};
use serde::Serialize;
use url::form_urlencoded;

use super::layout::{Direction, Layout, Point, layout};
use super::model::{Edge, Graph, Health, Key};
use super::{Language, PRODUCT, Prometheus, Query, Question};
use crate::pages::{Page, measured, part, readable, value};

/// Traffic moves in pictures of so many edges; in larger ones nobody could follow it.
const MAX_MOVING: usize = 80;
/// How fast it moves: units of the picture in a second.
const SPEED: f64 = 70.0;

#[derive(Serialize)]
struct DrawnNode {
    x: f64,
    y: f64,
    label: String,
    version: String,
    detail: String,
    /// The text for a node that nobody knows; empty for others.
    unknown: &'static str,
    health: &'static str,
    /// Parameters of the page with its access log; empty if it has none.
    logs: String,
    title: String,
}

/// The line of an edge in one picture.
#[derive(Serialize)]
struct DrawnEdge {
    key: String,
    path: String,
    thickness: f64,
    health: &'static str,
    label: String,
    /// Middle, and width, of the label.
    at: Point,
    label_width: f64,
    locked: bool,
    title: String,
    /// What moves along: how long it takes, when it sets out, and whether it stands for errors.
    moving: Vec<(String, String, bool)>,
}

#[derive(Serialize)]
struct Picture {
    id: &'static str,
    width: f64,
    height: f64,
    node_width: f64,
    node_height: f64,
    nodes: Vec<DrawnNode>,
    edges: Vec<DrawnEdge>,
}

/// An edge as a row of the table below the picture.
#[derive(Serialize)]
struct Row {
    key: String,
    from: String,
    to: String,
    protocol: String,
    rate: String,
    errors: String,
    health: &'static str,
    responses: String,
    p95: String,
    /// Percent.
    mtls: Option<u8>,
}

pub(super) async fn page(State(prometheus): State<Prometheus>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "graph.html", "../", &query, &headers);
    let question = match Question::of(&query) {
        Ok(question) => question,
        Err(message) => return page.error(StatusCode::BAD_REQUEST, &message),
    };
    let (graph, known) = tokio::join!(question.answer(&prometheus), prometheus.label_values("destination_workload_namespace"));
    let graph = match graph {
        Ok(graph) => graph,
        Err(message) => return page.error(StatusCode::SERVICE_UNAVAILABLE, &message),
    };
    let mut known = known.unwrap_or_default();
    known.retain(|name| name != "unknown");
    let namespaces = question.namespaces.join(",");
    if !namespaces.is_empty() && !known.contains(&namespaces) {
        known.push(namespaces.clone());
    }
    let parameters = form_urlencoded::Serializer::new(String::new())
        .append_pair("namespaces", &namespaces)
        .append_pair("duration", &question.duration.to_string())
        .append_pair("graphType", question.kind.name())
        .append_pair("lang", page.language.code())
        .finish();
    page.render(context! {
        namespaces, known => value(known), duration => question.duration, graph_type => question.kind.name(),
        live => format!("live?{parameters}"), ..content(&graph),
    })
}

/// The picture alone.
pub(super) fn picture(graph: &Graph, language: Language) -> Result<String, String> {
    part("graph_picture.html", "../", language, content(graph))
}

fn content(graph: &Graph) -> Value {
    let keys: Vec<&Key> = graph.nodes.keys().collect();
    let index = |key: &Key| keys.binary_search(&key).unwrap_or_default();
    let ends: Vec<_> = graph.edges.keys().map(|(from, to)| (index(from), index(to))).collect();
    let draw = |id, direction| Drawing { graph, keys: &keys, layout: layout(keys.len(), &ends, direction) }.picture(id);
    let pictures = [draw("wide", Direction::Right), draw("tall", Direction::Down)];
    let rows: Vec<_> = graph.edges.iter().map(|((from, to), edge)| row(from, to, edge)).collect();
    context! { pictures => value(pictures), rows => value(rows), left_out => graph.left_out }
}

pub(super) fn name(key: &Key) -> String {
    if key.version.is_empty() || key.version == "unknown" { key.name.clone() } else { format!("{} {}", key.name, key.version) }
}

fn shortened(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut width = 1;
    let fits = |character: &char| {
        width += columns_of(*character);
        width <= most
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// Width in columns, about: characters of East Asia take two.
fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(character: char) -> usize {
    if character >= '\u{1100}' { 2 } else { 1 }
}

fn row(from: &Key, to: &Key, edge: &Edge) -> Row {
    let tcp = edge.protocol == "tcp";
    let (rate, errors) = (edge.rate(), edge.errors());
    let mut codes: Vec<(String, f64)> = Vec::new();
    for ((code, flags, _), rate) in edge.responses.iter().filter(|(_, rate)| **rate > 0.0) {
        let code = if flags == "-" { code.clone() } else { format!("{code} {flags}") };
        match codes.iter_mut().find(|(other, _)| *other == code) {
            Some((_, sum)) => *sum += rate,
            None => codes.push((code, *rate)),
        }
    }
    let share = |(code, of_code): &(String, f64)| format!("{code}: {}%", readable(of_code / rate * 100.0));
    Row {
        key: key(from, to),
        from: name(from),
        to: name(to),
        protocol: edge.protocol.clone(),
        rate: if tcp { measured(edge.throughput, "B/s") } else { measured(rate, "/s") },
        errors: if tcp { String::new() } else { format!("{errors:.1} %") },
        health: edge.health().name(),
        responses: codes.iter().take(6).map(share).collect::<Vec<_>>().join(", "),
        p95: edge.p95.map(|p95| measured(p95, "ms")).unwrap_or_default(),
        mtls: edge.mtls.map(|mtls| mtls.round().clamp(0.0, 100.0) as u8),
    }
}

fn key(from: &Key, to: &Key) -> String {
    [from, to].map(|key| format!("{}/{}/{}", key.namespace, key.name, key.version)).join(">")
}

/// One picture of a graph.
struct Drawing<'a> {
    graph: &'a Graph,
    keys: &'a [&'a Key],
    layout: Layout,
}

impl Drawing<'_> {
    fn picture(&self, id: &'static str) -> Picture {
        let (node_width, node_height) = self.layout.node;
        let mut labels: Vec<Rectangle> =
            self.layout.nodes.iter().map(|(x, y)| Rectangle { x: *x, y: *y, width: node_width, height: node_height }).collect();
        let edges = self.graph.edges.iter().zip(&self.layout.routes);
        let edges = edges.map(|(((from, to), edge), route)| self.edge((from, to), edge, route, &mut labels)).collect();
        let nodes = self.keys.iter().zip(&self.layout.nodes).map(|(key, middle)| self.node(key, *middle)).collect();
        Picture { id, width: self.layout.width, height: self.layout.height, node_width, node_height, nodes, edges }
    }

    fn node(&self, key: &Key, (x, y): Point) -> DrawnNode {
        let incoming = || self.graph.edges.iter().filter(|(ends, _)| ends.1 == *key).map(|(_, edge)| edge);
        let health = incoming().map(Edge::health).max().unwrap_or(Health::Healthy);
        let rate: f64 = incoming().fold(0.0, |sum, edge| sum + edge.rate());
        let version = if key.version == "unknown" { "" } else { &key.version };
        let version = shortened(version, 8);
        // In characters of Latin script.
        let longest: usize = if self.layout.direction == Direction::Right { 20 } else { 13 };
        let room = longest.saturating_sub(if version.is_empty() { 0 } else { columns(&version) + 2 });
        let called = incoming().next().is_some();
        let unknown = match (key.is_unknown(), called) {
            (false, _) => "",
            (true, false) => "outside_mesh",
            (true, true) if self.graph.edges.keys().any(|ends| ends.0 == *key) => "unknown",
            (true, true) => "nowhere",
        };
        let namespace = if key.is_unknown() { "" } else { &key.namespace };
        let detail = if rate > 0.0 {
            format!("{} · {}", shortened(namespace, 10), measured(rate, "/s"))
        } else {
            shortened(namespace, 20)
        };
        let workload = self.graph.nodes.get(key).map(|node| node.workload.as_str()).unwrap_or_default();
        let logs = if key.is_unknown() || workload.is_empty() || workload == "unknown" {
            String::new()
        } else {
            form_urlencoded::Serializer::new(String::new())
                .append_pair("namespace", &key.namespace)
                .append_pair("workload", workload)
                .finish()
        };
        DrawnNode {
            x: x - self.layout.node.0 / 2.0,
            y: y - self.layout.node.1 / 2.0,
            label: shortened(&key.name, room),
            version,
            detail,
            unknown,
            health: health.name(),
            logs,
            title: format!("{} ({})", name(key), key.namespace),
        }
    }

    fn edge(&self, (from, to): (&Key, &Key), edge: &Edge, route: &[Point], taken: &mut Vec<Rectangle>) -> DrawnEdge {
        let curves = if route.is_empty() { vec![self.own_loop(from)] } else { self.curves(route) };
        let rate = edge.rate();
        let tcp = edge.protocol == "tcp";
        let errors = edge.errors();
        let share = if errors >= 0.05 { format!(" · {}% ✕", readable(errors)) } else { String::new() };
        let label = format!("{}{share}", if tcp { measured(edge.throughput, "B/s") } else { measured(rate, "/s") });
        let locked = edge.mtls.is_some_and(|mtls| mtls >= 99.9);
        let label_width = columns(&label) as f64 * 6.4 + 14.0 + if locked { 15.0 } else { 0.0 };
        let length: f64 = curves.iter().map(|[a, _, _, b]| (a.0 - b.0).hypot(a.1 - b.1)).sum();
        let details = row(from, to, edge);
        DrawnEdge {
            key: details.key,
            path: path(&curves),
            thickness: (1.8 + rate.max(0.0).sqrt() / 2.0).min(6.0),
            health: details.health,
            at: place(&curves, label_width, taken),
            label,
            label_width,
            locked,
            title: format!("{} → {}: {} {} {}", details.from, details.to, details.rate, details.responses, details.p95),
            moving: if self.graph.edges.len() <= MAX_MOVING { moving(edge, length) } else { Vec::new() },
        }
    }

    /// The curves and lines of a route, all as cubic Bézier curves that leave and arrive along the direction of calls.
    fn curves(&self, route: &[Point]) -> Vec<Curve> {
        let right = self.layout.direction == Direction::Right;
        let curve = |pair: &[Point]| {
            let (a, b) = (pair[0], pair[1]);
            if right {
                let middle = f64::midpoint(a.0, b.0);
                [a, (middle, a.1), (middle, b.1), b]
            } else {
                let middle = f64::midpoint(a.1, b.1);
                [a, (a.0, middle), (b.0, middle), b]
            }
        };
        route.windows(2).map(curve).collect()
    }

    /// From a node to itself, over its head.
    fn own_loop(&self, key: &Key) -> Curve {
        let index = self.keys.binary_search(&key).unwrap_or_default();
        let (x, y) = self.layout.nodes.get(index).copied().unwrap_or_default();
        let top = y - self.layout.node.1 / 2.0;
        [(x + 24.0, top), (x + 48.0, top - 40.0), (x - 48.0, top - 40.0), (x - 24.0, top)]
    }
}

type Curve = [Point; 4];

fn path(curves: &[Curve]) -> String {
    let mut path = String::new();
    for [a, b, c, d] in curves {
        if path.is_empty() {
            path.push_str(&format!("M{:.1} {:.1}", a.0, a.1));
        }
        path.push_str(&format!("C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", b.0, b.1, c.0, c.1, d.0, d.1));
    }
    path
}

/// What moves along an edge: more for more requests, and as large a share of errors as there is.
fn moving(edge: &Edge, length: f64) -> Vec<(String, String, bool)> {
    let rate = edge.rate();
    if rate <= 0.0 && edge.throughput <= 0.0 {
        return Vec::new();
    }
    let count = ((1.0 + rate).log2().ceil() as usize).clamp(1, 6);
    let errors = edge.errors();
    let failed = if errors > 0.0 { ((count as f64 * errors / 100.0).round() as usize).max(1) } else { 0 };
    // A lone dot must not be an error if most requests succeed.
    let count = if failed >= count && errors < 99.0 { count + 1 } else { count };
    let takes = (length / SPEED).max(1.0);
    (0..count)
        .map(|index| (format!("{takes:.2}s"), format!("-{:.2}s", takes * index as f64 / count as f64), index < failed))
        .collect()
}

#[derive(Debug, Clone, Copy)]
struct Rectangle {
    /// Its middle.
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Rectangle {
    /// How much of it another one covers.
    fn overlap(&self, other: &Self) -> f64 {
        let across = (self.width + other.width) / 2.0 - (self.x - other.x).abs();
        let along = (self.height + other.height) / 2.0 - (self.y - other.y).abs();
        across.max(0.0) * along.max(0.0)
    }
}

/// Where on its edge a label covers no node and no other label, or as little of them as can be.
fn place(curves: &[Curve], width: f64, taken: &mut Vec<Rectangle>) -> Point {
    let at = |[a, b, c, d]: &Curve, t: f64| {
        let mix = |a: f64, b: f64, c: f64, d: f64| {
            let s = 1.0 - t;
            s * s * s * a + 3.0 * s * s * t * b + 3.0 * s * t * t * c + t * t * t * d
        };
        (mix(a.0, b.0, c.0, d.0), mix(a.1, b.1, c.1, d.1))
    };
    let mut best: Option<(f64, Rectangle)> = None;
    // The last curve is where edges from one node have parted.
    for curve in curves.iter().rev().step_by(2) {
        for t in [0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2] {
            let (x, y) = at(curve, t);
            let label = Rectangle { x, y, width: width + 4.0, height: 24.0 };
            let covered: f64 = taken.iter().map(|other| label.overlap(other)).sum();
            if best.as_ref().is_none_or(|(least, _)| covered < *least) {
                best = Some((covered, label));
            }
        }
    }
    let Some((_, label)) = best else { return (0.0, 0.0) };
    taken.push(label);
    (label.x, label.y)
}
