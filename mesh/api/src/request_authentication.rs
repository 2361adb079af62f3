//! RequestAuthentication: which tokens a workload takes.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::common::one_target_rule;
use crate::schema::{alias, rules};
use crate::{Duration, LabelSelector, TargetRef};

/// Tokens taken by the selected workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = one_target_rule()))]
pub struct RequestAuthentication {
    /// The workloads; all of the namespace if unset.
    pub selector: Option<LabelSelector>,
    /// A resource it is attached to.
    pub target_ref: Option<TargetRef>,
    /// Resources it is attached to.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Issuers.
    #[schemars(length(max = 4096))]
    pub jwt_rules: Vec<JwtRule>,
}

/// One issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "jwks and jwksUri exclude each other",
    "(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1",
)])), transform = alias("jwksUri", "jwks_uri"))]
pub struct JwtRule {
    /// `iss` of its tokens.
    #[schemars(length(min = 1))]
    pub issuer: String,
    /// Audiences accepted; any if empty.
    #[schemars(inner(length(min = 1)))]
    pub audiences: Vec<String>,
    /// Where its keys are.
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = rules(&[("an http:// or https:// address is needed", "url(self).getScheme() in [\"http\", \"https\"]")]))
    )]
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    /// Its keys.
    pub jwks: String,
    /// Headers that have the token.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that have it.
    #[schemars(inner(length(min = 1)))]
    pub from_params: Vec<String>,
    /// Cookies that have it.
    #[schemars(inner(length(min = 1)))]
    pub from_cookies: Vec<String>,
    /// Header that gets the payload.
    pub output_payload_to_header: String,
    /// Leave the token in the request.
    pub forward_original_token: bool,
    /// Headers that get claims.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Limit for fetching the keys.
    pub timeout: Option<Duration>,
    /// Claims that are lists separated by spaces, beyond `scope`.
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub space_delimited_claims: Vec<String>,
}

/// A header that has the token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct JwtHeader {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What stands before the token.
    pub prefix: String,
}

/// A header that gets a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["header", "claim"]))]
pub struct ClaimToHeader {
    /// The header.
    #[schemars(length(min = 1), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub header: String,
    /// The claim; nested names are joined by a dot.
    #[schemars(length(min = 1))]
    pub claim: String,
}
