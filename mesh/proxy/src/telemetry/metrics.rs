//! Istio's standard metrics (fact 48), kept as series that are found without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use meshlab_proxy_config::{Direction, MetricOverride, ServiceIdentity};
use parking_lot::Mutex;

use super::format::{Format, View};
use super::peer::{Peer, Peers};
use super::prometheus::Exposition;
use crate::cluster::stats::Counter;
use crate::flags::Flags;
use crate::stream::StreamInfo;

/// The cluster of unknown destinations, where they are allowed.
const PASSTHROUGH: &str = "PassthroughCluster";
/// What requests for unknown destinations are reported as, where they are not allowed.
const BLACK_HOLE: &str = "BlackHoleCluster";
/// The route that answers these.
const BLOCK_ALL: &str = "block_all";

/// Envoy's default histogram buckets, which Istio keeps: milliseconds, or bytes.
pub(crate) const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A distribution.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// In thousandths, so that fractions of milliseconds are summed exactly.
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, value: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Cumulative counts by bound, the whole count, and the sum.
    pub(crate) fn read(&self) -> (Vec<u64>, u64, f64) {
        let mut count = 0;
        let cumulative = self
            .buckets
            .iter()
            .map(|bucket| {
                count += bucket.load(Ordering::Relaxed);
                count
            })
            .collect();
        (cumulative, count, self.sum.load(Ordering::Relaxed) as f64 / 1000.0)
    }
}

/// Istio's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Metric {
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpened,
    TcpClosed,
    TcpSent,
    TcpReceived,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

impl Metric {
    pub(crate) const ALL: [(Self, &'static str, &'static str); 10] = [
        (Self::RequestCount, "REQUEST_COUNT", "istio_requests_total"),
        (Self::RequestDuration, "REQUEST_DURATION", "istio_request_duration_milliseconds"),
        (Self::RequestSize, "REQUEST_SIZE", "istio_request_bytes"),
        (Self::ResponseSize, "RESPONSE_SIZE", "istio_response_bytes"),
        (Self::TcpOpened, "TCP_OPENED_CONNECTIONS", "istio_tcp_connections_opened_total"),
        (Self::TcpClosed, "TCP_CLOSED_CONNECTIONS", "istio_tcp_connections_closed_total"),
        (Self::TcpSent, "TCP_SENT_BYTES", "istio_tcp_sent_bytes_total"),
        (Self::TcpReceived, "TCP_RECEIVED_BYTES", "istio_tcp_received_bytes_total"),
        (Self::GrpcRequestMessages, "GRPC_REQUEST_MESSAGES", "istio_request_messages_total"),
        (Self::GrpcResponseMessages, "GRPC_RESPONSE_MESSAGES", "istio_response_messages_total"),
    ];
}

/// Telemetry's overrides, compiled.
#[derive(Default)]
pub(crate) struct MetricRules {
    disabled: Vec<(Metric, Option<bool>)>,
    tags: Vec<TagRule>,
}

struct TagRule {
    metric: Metric,
    client: Option<bool>,
    name: String,
    /// `None`: the label is removed.
    value: Option<TagValue>,
}

enum TagValue {
    Literal(String),
    Format(Format),
}

impl MetricRules {
    pub(crate) fn new(overrides: &[MetricOverride], problems: &mut Vec<String>) -> Self {
        let mut rules = Self::default();
        for change in overrides {
            let metrics: Vec<Metric> = Metric::ALL
                .iter()
                .filter(|(_, name, _)| change.metric == *name || change.metric == "ALL_METRICS" || change.metric.is_empty())
                .map(|(metric, ..)| *metric)
                .collect();
            if metrics.is_empty() {
                problems.push(format!("metric {:?} is not one of Istio's", change.metric));
            }
            for metric in metrics {
                if change.disabled {
                    rules.disabled.push((metric, change.client));
                } else {
                    rules.disabled.retain(|(disabled, side)| *disabled != metric || *side != change.client);
                }
                for (name, expression) in &change.tags {
                    let value = match expression.as_deref().map(tag_value).transpose() {
                        Ok(value) => value,
                        Err(problem) => {
                            problems.push(format!("tag {name:?} of metric {:?}: {problem}", change.metric));
                            continue;
                        }
                    };
                    rules.tags.push(TagRule { metric, client: change.client, name: name.clone(), value });
                }
            }
        }
        rules
    }

    fn is_disabled(&self, metric: Metric, client: bool) -> bool {
        self.disabled.iter().any(|(disabled, side)| *disabled == metric && side.is_none_or(|side| side == client))
    }

