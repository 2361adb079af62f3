//! What a proxy measures, traces and logs, resolved when configuration is applied.

pub(crate) mod buffered_log;
pub(crate) mod export;
pub(crate) mod filter;
pub(crate) mod format;
pub(crate) mod grpc;
pub(crate) mod metrics;
pub(crate) mod peer;
pub(crate) mod prometheus;
pub(crate) mod span;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use meshlab_proxy_config::{AccessLog, Direction, LogFormat, TelemetryConfig};

use self::filter::Filter;
use self::format::Format;
use self::metrics::MetricRules;
use self::peer::{Peer, Peers};

/// Telemetry of one proxy, compiled.
pub(crate) struct Telemetry {
    pub(crate) config: Arc<TelemetryConfig>,
    /// This workload.
    pub(crate) workload: Arc<Peer>,
    pub(crate) workload_header: HeaderValue,
    pub(crate) node_header: HeaderValue,
    pub(crate) logs: Vec<Log>,
    /// Request headers that logs will want after the request itself has gone upstream.
    pub(crate) request_captures: Vec<HeaderName>,
    pub(crate) response_captures: Vec<HeaderName>,
    pub(crate) metrics: MetricRules,
    /// The container's variables.
    pub(crate) environment: Arc<BTreeMap<String, String>>,
}

/// One access log, compiled.
pub(crate) struct Log {
    format: Form,
    filter: Option<Filter>,
    client: Option<bool>,
}

enum Form {
    Text(Format),
    Json(Vec<(String, Format)>),
}

impl Telemetry {
    /// Compiles telemetry. What cannot be compiled is left out, and named.
    pub(crate) fn new(config: Arc<TelemetryConfig>, node_id: &str, peers: &Peers) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut logs = Vec::new();
        for log in &config.access_logs {
            match Log::new(log) {
                Ok(log) => logs.push(log),
                Err(problem) => problems.push(problem),
            }
        }
        let metrics = MetricRules::new(&config.metrics, &mut problems);
        let workload = peers.intern(Peer::of_workload(&config.workload));
        let mut telemetry = Self {
            workload_header: HeaderValue::from_str(&workload.encode()).unwrap_or_else(|_| HeaderValue::from_static("")),
            node_header: HeaderValue::from_str(node_id).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            workload,
            logs,
            request_captures: Vec::new(),
            response_captures: Vec::new(),
            metrics,
            environment: Arc::default(),
            config,
        };
        telemetry.collect_captures();
        (telemetry, problems)
    }

    fn collect_captures(&mut self) {
        let (mut request, mut response) = (Vec::new(), Vec::new());
        for log in &self.logs {
            match &log.format {
                Form::Text(format) => format.captures(&mut request, &mut response),
                Form::Json(fields) => fields.iter().for_each(|(_, format)| format.captures(&mut request, &mut response)),
            }
            if let Some(filter) = &log.filter {
                filter.captures(&mut request, &mut response);
            }
        }
        for captures in [&mut request, &mut response] {
            captures.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            captures.dedup();
        }
        self.request_captures = request;
        self.response_captures = response;
    }

    /// Whether anything is logged on this side of the mesh.
    pub(crate) fn logs_on(&self, direction: Direction) -> impl Iterator<Item = &Log> {
        let client = direction != Direction::Inbound;
        self.logs.iter().filter(move |log| log.client.is_none_or(|side| side == client))
    }
}

impl Log {
    fn new(config: &AccessLog) -> Result<Self, String> {
        let form = match &config.format {
            LogFormat::Text(text) => Form::Text(Format::log(text)),
            LogFormat::Json(fields) => Form::Json(compile_fields(fields)),
        };
        let filter = config.filter.as_deref().map(Filter::new).transpose()?;
        Ok(Self { format: form, filter, client: config.client })
    }

    /// The line for a stream, if it is to be logged.
    pub(crate) fn line(&self, view: format::View<'_>) -> Option<String> {
        if self.filter.as_ref().is_some_and(|filter| !filter.matches(view)) {
            return None;
        }
        let mut line = String::with_capacity(512);
        match &self.format {
            Form::Text(format) => {
                format.write(view, &mut line);
                if !line.ends_with('\n') {
                    line.push('\n');
                }
            }
            Form::Json(fields) => {
                line.push('{');
                for (index, (name, format)) in fields.iter().enumerate() {
                    if index > 0 {
                        line.push(',');
                    }
                    line.push_str(name);
                    line.push(':');
                    format.write_json(view, &mut line);
                }
                line.push_str("}\n");
            }
        }
        Some(line)
    }
}

fn compile_fields(fields: &BTreeMap<String, String>) -> Vec<(String, Format)> {
    fields.iter().map(|(name, value)| (serde_json::Value::from(name.as_str()).to_string(), Format::log(value))).collect()
}
