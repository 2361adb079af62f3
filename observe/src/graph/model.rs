//! The graph of the mesh, from its metrics alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::prometheus_client::{Metric, Prometheus};

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GraphType {
    Workload,
    App,
    VersionedApp,
}

impl GraphType {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "workload" => Ok(Self::Workload),
            "app" => Ok(Self::App),
            "" | "versionedApp" => Ok(Self::VersionedApp),
            other => Err(format!("graphType {other:?} is not supported: workload, app and versionedApp are")),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::App => "app",
            Self::VersionedApp => "versionedApp",
        }
    }
}

/// A node's identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    /// Workload or application.
    pub(crate) name: String,
    /// Empty where versions are not told apart.
    pub(crate) version: String,
}

impl Key {
    /// Whether nobody knows who it is: a client without a sidecar.
    pub(crate) fn is_unknown(&self) -> bool {
        self.name == "unknown"
    }
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) workload: String,
    pub(crate) app: String,
    pub(crate) version: String,
    /// Services it was called by: namespace and name.
    pub(crate) services: BTreeSet<(String, String)>,
}

/// Traffic from one node to another.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Edge {
    /// `http`, `grpc` or `tcp`.
    pub(crate) protocol: String,
    /// Requests a second by response code, response flags and service; of TCP, nothing.
    pub(crate) responses: BTreeMap<(String, String, String), f64>,
    /// Share of the requests over mutual TLS, in percent, if the called side has measured any.
    pub(crate) mtls: Option<f64>,
    /// 95th percentile, milliseconds.
    pub(crate) p95: Option<f64>,
    /// Bytes a second.
    pub(crate) throughput: f64,
    pub(crate) source_principal: String,
    pub(crate) destination_principal: String,
}

impl Edge {
    /// Requests a second. (An empty `sum()` of floats would be -0.)
    pub(crate) fn rate(&self) -> f64 {
        self.responses.values().fold(0.0, |sum, rate| sum + rate)
    }

    /// Requests a second that ended so.
    pub(crate) fn rate_of(&self, outcome: Outcome) -> f64 {
        let ended = |((code, _, _), _): &(&(String, String, String), &f64)| self.outcome(code) == outcome;
        self.responses.iter().filter(ended).fold(0.0, |sum, (_, rate)| sum + rate)
    }

    /// What a code means: that of HTTP, or of gRPC where it tells more ([`code`]).
    pub(crate) fn outcome(&self, code: &str) -> Outcome {
        match code {
            NO_RESPONSE => Outcome::NoResponse,
            "0" if self.protocol == "grpc" => Outcome::Success,
            _ if self.protocol == "grpc" && code.len() < 3 => Outcome::ServerError,
            _ if code.starts_with('4') => Outcome::ClientError,
            _ if code.starts_with('5') => Outcome::ServerError,
            _ => Outcome::Success,
        }
    }

    /// Share of requests that failed (4xx, 5xx, a status of gRPC or no answer), in percent, as Kiali counts.
    pub(crate) fn errors(&self) -> f64 {
        self.share(Outcome::ClientError) + self.share(Outcome::ServerError) + self.share(Outcome::NoResponse)
    }

    /// Share of the requests that ended so, in percent.
    fn share(&self, outcome: Outcome) -> f64 {
        let rate = self.rate();
        if rate > 0.0 { self.rate_of(outcome) / rate * 100.0 } else { 0.0 }
    }

    /// By Kiali's default tolerances. Each is for itself: 6 % of 5xx and 6 % without an answer do not make a failure.
    pub(crate) fn health(&self) -> Health {
        if self.rate() == 0.0 && self.throughput == 0.0 {
            return Health::Idle;
        }
        let of = |(outcome, degraded, failure): &(Outcome, f64, f64)| match self.share(*outcome) {
            share if share >= *failure => Health::Failure,
            // A tolerance of zero is for nothing at all.
            share if share > 0.0 && share >= *degraded => Health::Degraded,
            _ => Health::Healthy,
        };
        TOLERANCES.iter().map(of).max().unwrap_or(Health::Healthy)
    }
}

/// From how many percent on traffic is degraded, and from how many on it fails: those of `AddHealthDefault` in Kiali 2's
/// `config/config.go`, also at <https://kiali.io/docs/configuration/health/>. Of gRPC the statuses 1 to 16 count as 5xx do.
const TOLERANCES: [(Outcome, f64, f64); 3] =
    [(Outcome::ServerError, 0.0, 10.0), (Outcome::ClientError, 10.0, 20.0), (Outcome::NoResponse, 0.0, 10.0)];

