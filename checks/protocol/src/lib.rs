//! What a check asks of a prober, and what it gets back.
//!
//! A prober is a pod (in the mesh, or outside it) that sends the requests of a check from where it stands.
//! `POST /probe` takes a [`ProbeRequest`] and answers with a [`ProbeResponse`]; both are JSON. Port [`PORT`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The port a prober listens on. Pods in the mesh exclude it from redirection, so that STRICT mutual TLS does not shut out the checks.
pub const PORT: u16 = 9099;

/// The most requests one [`ProbeRequest`] may ask for.
pub const MAX_COUNT: u32 = 5_000;

/// The most bytes of a body that an outcome carries.
pub const MAX_BODY: usize = 64 * 1024;

/// Send one request, or the same request many times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeRequest {
    /// The request.
    pub request: HttpRequest,
    /// How often, 1 to [`MAX_COUNT`].
    #[serde(default = "one")]
    pub count: u32,
    /// How many at the same time.
    #[serde(default = "one")]
    pub concurrency: u32,
}

/// One HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRequest {
    /// `http://…` or `https://…`. Its host is resolved where the prober stands.
    pub url: String,
    /// Method.
    #[serde(default = "get")]
    pub method: String,
    /// Headers; `host` replaces the URL's.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body.
    #[serde(default)]
    pub body: String,
    /// Connect here instead of where the URL says: `host:port`. The URL still gives `Host` and the TLS server name.
    #[serde(default)]
    pub connect_to: Option<String>,
    /// Limit of the whole exchange in milliseconds.
    #[serde(default = "ten_seconds")]
    pub timeout_ms: u64,
}

/// What became of the requests, in the order they were sent: a test that stops early must not see the quick ones first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResponse {
    /// One for each request sent.
    pub outcomes: Vec<Outcome>,
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Status code, if there was an answer.
    pub status: Option<u16>,
    /// Response headers, lower case; several values are joined with `, `.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Response body as text, at most [`MAX_BODY`] bytes.
    #[serde(default)]
    pub body: String,
    /// From the start to the end of the exchange.
    pub duration_ms: u64,
    /// Why there was no answer.
    pub error: Option<Failure>,
    /// The server's certificate, if TLS was spoken: subject alternative names.
    #[serde(default)]
    pub peer_names: Vec<String>,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// At which stage.
    pub kind: FailureKind,
    /// In words.
    pub message: String,
}

/// The stages at which a request can fail; a negative check matches the cause, not just "it failed".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The name does not exist.
    Dns,
    /// Nobody listens.
    Refused,
    /// The connection could not be made for another reason.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The peer reset or closed the connection without answering.
    Reset,
    /// Too late.
    Timeout,
    /// The answer was not HTTP.
    Protocol,
}

fn one() -> u32 {
    1
}

fn get() -> String {
    "GET".to_owned()
}

fn ten_seconds() -> u64 {
    10_000
}