    /// Whether there is nothing to measure.
    fn disables_all(&self, client: bool) -> bool {
        !self.disabled.is_empty() && Metric::ALL.iter().all(|(metric, ..)| self.is_disabled(*metric, client))
    }

    fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// The labels that are changed for a stream: by metric and name, to a value or to nothing.
    fn changes(&self, view: View<'_>, client: bool) -> TagChanges {
        self.tags
            .iter()
            .filter(|rule| rule.client.is_none_or(|side| side == client))
            .map(|rule| {
                let value = rule.value.as_ref().map(|value| match value {
                    TagValue::Literal(text) => text.clone(),
                    TagValue::Format(format) => {
                        let mut text = String::new();
                        format.write(view, &mut text);
                        if text.is_empty() { "unknown".to_owned() } else { text }
                    }
                });
                ((rule.metric, rule.name.clone()), value)
            })
            .collect()
    }
}

/// The CEL expressions that stand for one attribute, as Istio's tasks use them.
fn tag_value(expression: &str) -> Result<TagValue, String> {
    let expression = expression.trim();
    let quoted = |quote: char| expression.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(text) = quoted('"').or_else(|| quoted('\'')).filter(|text| !text.contains(['"', '\''])) {
        return Ok(TagValue::Literal(text.to_owned()));
    }
    let header = |map: &str| {
        let key = expression.strip_prefix(map)?.strip_prefix('[')?.strip_suffix(']')?;
        key.trim_matches(['"', '\'']).to_owned().into()
    };
    let operator = match expression {
        "request.host" => "%REQ(:AUTHORITY)%".to_owned(),
        "request.method" => "%REQ(:METHOD)%".to_owned(),
        "request.path" | "request.url_path" => "%REQ_WITHOUT_QUERY(:PATH)%".to_owned(),
        "request.protocol" => "%PROTOCOL%".to_owned(),
        "response.code" | "string(response.code)" => "%RESPONSE_CODE%".to_owned(),
        "destination.port" | "string(destination.port)" => "%DOWNSTREAM_LOCAL_PORT%".to_owned(),
        "connection.requested_server_name" => "%REQUESTED_SERVER_NAME%".to_owned(),
        "xds.route_name" => "%ROUTE_NAME%".to_owned(),
        "xds.cluster_name" => "%UPSTREAM_CLUSTER%".to_owned(),
        "upstream.address" => "%UPSTREAM_HOST%".to_owned(),
        _ => {
            let request: Option<String> = header("request.headers");
            let response: Option<String> = header("response.headers");
            match (request, response) {
                (Some(name), _) => format!("%REQ({name})%"),
                (_, Some(name)) => format!("%RESP({name})%"),
                (None, None) => return Err(format!("the expression {expression:?} is not supported here")),
            }
        }
    };
    Ok(TagValue::Format(Format::header(&operator)))
}

type TagChanges = BTreeMap<(Metric, String), Option<String>>;

/// Whether it was the caller's or the called workload's proxy that measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reporter {
    Source,
    Destination,
}

/// What a series is found by. Objects are compared by identity: [`Peers`] keeps one for equal ones.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    reporter: Reporter,
    workload: usize,
    peer: usize,
    service: usize,
    source_principal: usize,
    destination_principal: usize,
    status: u16,
    flags: u64,
    grpc_status: Option<u32>,
    protocol: Protocol,
    mutual_tls: bool,
    tags: Option<Arc<TagChanges>>,
}

/// `request_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http,
    Grpc,
    Tcp,
}

/// Counters of one set of labels.
pub(crate) struct Series {
    labels: Labels,
    requests: Counter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    request_messages: Counter,
    response_messages: Counter,
    tcp_opened: Counter,
    tcp_closed: Counter,
    pub(crate) tcp_sent: Counter,
    pub(crate) tcp_received: Counter,
    disabled: Vec<Metric>,
}

/// The values of the labels; it keeps alive what its key is the identity of.
struct Labels {
    reporter: Reporter,
    workload: Arc<Peer>,
    peer: Arc<Peer>,
    service: Arc<ServiceIdentity>,
    source_principal: Arc<str>,
    destination_principal: Arc<str>,
    status: u16,
    flags: Flags,
    grpc_status: Option<u32>,
    protocol: Protocol,
    mutual_tls: bool,
    tags: Option<Arc<TagChanges>>,
}

