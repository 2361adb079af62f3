//! HTTP route tables.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Fraction, HeaderOperations, Origin, StringMatch, ValueMatch};

/// A route table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfiguration {
    /// Its name.
    pub name: String,
    /// The most specific domain wins: exact, then longest `*suffix`, then longest `prefix*`, then `*`. There is no fall-through.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Whether a port in `Host` is ignored when domains are compared.
    #[serde(default)]
    pub ignore_port_in_host: bool,
}

/// The routes of some domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualHost {
    /// Its name (`reviews.default.svc.cluster.local:80`, `allow_any`, `block_all`).
    pub name: String,
    /// Host names, compared without regard to case; each stands in one virtual host of a table only.
    pub domains: Vec<String>,
    /// Tried in order; the first that matches decides. None matching is 404.
    pub routes: Vec<Route>,
    /// Plain HTTP is answered with a redirect to HTTPS before routes are tried (Gateway `tls.httpsRedirect`).
    #[serde(default)]
    pub require_tls: bool,
}

impl RouteConfiguration {
    /// A table, its virtual hosts brought into [their order](VirtualHost::order).
    pub fn new(name: String, mut virtual_hosts: Vec<Arc<VirtualHost>>, ignore_port_in_host: bool) -> Self {
        virtual_hosts.sort_by(|a, b| a.order().cmp(&b.order()));
        Self { name, virtual_hosts, ignore_port_in_host }
    }

    /// Whether its virtual hosts are in [their order](VirtualHost::order), each name once.
    pub fn is_ordered(&self) -> bool {
        self.virtual_hosts.is_sorted_by(|a, b| a.order() < b.order())
    }
}

impl VirtualHost {
    /// The order in which people look for virtual hosts, and in which the compiler gives them: by name, the one for all other names
    /// last. To requests it makes no difference.
    pub fn order(&self) -> (bool, &str) {
        (self.domains.iter().any(|domain| domain == "*"), &self.name)
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, `spec.http[].name` (or `default`).
    pub name: String,
    /// Which requests it takes.
    pub matches: RouteMatch,
    /// What is done with them.
    pub action: RouteAction,
    /// Changes to the request, before those of the chosen destination.
    #[serde(default)]
    pub request_headers: HeaderOperations,
    /// Changes to the response, after those of the chosen destination.
    #[serde(default)]
    pub response_headers: HeaderOperations,
    /// Faults injected before routing.
    pub fault: Option<Fault>,
    /// Cross-origin policy.
    pub cors: Option<Cors>,
    /// Operation name in traces (`reviews.default.svc.cluster.local:80/*`).
    #[serde(default)]
    pub operation: String,
    /// Where it comes from. `None`: a default route of the mesh.
    pub origin: Option<Origin>,
}

/// All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// The path, without the query.
    pub path: PathMatch,
    /// The path is compared without regard to case.
    #[serde(default)]
    pub ignore_path_case: bool,
    /// Headers; `:method`, `:authority` and `:scheme` are among them.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    #[serde(default)]
    pub query: Vec<ValueMatch>,
    /// Claims of a validated token: nested names are joined with a dot.
    #[serde(default)]
    pub claims: Vec<ValueMatch>,
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PathMatch {
    /// A raw string prefix; `/` matches all.
    Prefix(String),
    /// A prefix of whole segments (Gateway API): `/foo` takes `/foo` and `/foo/bar`, not `/foobar`.
    SegmentPrefix(String),
    /// Equal.
    Exact(String),
    /// The whole path matches this RE2 expression.
    Regex(String),
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RouteAction {
    /// Forward.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer at once.
    DirectResponse {
        /// Status code.
        status: u16,
        /// Body, possibly empty.
        body: String,
    },
}

/// Forwarding to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// By weight, relative to their sum; one entry takes all.
    pub destinations: Vec<Destination>,
    /// Replaces what the path match matched (its prefix, or the whole).
    pub rewrite: Option<PathRewrite>,
    /// Replaces `Host`.
    pub authority_rewrite: Option<String>,
    /// From the end of the request's headers to the end of the response. 0: none.
    pub timeout_ms: u64,
    /// Retries. `None`: none.
    pub retry: Option<RetryPolicy>,
    /// Copies of the request whose responses are thrown away.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    /// What a consistent-hash load balancer hashes; the first that is present counts.
    #[serde(default)]
    pub hash_policy: Vec<HashPolicy>,
    /// `Upgrade` protocols let through (`websocket`).
    #[serde(default)]
    pub upgrades: Vec<String>,
}

/// One destination of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// A key of [`crate::ProxyConfig::clusters`]; one that is not there answers 503 with flag NC.
    pub cluster: String,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// Changes to the request for this destination.
    #[serde(default)]
    pub request_headers: HeaderOperations,
    /// Changes to the response from this destination.
    #[serde(default)]
    pub response_headers: HeaderOperations,
    /// `Host` set by this destination's header operations; the route's own authority rewrite wins over it.
    #[serde(default)]
    pub authority_rewrite: Option<String>,
}

