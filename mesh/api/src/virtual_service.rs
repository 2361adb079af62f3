//! VirtualService: how requests to a host are routed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::schema::{alias, at_most_one};
use crate::{Destination, Duration, Percent, StringMatch};

/// Routing of the traffic to some hosts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualService {
    /// Hosts that traffic is sent to.
    pub hosts: Vec<String>,
    /// Gateways and sidecars (`mesh`) that apply it; none means `mesh`.
    pub gateways: Vec<String>,
    /// Routes for HTTP traffic; the first that matches is taken.
    pub http: Vec<HttpRoute>,
    /// Routes for TLS that is passed through, by server name.
    pub tls: Vec<TlsRoute>,
    /// Routes for opaque TCP.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see it: `.`, `*`, names.
    pub export_to: Vec<String>,
}

/// One HTTP rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = alias("mirrorPercent", "mirror_percent"))]
pub struct HttpRoute {
    /// A name for logs and for finding the route again.
    pub name: String,
    /// Conditions: fields of one entry are ANDed, entries ORed. None takes every request.
    pub r#match: Vec<HttpMatchRequest>,
    /// Where to forward, by weight.
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Answer with a fixed response.
    pub direct_response: Option<HttpDirectResponse>,
    /// Take the routes of another VirtualService.
    pub delegate: Option<Delegate>,
    /// Change path or host before forwarding.
    pub rewrite: Option<HttpRewrite>,
    /// Limit for the whole response; unset is none.
    pub timeout: Option<Duration>,
    /// Retry policy.
    pub retries: Option<HttpRetry>,
    /// Errors injected.
    pub fault: Option<HttpFaultInjection>,
    /// A destination that gets a copy.
    pub mirror: Option<Destination>,
    /// Destinations that get a copy.
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Deprecated form of mirrorPercentage.
    #[serde(alias = "mirror_percent")]
    pub mirror_percent: Option<u32>,
    /// Share of requests copied to `mirror`.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin policy.
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes.
    pub headers: Option<Headers>,
}

/// Another VirtualService.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; the root's own if empty.
    pub namespace: String,
}

/// Changes to request and response headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Of the request.
    pub request: Option<HeaderOperations>,
    /// Of the response.
    pub response: Option<HeaderOperations>,
}

/// Changes to headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderOperations {
    /// Overwrite.
    pub set: BTreeMap<String, String>,
    /// Append.
    pub add: BTreeMap<String, String>,
    /// Delete.
    pub remove: Vec<String>,
}

/// Conditions on a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatchRequest {
    /// A name, joined to the route's in logs.
    pub name: String,
    /// The path.
    pub uri: Option<StringMatch>,
    /// The scheme.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The authority (`Host`).
    pub authority: Option<StringMatch>,
    /// Headers; an empty match asks that the header is there.
    pub headers: BTreeMap<String, StringMatch>,
    /// The port the request is addressed to.
    pub port: u32,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this entry applies to, instead of the resource's.
    pub gateways: Vec<String>,
    /// Query parameters.
    pub query_params: BTreeMap<String, StringMatch>,
    /// The path is compared without regard to case.
    pub ignore_uri_case: bool,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Namespace of the client's workload.
    pub source_namespace: String,
    /// Prefix of the route's statistics.
    pub stat_prefix: String,
}

/// A destination and its share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["destination"]))]
pub struct HttpRouteDestination {
    /// Where.
    pub destination: Destination,
    /// Share, relative to the sum.
    pub weight: i32,
    /// Header changes for this destination.
    pub headers: Option<Headers>,
}

/// A destination and its share, for TCP and TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["destination"]))]
pub struct RouteDestination {
    /// Where.
    pub destination: Destination,
    /// Share, relative to the sum.
    pub weight: i32,
}

/// A redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["port", "derivePort"])))]
pub struct HttpRedirect {
    /// New path, replacing the whole.
    pub uri: String,
    /// New authority.
    pub authority: String,
    /// New port.
    #[schemars(extend("nullable" = false))]
    pub port: Option<u32>,
    /// How the port is found.
    pub derive_port: Option<RedirectPort>,
    /// New scheme.
    pub scheme: String,
    /// 301, 302, 303, 307 or 308.
    pub redirect_code: u32,
    /// Replaces the matched prefix only.
    pub prefix_rewrite: String,
}