/// All series of a proxy.
pub(crate) struct Metrics {
    series: ArcSwap<AHashMap<Key, Arc<Series>>>,
    inserting: Mutex<()>,
    limit: usize,
    services: Mutex<AHashMap<(String, String, String), Arc<ServiceIdentity>>>,
    unknown_service: Arc<ServiceIdentity>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) dropped: Counter,
}

fn identity<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<()>() as usize
}

impl Metrics {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            series: ArcSwap::default(),
            inserting: Mutex::new(()),
            limit,
            services: Mutex::default(),
            unknown_service: Arc::new(ServiceIdentity {
                host: "unknown".to_owned(),
                name: "unknown".to_owned(),
                namespace: "unknown".to_owned(),
            }),
            peers: Arc::new(Peers::new(limit)),
            dropped: Counter::default(),
        }
    }

    /// One object for equal services.
    pub(crate) fn service(&self, service: &ServiceIdentity) -> Arc<ServiceIdentity> {
        let key = (service.host.clone(), service.name.clone(), service.namespace.clone());
        self.services.lock().entry(key).or_insert_with(|| Arc::new(service.clone())).clone()
    }

    /// The series of a stream, `None` when there are too many.
    pub(crate) fn series(&self, view: View<'_>, service: Option<&Arc<ServiceIdentity>>) -> Option<Arc<Series>> {
        let info = view.info;
        let telemetry = view.telemetry;
        let reporter = match info.connection.direction {
            Direction::Inbound => Reporter::Destination,
            Direction::Outbound | Direction::Gateway => Reporter::Source,
        };
        if telemetry.metrics.disables_all(reporter == Reporter::Source) {
            return None;
        }
        let unknown_name = &self.peers.unknown_name;
        let peer = match reporter {
            Reporter::Destination => info.peer.as_ref(),
            Reporter::Source => info.peer.as_ref().or(info.host.as_ref().map(|host| &host.peer)),
        };
        let upstream = info.upstream.as_ref();
        let (source_principal, destination_principal, mutual_tls) = match reporter {
            Reporter::Destination => {
                let tls = info.connection.tls.as_ref();
                (
                    tls.and_then(|tls| tls.principal.as_ref()),
                    tls.filter(|tls| tls.certificate.is_some()).and_then(|tls| tls.local_identity.as_ref()),
                    info.connection.is_mutual_tls(),
                )
            }
            // The caller's proxy reports what it verified; who it is itself it knows from its own certificate.
            Reporter::Source => {
                let principals = upstream.filter(|upstream| upstream.mesh).and_then(|upstream| upstream.principals.as_ref());
                (principals.map(|(own, _)| own), principals.map(|(_, theirs)| theirs), false)
            }
        };
        let protocol = match &info.http {
            None => Protocol::Tcp,
            Some(http) if http.grpc => Protocol::Grpc,
            Some(_) => Protocol::Http,
        };
        let tags = telemetry.metrics.has_tags().then(|| Arc::new(telemetry.metrics.changes(view, reporter == Reporter::Source)));
        let peer = peer.unwrap_or(&self.peers.unknown);
        let service = self.destination(info, service);
        let source_principal = source_principal.unwrap_or(unknown_name);
        let destination_principal = destination_principal.unwrap_or(unknown_name);
        let key = Key {
            reporter,
            workload: identity(&telemetry.workload),
            peer: identity(peer),
            service: identity(&service),
            source_principal: identity(source_principal),
            destination_principal: identity(destination_principal),
            status: info.status,
            flags: info.flags.bits(),
            grpc_status: info.grpc_status,
            protocol,
            mutual_tls,
            tags,
        };
        if let Some(series) = self.series.load().get(&key) {
            return Some(series.clone());
        }
        let labels = Labels {
            reporter,
            workload: telemetry.workload.clone(),
            peer: peer.clone(),
            service,
            source_principal: source_principal.clone(),
            destination_principal: destination_principal.clone(),
            status: info.status,
            flags: info.flags,
            grpc_status: info.grpc_status,
            protocol,
            mutual_tls,
            tags: key.tags.clone(),
        };
        self.insert(key, labels, telemetry)
    }

    /// The service that a stream was for. Where the mesh knows none, a sidecar goes by the name that its application asked for, as
    /// Istio's does: its cluster is the passthrough cluster, or there is none, and the virtual host for unknown names says why.
    fn destination(&self, info: &StreamInfo, service: Option<&Arc<ServiceIdentity>>) -> Arc<ServiceIdentity> {
        let known = service.filter(|service| service.name != PASSTHROUGH).is_some();
        let (false, Direction::Outbound, Some(http)) = (known, info.connection.direction, &info.http) else {
            return service.unwrap_or(&self.unknown_service).clone();
        };
        let name = match info.route.as_ref().map(|route| route.name.as_str()) {
            Some(BLOCK_ALL) => BLACK_HOLE,
            _ => service.map_or(http.authority.as_str(), |service| &service.name),
        };
        let key = (http.authority.clone(), name.to_owned(), "unknown".to_owned());
        let mut services = self.services.lock();
        if let Some(found) = services.get(&key) {
            return found.clone();
        }
        // Applications make up as many names as they like.
        if services.len() >= self.limit {
            return service.unwrap_or(&self.unknown_service).clone();
        }
        let (host, name, namespace) = key.clone();
        services.entry(key).or_insert(Arc::new(ServiceIdentity { host, name, namespace })).clone()
    }

    fn insert(&self, key: Key, labels: Labels, telemetry: &super::Telemetry) -> Option<Arc<Series>> {
        let _inserting = self.inserting.lock();
        let current = self.series.load();
        if let Some(series) = current.get(&key) {
            return Some(series.clone());
        }
        if current.len() >= self.limit {
            self.dropped.increment();
            return None;
        }
        let client = labels.reporter == Reporter::Source;
        let disabled = Metric::ALL
            .iter()
            .map(|(metric, ..)| *metric)
            .filter(|metric| telemetry.metrics.is_disabled(*metric, client))
            .collect();
        let series = Arc::new(Series::new(labels, disabled));
        let mut grown = AHashMap::clone(&current);
        grown.insert(key, series.clone());
        self.series.store(Arc::new(grown));
        Some(series)
    }

    /// Writes all series.
    pub(crate) fn write(&self, out: &mut Exposition) {
        for series in self.series.load().values() {
            series.write(out);
        }
    }
}