/// The code of a request that nobody answered, as Kiali writes it; in the metrics it is 0.
pub(crate) const NO_RESPONSE: &str = "-";

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    ClientError,
    ServerError,
    NoResponse,
}

/// The code that tells how a request ended: of gRPC, whose failures are answered with 200, the status.
fn code(metric: &Metric) -> &str {
    match (get(metric, "response_code"), get(metric, "grpc_response_status")) {
        ("0", _) => NO_RESPONSE,
        ("200", status) if get(metric, "request_protocol") == "grpc" && !matches!(status, "" | "unknown") => status,
        (code, _) => code,
    }
}

/// How traffic fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Idle,
    Healthy,
    Degraded,
    Failure,
}

impl Health {
    /// Its name among the style sheet's classes and the texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failure => "failure",
        }
    }
}

/// The whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Graph {
    pub(crate) nodes: BTreeMap<Key, Node>,
    pub(crate) edges: BTreeMap<(Key, Key), Edge>,
    /// Series of edges that found no room.
    pub(crate) left_out: usize,
}

const BY: &str = "reporter, source_workload, source_workload_namespace, source_canonical_service, source_version, source_principal, \
    destination_workload, destination_workload_namespace, destination_canonical_service, destination_version, destination_principal, \
    destination_service_name, destination_service_namespace, request_protocol, response_code, grpc_response_status, response_flags, connection_security_policy";
const SHORT: &str = "reporter, source_workload, source_workload_namespace, source_canonical_service, source_version, \
    destination_workload, destination_workload_namespace, destination_canonical_service, destination_version, \
    destination_service_name, destination_service_namespace";

/// More edges than this are left out: nobody could see them.
const MAX_EDGES: usize = 500;

/// Computes the graph of `namespaces` (all, if there is none) over the last `duration` seconds.
pub(crate) async fn compute(
    prometheus: &Prometheus,
    namespaces: &[String],
    kind: GraphType,
    duration: u64,
) -> Result<Graph, String> {
    let requests = format!("sum by ({BY}) (rate(istio_requests_total[{duration}s])) > 0");
    let p95 =
        format!("histogram_quantile(0.95, sum by (le, {SHORT}) (rate(istio_request_duration_milliseconds_bucket[{duration}s])))");
    let bytes = format!("sum by ({SHORT}) (rate(istio_response_bytes_sum[{duration}s])) > 0");
    let tcp = format!("sum by ({SHORT}) (rate(istio_tcp_sent_bytes_total[{duration}s])) > 0");
    let (requests, p95, bytes, tcp) =
        tokio::join!(prometheus.query(&requests), prometheus.query(&p95), prometheus.query(&bytes), prometheus.query(&tcp));
    let mut graph = Graph::of(kind, &requests?, &p95?, &bytes?, &tcp?);
    if !namespaces.is_empty() {
        let shown = |key: &Key| namespaces.contains(&key.namespace);
        graph.edges.retain(|(from, to), _| shown(from) || shown(to));
        let ends: BTreeSet<_> = graph.edges.keys().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
        graph.nodes.retain(|key, _| ends.contains(key));
    }
    Ok(graph)
}

