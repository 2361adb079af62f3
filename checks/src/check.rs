//! The format of a check file.

use std::collections::BTreeMap;
use std::time::Duration;

use meshlab_probe_protocol::HttpRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Text;

/// A file of checks, one section of a lab.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckFile {
    /// In the order they are reported.
    pub checks: Vec<Check>,
}

/// One assertion about the learner's cluster.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// Unique in the lab: `mtls-plaintext-refused`.
    pub id: String,
    /// What holds when it passes, as one sentence.
    pub title: Text,
    /// Why it matters.
    pub why: Text,
    /// What to do when it fails.
    pub fix: Text,
    /// Its share of the grade.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Checks that must pass first; otherwise this one is skipped.
    #[serde(default)]
    pub needs: Vec<String>,
    /// How the verdict is reached over time.
    #[serde(default)]
    pub mode: Mode,
    /// How long to wait for it (`converge`) or to watch it (`hold`), in milliseconds.
    #[serde(default = "default_deadline")]
    pub deadline_ms: u64,
    /// The expectation is the answer to a puzzle: it is told to nobody, nor is the edit that would pass.
    #[serde(default)]
    pub secret: bool,
    /// How to look.
    pub probe: Probe,
    /// What must be seen.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub expect: Value,
    /// For a check that something is refused: what must work at the same moment, or the refusal proves nothing.
    #[serde(default)]
    pub control: Option<Control>,
    /// Mistakes people make, told by what was seen.
    #[serde(default)]
    pub misconceptions: Vec<Misconception>,
}

/// How a verdict is reached over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Looked at again until it holds or the deadline is over: for what takes a moment to take effect.
    #[default]
    Converge,
    /// Looked at once.
    Assert,
    /// Must hold every time it is looked at until the deadline.
    Hold,
    /// Must hold every time it is looked at, as long as the other checks of the run are under way.
    Safeguard,
}

/// The positive control of a negative check.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// How to look.
    pub probe: Probe,
    /// What must be seen.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub expect: Value,
}

/// A mistake that can be told from what is there, with a hint made for it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Misconception {
    /// Its name: `weights-swapped`.
    pub id: String,
    /// Where to look, if not at what the check's own probe saw.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// The pattern.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub when: Value,
    /// What to tell the learner.
    pub hint: Text,
    /// What the object that `probe` looks at lacks or has too much, as a JSON merge patch: the smallest edit that would pass.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub edit: Option<Value>,
}

/// Ways of looking. Each yields one JSON value that expectations are compared with.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Probe {
    /// Kubernetes objects.
    Resource(ResourceProbe),
    /// Requests from somewhere.
    Traffic(TrafficProbe),
    /// How requests are shared out, judged by a sequential test; it needs no `expect`.
    Split(SplitProbe),
    /// A Prometheus query.
    Metrics(MetricsProbe),
    /// A search for traces.
    Traces(TracesProbe),
    /// A container's log.
    Log(LogProbe),
}

impl Probe {
    /// What is looked at: `Namespace webapp`, `GET http://webapp-service/, from mesh`.
    pub fn in_words(&self) -> Text {
        match self {
            Self::Resource(probe) => {
                let kind = &probe.kind;
                match (&probe.namespace, &probe.name) {
                    (Some(namespace), Some(name)) => Text::same(format!("{kind} {namespace}/{name}")),
                    (None, Some(name)) => Text::same(format!("{kind} {name}")),
                    (Some(namespace), None) => Text {
                        ja: format!("名前空間 {namespace} の {kind}"),
                        en: format!("{kind}s in namespace {namespace}"),
                    },
                    (None, None) => Text { ja: kind.clone(), en: format!("{kind}s") },
                }
            }
            Self::Traffic(TrafficProbe { from, request, .. }) | Self::Split(SplitProbe { from, request, .. }) => {
                let headers = request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                let headers: String = headers.map(|(name, value)| format!(", {name}: {value}")).collect();
                let request = format!("{} {}{headers}", request.method, request.url);
                Text { ja: format!("{request}（送信元: {from}）"), en: format!("{request}, from {from}") }
            }
            Self::Metrics(probe) => Text::same(&probe.query),
            Self::Traces(probe) => {
                Text { ja: format!("{} のトレース", probe.service), en: format!("traces of {}", probe.service) }
            }
            Self::Log(LogProbe { container, label_selector, namespace, .. }) => Text {
                ja: format!("名前空間 {namespace} の Pod {label_selector} の {container} のログ"),
                en: format!("log of {container} in pods {label_selector} of namespace {namespace}"),
            },
        }
    }
}

/// One object by `name`, or a list of them. Yields the object (null if there is none), or `{count, items}`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceProbe {
    /// `v1`, `networking.istio.io/v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// All namespaces if not set.
    #[serde(default)]
    pub namespace: Option<String>,
    /// One object.
    #[serde(default)]
    pub name: Option<String>,
    /// Only objects with these labels.
    #[serde(default)]
    pub label_selector: Option<String>,
}

/// One request, or many alike. Yields, for one: `{status, headers, body, durationMs, error: {kind, message}}` with the body as
/// JSON where it is; for many: `{count, statuses: {"200": n}, errors: {kind: n}, responses: […], durationMs: {min, p50, max}}`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficProbe {
    /// Who sends: a client of the lab.
    pub from: String,
    /// What is sent.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub request: HttpRequest,
    /// How often.
    #[serde(default = "default_count")]
    pub count: u32,
    /// How many at the same time.
    #[serde(default = "default_count")]
    pub concurrency: u32,
}

/// Requests until the shares are known.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SplitProbe {
    /// Who sends.
    pub from: String,
    /// What is sent.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub request: HttpRequest,
    /// What in the response tells the destination, as a path: `body.version`, `headers.x-version`, `status`.
    pub by: String,
    /// Destination → weight, relative to the sum.
    pub shares: BTreeMap<String, u32>,
    /// How many at the same time.
    #[serde(default = "default_split_concurrency")]
    pub concurrency: u32,
    /// How far off a share must be to be refused for sure; see [`crate::sequential::default_margin`].
    #[serde(default)]
    pub margin: Option<f64>,
}

/// An instant query. Yields `{result: [{metric: {…}, value: N}], total: N}`, `total` being the sum of all values.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricsProbe {
    /// PromQL.
    pub query: String,
}

/// Traces of one service. Yields `{count, traces: [{services: […], operations: […], spans: N, errors: N}]}`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracesProbe {
    /// `service.namespace`.
    pub service: String,
    /// How far back, in seconds.
    #[serde(default = "default_lookback")]
    pub lookback_s: u64,
    /// Only traces with these tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Send this first, and only look at traces that began since: what an earlier configuration traced proves nothing.
    #[serde(default)]
    pub after: Option<TrafficProbe>,
}

/// The last lines of some pods' logs, one pod after the other. Yields `{lines: […], count: N}`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogProbe {
    /// Namespace.
    pub namespace: String,
    /// Every ready pod with these labels.
    pub label_selector: String,
    /// Container.
    pub container: String,
    /// How many lines from the end.
    #[serde(default = "default_tail")]
    pub tail: i64,
    /// Send this first, and only look at lines that were written since: what an earlier configuration logged proves nothing.
    #[serde(default)]
    pub after: Option<TrafficProbe>,
}

impl Check {
    /// The deadline.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

fn default_weight() -> u32 {
    1
}

fn default_deadline() -> u64 {
    5_000
}

fn default_count() -> u32 {
    1
}

fn default_split_concurrency() -> u32 {
    10
}

fn default_lookback() -> u64 {
    300
}

fn default_tail() -> i64 {
    200
}
