//! Case files: what a newcomer writes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::tokens::Token;

/// One file: a subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// What the file is about.
    pub about: String,
    /// The proxy that the scenarios are compiled for.
    #[serde(default)]
    pub proxy: Role,
    /// MeshConfig fields.
    #[serde(default)]
    pub mesh: BTreeMap<String, Value>,
    /// Tokens that requests name (`$token(name)`), signed with this run's key.
    #[serde(default)]
    pub tokens: BTreeMap<String, Token>,
    /// Scenarios: resources, and the cases that run on them.
    pub scenarios: Vec<Scenario>,
}

/// Which proxy of the world is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The ingress gateway, on port 80.
    #[default]
    Gateway,
    /// The sidecar of pod `client`, outbound on port 80.
    Outbound,
    /// The sidecar of pod `server`, inbound on port 8080.
    Inbound,
}

/// Resources of their own, in a world of their own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Unique in the file.
    pub name: String,
    /// As in [`Subject::proxy`].
    pub proxy: Option<Role>,
    /// MeshConfig fields, besides the file's.
    #[serde(default)]
    pub mesh: BTreeMap<String, Value>,
    /// `spec.http` of a VirtualService, on the gateway for `app.example`, in the mesh for the service `app`, or for `hosts`.
    pub http: Option<Value>,
    /// Hosts of that VirtualService.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Further resources, as one would `kubectl apply` them; the namespace is `default` unless they name one.
    #[serde(default)]
    pub istio: String,
    /// The cases, in order.
    pub cases: Vec<Case>,
}

/// One comparison.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique in the scenario.
    pub name: String,
    /// What is sent.
    #[serde(default)]
    pub request: Request,
    /// Instead of `request`: several, one after the other.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// What the upstream answers to the first attempt, the second and so on; the last goes on. Empty: 200.
    #[serde(default)]
    pub upstream: Vec<Reply>,
    /// What Envoy must do, so that the case tests what it says.
    #[serde(default)]
    pub expect: Expect,
    /// Instead of exact comparison: shares of many requests.
    pub shares: Option<Shares>,
    /// Fields that are drawn at random and not compared.
    #[serde(default)]
    pub random: Vec<String>,
    /// Deliberate differences.
    #[serde(default)]
    pub differs: Vec<Difference>,
}

/// A request. `$n` in path, headers and host becomes the number of the repetition.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// GET unless said otherwise.
    pub method: String,
    /// Path and query, sent as they are.
    pub path: String,
    /// `Host`; the scenario's first host unless said otherwise.
    pub host: Option<String>,
    /// Header lines; a list is several lines of one name.
    pub headers: BTreeMap<String, Lines>,
    /// Body, with its length.
    pub body: Option<String>,
    /// The body is sent in chunks.
    pub chunked: bool,
    /// Instead of everything else: these bytes.
    pub raw: Option<String>,
    /// Over HTTP/2, with prior knowledge or, over TLS, as negotiated.
    pub http2: bool,
    /// A gRPC call with this message, over HTTP/2.
    pub grpc: Option<String>,
    /// Not HTTP: this text, with the sending side closed after it. Upstreams answer it with their name in front.
    pub tcp: Option<String>,
    /// Mutual TLS as this principal (`cluster.local/ns/default/sa/sleep`).
    pub identity: Option<String>,
    /// TLS without a certificate, for this server name.
    pub sni: Option<String>,
    /// So many times, one after the other.
    pub times: u32,
    /// So many at once: each starts when the one before was seen by the upstream, or was answered.
    pub together: u32,
    /// Milliseconds to wait first, for what happens by the clock.
    pub wait_ms: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: BTreeMap::new(),
            body: None,
            chunked: false,
            raw: None,
            http2: false,
            grpc: None,
            tcp: None,
            identity: None,
            sni: None,
            times: 1,
            together: 1,
            wait_ms: 0,
        }
    }
}

/// One or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Lines {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Lines {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Many(lines) => lines,
        }
    }
}