impl Graph {
    /// From the answers to the queries. What the calling side reports counts (it sees faults, timeouts and what never arrived);
    /// the called side's word counts where the caller has no sidecar, and for mutual TLS, which only it knows.
    fn of(
        kind: GraphType,
        requests: &[(Metric, f64)],
        p95: &[(Metric, f64)],
        bytes: &[(Metric, f64)],
        tcp: &[(Metric, f64)],
    ) -> Self {
        let mut graph = Self::default();
        let by_source: BTreeSet<_> = requests
            .iter()
            .filter(|(metric, _)| get(metric, "reporter") == "source")
            .map(|(metric, _)| ends(kind, metric))
            .collect();
        let counts = |metric: &Metric| get(metric, "reporter") == "source" || !by_source.contains(&ends(kind, metric));
        let mut mtls: BTreeMap<(Key, Key), (f64, f64)> = BTreeMap::new();
        for (metric, rate) in requests {
            let ends = ends(kind, metric);
            if get(metric, "reporter") == "destination" {
                let (secure, all) = mtls.entry(ends.clone()).or_default();
                *all += rate;
                if get(metric, "connection_security_policy") == "mutual_tls" {
                    *secure += rate;
                }
            }
            if !counts(metric) {
                continue;
            }
            let Some(edge) = graph.edge(ends, metric) else { continue };
            get(metric, "request_protocol").clone_into(&mut edge.protocol);
            let text = |name: &str| get(metric, name).to_owned();
            let response = (code(metric).to_owned(), text("response_flags"), text("destination_service_name"));
            *edge.responses.entry(response).or_default() += rate;
            for (principal, name) in
                [(&mut edge.source_principal, "source_principal"), (&mut edge.destination_principal, "destination_principal")]
            {
                if get(metric, name).starts_with("spiffe://") {
                    get(metric, name).clone_into(principal);
                }
            }
        }
        for (metric, rate) in tcp {
            let of_edge = ends(kind, metric);
            if get(metric, "reporter") == "source" || !graph.edges.contains_key(&of_edge) {
                let Some(edge) = graph.edge(of_edge, metric) else { continue };
                if edge.responses.is_empty() {
                    "tcp".clone_into(&mut edge.protocol);
                    edge.throughput += rate;
                }
            }
        }
        for (metric, rate) in bytes.iter().filter(|(metric, _)| counts(metric)) {
            if let Some(edge) = graph.edges.get_mut(&ends(kind, metric)) {
                edge.throughput += rate;
            }
        }
        for (metric, value) in p95.iter().filter(|(metric, value)| counts(metric) && value.is_finite()) {
            if let Some(edge) = graph.edges.get_mut(&ends(kind, metric)) {
                edge.p95 = Some(edge.p95.unwrap_or(0.0).max(*value));
            }
        }
        for (ends, (secure, all)) in mtls.into_iter().filter(|(_, (_, all))| *all > 0.0) {
            if let Some(edge) = graph.edges.get_mut(&ends) {
                edge.mtls = Some(secure / all * 100.0);
            }
        }
        graph
    }

    fn edge(&mut self, ends: (Key, Key), metric: &Metric) -> Option<&mut Edge> {
        if self.edges.len() >= MAX_EDGES && !self.edges.contains_key(&ends) {
            self.left_out += 1;
            return None;
        }
        for (side, key) in [("source", &ends.0), ("destination", &ends.1)] {
            let text = |name: &str| get(metric, &format!("{side}_{name}")).to_owned();
            let node = self.nodes.entry(key.clone()).or_default();
            (node.workload, node.app) = (text("workload"), text("canonical_service"));
            node.version.clone_from(&key.version);
            if side == "destination" {
                node.services.insert((text("service_namespace"), text("service_name")));
            }
        }
        Some(self.edges.entry(ends).or_default())
    }
}

fn ends(kind: GraphType, metric: &Metric) -> (Key, Key) {
    let key = |side: &str| {
        let text = |name: &str| get(metric, &format!("{side}_{name}")).to_owned();
        let (workload, app, namespace) = (text("workload"), text("canonical_service"), text("workload_namespace"));
        if workload == "unknown" && side == "destination" && !matches!(get(metric, "destination_service_name"), "unknown" | "") {
            // It never arrived: the service is all that is known.
            return Key { namespace: text("service_namespace"), name: text("service_name"), version: String::new() };
        }
        match kind {
            GraphType::Workload => Key { namespace, name: workload, version: String::new() },
            GraphType::App => Key { namespace, name: app, version: String::new() },
            GraphType::VersionedApp => Key { namespace, name: app, version: text("version") },
        }
    };
    (key("source"), key("destination"))
}

