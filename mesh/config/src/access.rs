//! Authentication and authorization, for requests and for connections.
//!
//! Order: `custom`, then `jwt`, then `audit` and `deny`, then `allow`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Origin, StringMatch};

/// Request-level access control of a listener's chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpAccess {
    /// Token rules. A request with no token passes; one with a bad token gets 401.
    pub jwt: Vec<JwtRule>,
    /// External authorization.
    pub custom: Vec<CustomPolicy>,
    /// Logged only.
    pub audit: Vec<Policy>,
    /// A match denies.
    pub deny: Vec<Policy>,
    /// If there are any, one must match.
    pub allow: Vec<Policy>,
}

/// Connection-level access control.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpAccess {
    /// Logged only.
    pub audit: Vec<Policy>,
    /// A match denies.
    pub deny: Vec<Policy>,
    /// If there are any, one must match.
    pub allow: Vec<Policy>,
}

/// One AuthorizationPolicy, ALLOW, DENY or AUDIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The resource.
    pub origin: Origin,
    /// `istio.io/dry-run`: evaluated and logged, never enforced.
    #[serde(default)]
    pub dry_run: bool,
    /// One must match. None: never matches.
    pub rules: Vec<PolicyRule>,
}

/// An AuthorizationPolicy with action CUSTOM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomPolicy {
    /// When to ask.
    pub policy: Policy,
    /// Whom.
    pub provider: ExternalAuthorizer,
}

/// An external authorizer (`meshConfig.extensionProviders`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAuthorizer {
    /// Its cluster.
    pub cluster: String,
    /// HTTP or gRPC (`envoy.service.auth.v3.Authorization/Check`).
    pub protocol: AuthorizerProtocol,
    /// Limit of one question. Default 600 000 (Istio's ten minutes).
    pub timeout_ms: u64,
    /// Let requests through when it does not answer.
    pub fail_open: bool,
    /// Status when it does not answer and `fail_open` is not set. Default 403.
    pub status_on_error: u16,
    /// Put before the path (HTTP).
    #[serde(default)]
    pub path_prefix: String,
    /// Request headers sent along (HTTP); exact, prefix or suffix.
    #[serde(default)]
    pub include_request_headers: Vec<StringMatch>,
    /// Headers of an OK answer laid over the request.
    #[serde(default)]
    pub headers_to_upstream: Vec<StringMatch>,
    /// Headers of a denial passed to the client.
    #[serde(default)]
    pub headers_to_downstream: Vec<StringMatch>,
    /// Bytes of the body sent along; 0: none.
    #[serde(default)]
    pub max_body_bytes: u32,
}

/// What an authorizer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizerProtocol {
    /// A plain request; 200 allows.
    Http,
    /// Envoy's gRPC service.
    Grpc,
}

/// One rule: `from`, `to` and `when` must all match; each is matched by any of its entries, or by being empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyRule {
    /// Position in the resource, for `rbac_access_denied_matched_policy[ns[…]-policy[…]-rule[N]]`.
    pub index: usize,
    /// Any of these sources.
    pub from: Vec<AllOf>,
    /// Any of these operations.
    pub to: Vec<AllOf>,
    /// All of these conditions.
    pub when: AllOf,
}

/// Conditions that must all hold.
pub type AllOf = Vec<Condition>;

/// An attribute and the values wanted. It holds when one of `values` matches (or there are none) and none of `not_values` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What is looked at.
    pub attribute: Attribute,
    /// One must match.
    #[serde(default)]
    pub values: Vec<AttributeMatch>,
    /// None may match.
    #[serde(default)]
    pub not_values: Vec<AttributeMatch>,
}

/// An attribute of a request or connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Attribute {
    /// `source.principal`: `cluster.local/ns/default/sa/sleep`; absent without mutual TLS.
    Principal,
    /// `source.namespace`, from the principal.
    Namespace,
    /// `serviceAccounts`: `ns/sa`, from the principal.
    ServiceAccount,
    /// `source.ip`: the direct peer.
    SourceIp,
    /// `remote.ip`: the client as `x-forwarded-for` and the trusted proxies tell.
    RemoteIp,
    /// `request.auth.principal`: `issuer/subject` of a validated token.
    RequestPrincipal,
    /// `request.auth.audiences`.
    Audience,
    /// `request.auth.presenter`.
    Presenter,
    /// `request.auth.claims[a][b]`.
    Claim(Vec<String>),
    /// `request.headers[name]`.
    Header(String),
    /// `operation.hosts`.
    Host,
    /// `operation.methods`.
    Method,
    /// `operation.paths`.
    Path,
    /// `operation.ports`, `destination.port`.
    DestinationPort,
    /// `destination.ip`.
    DestinationIp,
    /// `connection.sni`.
    Sni,
}

/// One value wanted of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AttributeMatch {
    /// As a string.
    String(StringMatch),
    /// As an address in a block.
    Ip(IpNet),
    /// As a port.
    Port(u16),
    /// As a path with `{*}` and `{**}` (Istio's path templates).
    PathTemplate(String),
}

/// One `jwtRules` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtRule {
    /// The RequestAuthentication.
    pub origin: Origin,
    /// `iss` required.
    pub issuer: String,
    /// One of these in `aud`; empty: not checked.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The key set itself; `jwksUri` is fetched by the control plane. `None`: it could not be had, so every token fails.
    pub jwks: Option<String>,
    /// Headers looked in: name and the prefix before the token.
    #[serde(default)]
    pub from_headers: Vec<(String, String)>,
    /// Query parameters looked in.
    #[serde(default)]
    pub from_params: Vec<String>,
    /// Cookies looked in.
    #[serde(default)]
    pub from_cookies: Vec<String>,
    /// Header that gets the payload, base64url.
    pub output_payload_to_header: Option<String>,
    /// Headers that get claims: header, claim path.
    #[serde(default)]
    pub claim_to_headers: Vec<(String, String)>,
    /// Leave the token in the request.
    #[serde(default)]
    pub forward_original_token: bool,
    /// Tolerance when the keys are fetched, unused by the proxy.
    #[serde(default)]
    pub timeout_ms: u64,
}