/// What the upstream does with one attempt.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header lines.
    pub headers: BTreeMap<String, Lines>,
    /// Body; the upstream's name unless said otherwise.
    pub body: Option<String>,
    /// A body that is no text.
    #[serde(skip)]
    pub bytes: Option<Vec<u8>>,
    /// Trailers, over HTTP/2.
    pub trailers: BTreeMap<String, String>,
    /// Milliseconds before anything is sent.
    pub delay_ms: u64,
    /// Instead of an answer.
    pub fail: Option<Failure>,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            status: 200,
            headers: BTreeMap::new(),
            body: None,
            bytes: None,
            trailers: BTreeMap::new(),
            delay_ms: 0,
            fail: None,
        }
    }
}

/// How an upstream fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Closes the connection.
    Close,
    /// Resets the connection, over HTTP/2 the stream.
    Reset,
    /// Sends what is not HTTP.
    Garbage,
    /// Closes the connection in the middle of the body.
    Truncate,
}

/// What Envoy is expected to do. Whatever is not named is compared all the same.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Status; a list is one for each request, in order.
    pub status: Option<OneOrMany>,
    /// Name of the upstream that answered; a list is one for each request; empty: none.
    pub upstream: Option<Lines>,
    /// Requests that upstreams saw for each request, mirrors not counted.
    pub attempts: Option<usize>,
    /// Response flags.
    pub flags: Option<String>,
    /// Response code details.
    pub details: Option<String>,
    /// Response headers; `null`: not there.
    pub headers: BTreeMap<String, Option<String>>,
    /// Response trailers; `null`: not there.
    pub trailers: BTreeMap<String, Option<String>>,
    /// Response body.
    pub body: Option<String>,
    /// Headers of the last request that the upstream saw; `null`: not there. `:path`, `:method`, `:body`, `:version` and `:tls` are among them.
    pub sees: BTreeMap<String, Option<String>>,
    /// Requests that each mirror gets.
    pub mirrored: BTreeMap<String, usize>,
    /// Milliseconds that the answer takes, at least and at most.
    pub took_ms: Option<(u64, u64)>,
}

/// One status, or one for each request.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// For all.
    One(u16),
    /// For each.
    Many(Vec<u16>),
}

/// Shares of outcomes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// Requests to each proxy.
    pub requests: u32,
    /// What an outcome is called by.
    #[serde(default)]
    pub by: ShareBy,
    /// The share of each outcome; `null`: whatever Envoy's is.
    pub expect: BTreeMap<String, Option<f64>>,
}

/// What an outcome is called by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareBy {
    /// The upstream that answered.
    #[default]
    Upstream,
    /// The status.
    Status,
    /// The mirrors that got a copy.
    Mirror,
}

/// A deliberate difference.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// Why; `docs/differences.md` says it too.
    pub reason: String,
}

impl Case {
    /// Its requests.
    pub fn all_requests(&self) -> &[Request] {
        if self.requests.is_empty() { std::slice::from_ref(&self.request) } else { &self.requests }
    }
}

/// Reads all case files of a folder, by name.
///
/// # Errors
/// A file cannot be read or says what cannot be.
pub fn load(folder: &Path) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let mut subject: Subject = serde_saphyr::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        subject.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        subject.check().with_context(|| format!("in {}", path.display()))?;
        subjects.push(subject);
    }
    subjects.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(subjects)
}

impl Subject {
    fn check(&self) -> Result<()> {
        let mut names = std::collections::BTreeSet::new();
        for scenario in &self.scenarios {
            for case in &scenario.cases {
                let name = format!("{}/{}", scenario.name, case.name);
                ensure!(
                    case.expect.status.is_some()
                        || case.shares.is_some()
                        || case.all_requests()[0].raw.is_some()
                        || case.all_requests()[0].tcp.is_some() && case.expect.body.is_some(),
                    "{name}: expect.status is missing"
                );
                ensure!(case.requests.is_empty() || case.shares.is_none(), "{name}: shares are of one request");
                ensure!(names.insert(name.clone()), "{name} is there twice");
            }
        }
        Ok(())
    }
}