fn get<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.get(name).map_or("unknown", String::as_str)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request's labels: reporter, source, destination, code, mutual TLS.
    fn metric(reporter: &str, source: &str, destination: &str, code: &str, policy: &str) -> Metric {
        let mut metric = Metric::new();
        for (side, name) in [("source", source), ("destination", destination)] {
            let (app, version) = name.split_once(' ').unwrap_or((name, "unknown"));
            for (label, value) in [
                ("workload", format!("{app}-{version}")),
                ("workload_namespace", "webapp".to_owned()),
                ("canonical_service", app.to_owned()),
                ("version", version.to_owned()),
            ] {
                metric.insert(format!("{side}_{label}"), if app == "unknown" { "unknown".to_owned() } else { value });
            }
        }
        for (name, value) in [
            ("reporter", reporter),
            ("response_code", code),
            ("response_flags", "-"),
            ("connection_security_policy", policy),
            ("request_protocol", "http"),
            ("destination_service_name", "svc"),
            ("destination_service_namespace", "webapp"),
        ] {
            metric.insert(name.to_owned(), value.to_owned());
        }
        metric
    }

    pub(crate) fn example() -> Graph {
        let requests = [
            (metric("source", "gateway", "webapp v1", "200", "unknown"), 8.0),
            (metric("source", "gateway", "webapp v2", "503", "unknown"), 2.0),
            (metric("destination", "gateway", "webapp v1", "200", "mutual_tls"), 8.0),
            (metric("source", "webapp v1", "payment v1", "200", "unknown"), 4.0),
            (metric("source", "payment v1", "webapp v1", "200", "unknown"), 1.0),
            (metric("destination", "unknown", "payment v1", "200", "none"), 1.0),
        ];
        let p95 = [
            (metric("source", "gateway", "webapp v1", "", ""), 12.5),
            (metric("source", "gateway", "webapp v2", "", ""), f64::NAN),
        ];
        Graph::of(GraphType::VersionedApp, &requests, &p95, &[], &[])
    }

    #[test]
    fn edges_know_their_errors_latency_and_mutual_tls() {
        let graph = example();
        let lines: Vec<_> = graph
            .edges
            .iter()
            .map(|((from, to), edge)| {
                format!(
                    "{} -> {} {}: {}/s, {}% errors, {:?}, p95 {:?}, mTLS {:?}",
                    from.name,
                    to.name,
                    to.version,
                    edge.rate(),
                    edge.errors(),
                    edge.health(),
                    edge.p95,
                    edge.mtls
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        unknown -> payment v1: 1/s, 0% errors, Healthy, p95 None, mTLS Some(0.0)
        gateway -> webapp v1: 8/s, 0% errors, Healthy, p95 Some(12.5), mTLS Some(100.0)
        gateway -> webapp v2: 2/s, 100% errors, Failure, p95 None, mTLS None
        payment -> webapp v1: 1/s, 0% errors, Healthy, p95 None, mTLS None
        webapp -> payment v1: 4/s, 0% errors, Healthy, p95 None, mTLS None
        "#);
    }

    /// <https://kiali.io/docs/configuration/health/>: 5xx degrade from more than 0 % on and fail from 10 %, 4xx from 10 % and 20 %,
    /// gRPC's statuses other than 0 as 5xx, and so does (in Kiali's `config.go`) what is not answered.
    #[test]
    fn health_has_kialis_tolerances() {
        let edge = |protocol: &str, responses: &[(&str, f64)]| {
            let response = |(code, rate): &(&str, f64)| (((*code).to_owned(), "-".to_owned(), "svc".to_owned()), *rate);
            Edge { protocol: protocol.to_owned(), responses: responses.iter().map(response).collect(), ..Edge::default() }
        };
        let health = |protocol: &str, code: &str, percent: f64| {
            let success = if protocol == "grpc" { "0" } else { "200" };
            edge(protocol, &[(success, 100.0 - percent), (code, percent)]).health()
        };
        for (protocol, code) in [("http", "503"), ("http", "-"), ("grpc", "14"), ("grpc", "2"), ("grpc", "-")] {
            let at = [0.0, 0.05, 9.99, 10.0, 100.0].map(|percent| health(protocol, code, percent));
            assert_eq!(
                at,
                [Health::Healthy, Health::Degraded, Health::Degraded, Health::Failure, Health::Failure],
                "{protocol} {code}"
            );
        }
        let client = [9.9, 10.0, 19.9, 20.0].map(|percent| health("http", "404", percent));
        assert_eq!(client, [Health::Healthy, Health::Degraded, Health::Degraded, Health::Failure]);
        assert_eq!(health("http", "301", 100.0), Health::Healthy);
        assert_eq!(edge("http", &[("200", 88.0), ("500", 6.0), ("-", 6.0)]).health(), Health::Degraded);
        assert_eq!(edge("http", &[]).health(), Health::Idle);
    }

    #[test]
    fn a_failure_of_grpc_is_its_status_and_not_the_200_it_came_with() {
        let grpc = |code: &str, status: &str| {
            let mut metric = metric("source", "gateway", "api v1", code, "unknown");
            metric.insert("request_protocol".to_owned(), "grpc".to_owned());
            metric.insert("grpc_response_status".to_owned(), status.to_owned());
            metric
        };
        let requests = [(grpc("200", "0"), 8.0), (grpc("200", "14"), 1.0), (grpc("0", ""), 1.0)];
        let graph = Graph::of(GraphType::App, &requests, &[], &[], &[]);
        let edge = graph.edges.values().next().unwrap();
        let codes: Vec<_> = edge.responses.keys().map(|(code, _, _)| code.as_str()).collect();
        assert_eq!(codes, ["-", "0", "14"]);
        assert_eq!((edge.errors(), edge.health()), (20.0, Health::Failure));
    }
}
