//! The graph in the JSON of Kiali's API (`/api/namespaces/graph`).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::model::{Edge, Graph, GraphType, Key, Node, Outcome};

/// `duration` and `time` in seconds.
pub(super) fn graph(graph: &Graph, kind: GraphType, duration: u64, time: i64) -> Value {
    let nodes: Vec<Value> = graph.nodes.iter().map(|(key, node)| json!({"data": node_json(graph, kind, key, node)})).collect();
    let edges: Vec<Value> = graph.edges.iter().map(|(ends, edge)| json!({"data": edge_json(graph, ends, edge)})).collect();
    json!({"timestamp": time, "duration": duration, "graphType": kind.name(), "elements": {"nodes": nodes, "edges": edges}})
}

fn id(value: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The names of failures among a protocol's rates.
fn failures(protocol: &str) -> &'static [(&'static str, Outcome)] {
    match protocol {
        "http" => &[("4xx", Outcome::ClientError), ("5xx", Outcome::ServerError), ("NoResponse", Outcome::NoResponse)],
        "grpc" => &[("Err", Outcome::ServerError), ("NoResponse", Outcome::NoResponse)],
        _ => &[],
    }
}

fn node_json(graph: &Graph, kind: GraphType, key: &Key, node: &Node) -> Value {
    let node_type = match kind {
        _ if key.is_unknown() => "unknown",
        GraphType::Workload => "workload",
        GraphType::App | GraphType::VersionedApp => "app",
    };
    let edges = |incoming: bool| {
        graph.edges.iter().filter(move |(ends, _)| if incoming { ends.1 == *key } else { ends.0 == *key }).map(|(_, edge)| edge)
    };
    let mut traffic: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for (incoming, suffix) in [(true, "In"), (false, "Out")] {
        for protocol in ["http", "grpc", "tcp"] {
            let of_protocol: Vec<&Edge> = edges(incoming).filter(|edge| edge.protocol == protocol).collect();
            let sum = |rate: fn(&Edge) -> f64| of_protocol.iter().map(|edge| rate(edge)).sum::<f64>();
            let total = sum(if protocol == "tcp" { |edge| edge.throughput } else { Edge::rate });
            let failures = failures(protocol).iter().map(|(name, outcome)| {
                (format!("{protocol}{suffix}{name}"), of_protocol.iter().map(|edge| edge.rate_of(*outcome)).sum())
            });
            let rates = std::iter::once((format!("{protocol}{suffix}"), total)).chain(failures);
            for (name, rate) in rates.filter(|(_, rate)| *rate > 0.0) {
                traffic.entry(protocol).or_default().insert(name, format!("{rate:.2}"));
            }
        }
    }
    let traffic: Vec<Value> =
        traffic.into_iter().map(|(protocol, rates)| json!({"protocol": protocol, "rates": rates})).collect();
    let services: Vec<Value> = node
        .services
        .iter()
        .map(|(namespace, name)| json!({"cluster": "Kubernetes", "namespace": namespace, "name": name}))
        .collect();
    let mut data = json!({
        "id": id(key), "nodeType": node_type, "cluster": "Kubernetes", "namespace": key.namespace, "workload": node.workload, "app": node.app,
        "destServices": services, "traffic": traffic, "healthData": null, "isRoot": edges(true).next().is_none(),
    });
    if !key.version.is_empty() {
        data["version"] = json!(key.version);
    }
    data
}

fn edge_json(graph: &Graph, ends: &(Key, Key), edge: &Edge) -> Value {
    let all: f64 = graph.edges.iter().filter(|(other, _)| other.0 == ends.0).map(|(_, edge)| edge.rate()).sum();
    let rate = edge.rate();
    let protocol = edge.protocol.as_str();
    let mut rates = BTreeMap::new();
    if protocol == "tcp" {
        rates.insert("tcp".to_owned(), format!("{:.2}", edge.throughput));
    } else {
        rates.insert(protocol.to_owned(), format!("{rate:.2}"));
        for (name, outcome) in failures(protocol) {
            let rate = edge.rate_of(*outcome);
            if rate > 0.0 {
                rates.insert(format!("{protocol}{name}"), format!("{rate:.2}"));
            }
        }
        if edge.errors() > 0.0 {
            rates.insert(format!("{protocol}PercentErr"), format!("{:.1}", edge.errors()));
        }
        if all > 0.0 {
            rates.insert(format!("{protocol}PercentReq"), format!("{:.1}", rate / all * 100.0));
        }
    }
    let mut responses: BTreeMap<&str, [BTreeMap<&str, f64>; 2]> = BTreeMap::new();
    for ((code, flags, host), of_response) in &edge.responses {
        let [by_flags, by_host] = responses.entry(code).or_default();
        *by_flags.entry(flags).or_default() += of_response / rate * 100.0;
        *by_host.entry(host).or_default() += of_response / rate * 100.0;
    }
    let percent = |shares: BTreeMap<&str, f64>| {
        shares.into_iter().map(|(name, share)| (name.to_owned(), json!(format!("{share:.1}")))).collect::<serde_json::Map<_, _>>()
    };
    let responses: serde_json::Map<_, _> = responses
        .into_iter()
        .map(|(code, [flags, hosts])| (code.to_owned(), json!({"flags": percent(flags), "hosts": percent(hosts)})))
        .collect();
    let mut data = json!({
        "id": id(ends), "source": id(&ends.0), "target": id(&ends.1),
        "traffic": {"protocol": protocol, "rates": rates, "responses": responses},
    });
    let optional = [
        ("isMTLS", edge.mtls.map(|share| format!("{share:.0}"))),
        ("responseTime", edge.p95.map(|p95| format!("{p95:.0}"))),
        ("throughput", (edge.throughput > 0.0).then(|| format!("{:.0}", edge.throughput))),
        ("sourcePrincipal", (!edge.source_principal.is_empty()).then(|| edge.source_principal.clone())),
        ("destPrincipal", (!edge.destination_principal.is_empty()).then(|| edge.destination_principal.clone())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            data[name] = json!(value);
        }
    }
    data
}
