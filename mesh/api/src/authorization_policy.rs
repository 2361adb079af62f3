//! AuthorizationPolicy: who may do what.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::common::one_target_rule;
use crate::schema::{at_most_one, rules};
use crate::{LabelSelector, TargetRef};

/// Access to the selected workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["provider"]), "x-kubernetes-validations" = one_target_rule()))]
pub struct AuthorizationPolicy {
    /// The workloads; all of the namespace if unset.
    pub selector: Option<LabelSelector>,
    /// A resource it is attached to.
    pub target_ref: Option<TargetRef>,
    /// Resources it is attached to.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Rules, ORed. None never match; an empty one always does.
    #[schemars(length(max = 512))]
    pub rules: Vec<Rule>,
    /// What a match does.
    pub action: Action,
    /// Who is asked, for CUSTOM.
    pub provider: Option<ExtensionProvider>,
}

/// What a match does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Lets the request through.
    #[default]
    Allow,
    /// Refuses it.
    Deny,
    /// Marks it for auditing.
    Audit,
    /// Asks the provider.
    Custom,
}

/// A provider of `meshConfig.extensionProviders`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExtensionProvider {
    /// Its name.
    pub name: String,
}

/// Sources, operations and conditions, ANDed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Sources, ORed; any if empty.
    #[schemars(length(max = 512))]
    pub from: Vec<From>,
    /// Operations, ORed; any if empty.
    pub to: Vec<To>,
    /// Conditions, ANDed.
    pub when: Vec<Condition>,
}

/// Wraps a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct From {
    /// The source.
    pub source: Option<Source>,
}

/// Who asks. Fields are ANDed, values of one field ORed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "serviceAccounts cannot stand beside principals or namespaces",
    "(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) && !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
)])))]
pub struct Source {
    /// Peer identities, `cluster.local/ns/default/sa/sleep`.
    pub principals: Vec<String>,
    /// None of these.
    pub not_principals: Vec<String>,
    /// Token identities, `issuer/subject`.
    pub request_principals: Vec<String>,
    /// None of these.
    pub not_request_principals: Vec<String>,
    /// Peer namespaces.
    pub namespaces: Vec<String>,
    /// None of these.
    pub not_namespaces: Vec<String>,
    /// Peer service accounts, `name` or `namespace/name`.
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub service_accounts: Vec<String>,
    /// None of these.
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub not_service_accounts: Vec<String>,
    /// Peer trust domains.
    pub trust_domains: Vec<String>,
    /// None of these.
    pub not_trust_domains: Vec<String>,
    /// Addresses of the direct peer.
    pub ip_blocks: Vec<String>,
    /// None of these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses of the original client.
    pub remote_ip_blocks: Vec<String>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<String>,
}

/// Wraps an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct To {
    /// The operation.
    pub operation: Option<Operation>,
}

/// What is asked. Fields are ANDed, values of one field ORed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Hosts.
    pub hosts: Vec<String>,
    /// None of these.
    pub not_hosts: Vec<String>,
    /// Ports.
    pub ports: Vec<String>,
    /// None of these.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// None of these.
    pub not_methods: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
    /// None of these.
    pub not_paths: Vec<String>,
}

/// A condition on an attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["key"]))]
pub struct Condition {
    /// The attribute.
    pub key: String,
    /// One of these.
    pub values: Vec<String>,
    /// None of these.
    pub not_values: Vec<String>,
}