impl Series {
    fn new(labels: Labels, disabled: Vec<Metric>) -> Self {
        Self {
            labels,
            requests: Counter::default(),
            duration: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
            request_messages: Counter::default(),
            response_messages: Counter::default(),
            tcp_opened: Counter::default(),
            tcp_closed: Counter::default(),
            tcp_sent: Counter::default(),
            tcp_received: Counter::default(),
            disabled,
        }
    }

    /// Counts a finished request.
    pub(crate) fn request(&self, milliseconds: f64, request_bytes: u64, response_bytes: u64, messages: (u64, u64)) {
        self.requests.increment();
        self.duration.record(milliseconds);
        self.request_bytes.record(request_bytes as f64);
        self.response_bytes.record(response_bytes as f64);
        if self.labels.protocol == Protocol::Grpc {
            self.request_messages.add(messages.0);
            self.response_messages.add(messages.1);
        }
    }

    pub(crate) fn tcp_opened(&self) {
        self.tcp_opened.increment();
    }

    pub(crate) fn tcp_closed(&self) {
        self.tcp_closed.increment();
    }

    fn write(&self, out: &mut Exposition) {
        let name = |metric: Metric| Metric::ALL.iter().find(|(entry, ..)| *entry == metric).map_or("", |(.., name)| *name);
        let enabled = |metric: Metric| !self.disabled.contains(&metric);
        let counters: &[(Metric, &Counter)] = match self.labels.protocol {
            Protocol::Tcp => &[
                (Metric::TcpOpened, &self.tcp_opened),
                (Metric::TcpClosed, &self.tcp_closed),
                (Metric::TcpSent, &self.tcp_sent),
                (Metric::TcpReceived, &self.tcp_received),
            ],
            Protocol::Http => &[(Metric::RequestCount, &self.requests)],
            Protocol::Grpc => &[
                (Metric::RequestCount, &self.requests),
                (Metric::GrpcRequestMessages, &self.request_messages),
                (Metric::GrpcResponseMessages, &self.response_messages),
            ],
        };
        for (metric, counter) in counters.iter().filter(|(metric, _)| enabled(*metric)) {
            out.counter(name(*metric), &self.labels.render(*metric), counter.get());
        }
        if self.labels.protocol == Protocol::Tcp {
            return;
        }
        let histograms = [
            (Metric::RequestDuration, &self.duration),
            (Metric::RequestSize, &self.request_bytes),
            (Metric::ResponseSize, &self.response_bytes),
        ];
        for (metric, histogram) in histograms.into_iter().filter(|(metric, _)| enabled(*metric)) {
            out.histogram(name(metric), &self.labels.render(metric), histogram);
        }
    }
}