/// How a path is rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PathRewrite {
    /// The matched prefix (or exact path) is replaced by this.
    Matched(String),
    /// The whole path is replaced by this, whatever matched.
    Full(String),
    /// `pattern` found in the path is replaced by `substitution` (`\1` is a group).
    Regex {
        /// RE2 expression.
        pattern: String,
        /// With `\N` references.
        substitution: String,
    },
}

/// A redirect. Unset parts stay as the request had them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme.
    pub scheme: Option<String>,
    /// New host.
    pub authority: Option<String>,
    /// New port. One that is derived and the scheme's default is left out of the location.
    pub port: Option<RedirectPort>,
    /// New path.
    pub path: Option<PathRewrite>,
}

/// The port of a redirect's location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The port the request came in on.
    FromRequest,
    /// What is left where nothing is said: the request's own port, unless it was the default of another scheme.
    FromProtocol,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub attempts: u32,
    /// Conditions that lead to a retry.
    pub on: Vec<RetryOn>,
    /// Status codes that do, where `on` has [`RetryOn::RetriableStatusCodes`].
    #[serde(default)]
    pub status_codes: Vec<u16>,
    /// Limit of one attempt; 0: the route's timeout.
    #[serde(default)]
    pub per_try_timeout_ms: u64,
    /// First back-off; it doubles, with full jitter, up to ten times this. Envoy's default is 25.
    pub backoff_base_ms: u64,
    /// Prefer an endpoint that was not tried yet.
    #[serde(default)]
    pub prefer_other_hosts: bool,
}

/// Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on` conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Any 5xx, a reset, a refused connection, no answer.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503, 504.
    GatewayError,
    /// No response at all: reset, closed or timed out.
    Reset,
    /// The connection went before the request was written.
    ResetBeforeRequest,
    /// No connection was made.
    ConnectFailure,
    /// The upstream refused the HTTP/2 stream.
    RefusedStream,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// [`RetryPolicy::status_codes`].
    RetriableStatusCodes,
    /// The upstream asked for it (`x-envoy-ratelimited` and the like do not).
    EnvoyRatelimited,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 13.
    Internal,
    /// gRPC status 14.
    Unavailable,
}

/// Where and how much to mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// A key of [`crate::ProxyConfig::clusters`].
    pub cluster: String,
    /// Share of requests.
    pub fraction: Fraction,
}

/// What is hashed to choose an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HashPolicy {
    /// A request header.
    Header(String),
    /// A query parameter.
    Query(String),
    /// The client's address.
    SourceIp,
    /// A cookie; with a lifetime it is made when it is missing.
    Cookie {
        /// Its name.
        name: String,
        /// Its path.
        path: String,
        /// Its lifetime in seconds; `None`: never made here, 0: a session cookie.
        ttl_s: Option<u64>,
    },
}

/// Delay and abort, independent of each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Waits before anything else.
    pub delay: Option<FaultDelay>,
    /// Answers instead of the upstream.
    pub abort: Option<FaultAbort>,
}

/// An injected delay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultDelay {
    /// How long.
    pub delay_ms: u64,
    /// How many requests.
    pub fraction: Fraction,
}

/// An injected error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAbort {
    /// What is answered.
    pub status: AbortStatus,
    /// How many requests.
    pub fraction: Fraction,
}

/// HTTP or gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status code.
    Grpc(u32),
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatch>,
    /// `access-control-allow-methods`.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// `access-control-allow-headers`.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// `access-control-expose-headers`.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// `access-control-max-age`, in seconds.
    pub max_age_s: Option<u64>,
    /// `access-control-allow-credentials`.
    pub allow_credentials: Option<bool>,
    /// Whether a preflight whose origin does not match goes on to the upstream (Istio's default) or is answered here.
    pub forward_unmatched_preflights: bool,
}