/// How a redirect's port is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPort {
    /// 80 or 443, as the scheme says.
    FromProtocolDefault,
    /// The request's.
    FromRequestPort,
}

/// A fixed response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["status"]))]
pub struct HttpDirectResponse {
    /// Status code.
    pub status: u32,
    /// Body.
    pub body: Option<HttpBody>,
}

/// The body of a fixed response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["string", "bytes"])))]
pub struct HttpBody {
    /// As text.
    pub string: Option<String>,
    /// As base64.
    #[schemars(extend("format" = "byte"))]
    pub bytes: Option<String>,
}

/// A change of path or host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRewrite {
    /// Replaces the matched prefix, or the whole path.
    pub uri: String,
    /// Replaces the authority.
    pub authority: String,
    /// Replaces by expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// Replacement by regular expression.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegexRewrite {
    /// RE2 expression.
    pub r#match: String,
    /// Replacement; `\1` is a group.
    pub rewrite: String,
}

/// Retries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRetry {
    /// Attempts after the first; 0 turns retries off.
    pub attempts: i32,
    /// Limit of one attempt.
    pub per_try_timeout: Option<Duration>,
    /// Conditions, separated by commas.
    pub retry_on: String,
    /// Try other localities too.
    pub retry_remote_localities: Option<bool>,
    /// Avoid hosts that were tried.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base of the back-off between attempts; 25ms if unset.
    pub backoff: Option<Duration>,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsPolicy {
    /// Deprecated form of allowOrigins.
    pub allow_origin: Vec<String>,
    /// Origins allowed.
    pub allow_origins: Vec<StringMatch>,
    /// Methods allowed.
    pub allow_methods: Vec<String>,
    /// Request headers allowed.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer holds.
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// What is done with preflights whose origin is not allowed.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What is done with preflights that do not match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// As FORWARD.
    #[default]
    Unspecified,
    /// They go to the upstream.
    Forward,
    /// They are answered here.
    Ignore,
}

/// Delays and errors injected.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpFaultInjection {
    /// Wait first.
    pub delay: Option<Delay>,
    /// Answer instead of the upstream.
    pub abort: Option<Abort>,
}

/// An injected delay.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["fixedDelay", "exponentialDelay"])))]
pub struct Delay {
    /// Deprecated form of percentage.
    pub percent: i32,
    /// How long.
    pub fixed_delay: Option<Duration>,
    /// Not supported, by Istio either.
    pub exponential_delay: Option<Duration>,
    /// Share of requests; unset is none.
    pub percentage: Option<Percent>,
}

/// An injected error.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["httpStatus", "grpcStatus", "http2Error"])))]
pub struct Abort {
    /// HTTP status.
    #[schemars(extend("nullable" = false))]
    pub http_status: Option<i32>,
    /// gRPC status, by name or number.
    pub grpc_status: Option<String>,
    /// Not supported, by Istio either.
    pub http2_error: Option<String>,
    /// Share of requests; unset is none.
    pub percentage: Option<Percent>,
}

/// A destination that gets a copy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["destination"]))]
pub struct HttpMirrorPolicy {
    /// Where.
    pub destination: Destination,
    /// Share of requests; unset is all.
    pub percentage: Option<Percent>,
}

/// One rule for TLS passed through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["match"]))]
pub struct TlsRoute {
    /// Conditions, ORed.
    pub r#match: Vec<TlsMatchAttributes>,
    /// Where to, by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TLS connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["sniHosts"]))]
pub struct TlsMatchAttributes {
    /// Server names, among the resource's hosts.
    pub sni_hosts: Vec<String>,
    /// Destination addresses.
    pub destination_subnets: Vec<String>,
    /// Destination port.
    pub port: u32,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this entry applies to.
    pub gateways: Vec<String>,
    /// Namespace of the client's workload.
    pub source_namespace: String,
}

/// One rule for TCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TcpRoute {
    /// Conditions, ORed; none takes every connection.
    pub r#match: Vec<L4MatchAttributes>,
    /// Where to, by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TCP connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct L4MatchAttributes {
    /// Destination addresses.
    pub destination_subnets: Vec<String>,
    /// Destination port.
    pub port: u32,
    /// Not supported, by Istio either.
    pub source_subnet: String,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this entry applies to.
    pub gateways: Vec<String>,
    /// Namespace of the client's workload.
    pub source_namespace: String,
}