impl Labels {
    /// The 25 labels (fewer for TCP), sorted, with what Telemetry changed.
    fn render(&self, metric: Metric) -> Vec<(String, String)> {
        fn or_unknown(text: &str) -> String {
            if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
        }
        let (source, destination) = match self.reporter {
            Reporter::Source => (&self.workload, &self.peer),
            Reporter::Destination => (&self.peer, &self.workload),
        };
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |name: &str, value: String| drop(labels.insert(name.to_owned(), value));
        let security = match (self.reporter, self.mutual_tls) {
            (Reporter::Source, _) => "unknown",
            (Reporter::Destination, true) => "mutual_tls",
            (Reporter::Destination, false) => "none",
        };
        put("connection_security_policy", security.to_owned());
        let reporter = if self.reporter == Reporter::Source { "source" } else { "destination" };
        put("reporter", reporter.to_owned());
        let protocol = match self.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        };
        put("request_protocol", protocol.to_owned());
        put("response_flags", self.flags.to_string());
        if self.protocol != Protocol::Tcp {
            put("response_code", self.status.to_string());
            let grpc = self.grpc_status.filter(|_| self.protocol == Protocol::Grpc);
            put("grpc_response_status", grpc.map(|status| status.to_string()).unwrap_or_default());
        }
        for (side, peer) in [("source", source), ("destination", destination)] {
            put(&format!("{side}_app"), or_unknown(&peer.app));
            put(&format!("{side}_version"), or_unknown(&peer.version));
            put(&format!("{side}_canonical_service"), or_unknown(&peer.canonical_service));
            put(
                &format!("{side}_canonical_revision"),
                if peer.canonical_revision.is_empty() {
                    // Istio's default once a workload is known at all.
                    if peer.canonical_service.is_empty() { "unknown".to_owned() } else { "latest".to_owned() }
                } else {
                    peer.canonical_revision.clone()
                },
            );
            put(&format!("{side}_cluster"), or_unknown(&peer.cluster));
            put(&format!("{side}_workload"), or_unknown(&peer.workload));
            put(&format!("{side}_workload_namespace"), or_unknown(&peer.namespace));
        }
        put("source_principal", or_unknown(&self.source_principal));
        put("destination_principal", or_unknown(&self.destination_principal));
        put("destination_service", or_unknown(&self.service.host));
        put("destination_service_name", or_unknown(&self.service.name));
        put("destination_service_namespace", or_unknown(&self.service.namespace));
        for ((changed, name), value) in self.tags.iter().flat_map(|tags| tags.iter()) {
            if *changed == metric {
                match value {
                    Some(value) => drop(labels.insert(name.clone(), value.clone())),
                    None => drop(labels.remove(name)),
                }
            }
        }
        labels.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_and_including_its_bounds() {
        let histogram = Histogram::default();
        for value in [0.5, 0.6, 7.0, 4_000_000.0] {
            histogram.record(value);
        }
        let (cumulative, count, sum) = histogram.read();
        assert_eq!(cumulative[..4], [1, 2, 2, 3]);
        assert_eq!((count, sum), (4, 4_000_008.1));
    }

    #[test]
    fn fact_48_a_request_has_exactly_istios_25_labels() {
        let unknown: Arc<str> = "unknown".into();
        let labels = Labels {
            reporter: Reporter::Source,
            workload: Arc::default(),
            peer: Arc::default(),
            service: Arc::default(),
            source_principal: unknown.clone(),
            destination_principal: unknown,
            status: 200,
            flags: Flags::NONE,
            grpc_status: None,
            protocol: Protocol::Http,
            mutual_tls: true,
            tags: None,
        };
        let rendered = labels.render(Metric::RequestCount);
        let names: Vec<_> = rendered.iter().map(|(name, _)| name.as_str()).collect();
        insta::assert_snapshot!(names.join(" "), @"connection_security_policy destination_app destination_canonical_revision destination_canonical_service destination_cluster destination_principal destination_service destination_service_name destination_service_namespace destination_version destination_workload destination_workload_namespace grpc_response_status reporter request_protocol response_code response_flags source_app source_canonical_revision source_canonical_service source_cluster source_principal source_version source_workload source_workload_namespace");
        assert_eq!(names.len(), 25);
        assert_eq!(rendered[0].1, "unknown", "the source's proxy does not report the security policy");
    }
}
