//! Types that several resources share.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::schema::{at_most_one, rules};

/// How a string is matched: at most one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["exact", "prefix", "regex"])))]
pub struct StringMatch {
    /// Equal.
    pub exact: Option<String>,
    /// Starts with.
    pub prefix: Option<String>,
    /// The whole string fits this RE2 expression.
    pub regex: Option<String>,
}

/// A share in percent, 0.0 to 100.0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Percent {
    /// The share.
    pub value: f64,
}

/// A port by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PortSelector {
    /// 1 to 65535.
    pub number: u32,
}

/// Where traffic goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["host"]))]
pub struct Destination {
    /// A service; a name without dots is looked up in the resource's own namespace.
    pub host: String,
    /// A subset that a DestinationRule defines.
    pub subset: String,
    /// Needed when the service has several ports.
    pub port: Option<PortSelector>,
}

/// A port of a gateway, a service entry or a sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// 1 to 65535.
    pub number: u32,
    /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TLS or TCP.
    pub protocol: String,
    /// A label for the port.
    pub name: String,
    /// Unused where the API says so.
    pub target_port: u32,
}

/// Workloads by their labels, in the networking API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadSelector {
    /// All of these labels.
    #[schemars(length(max = 256), schema_with = "selector_labels")]
    pub labels: BTreeMap<String, String>,
}

fn selector_labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": rules(&[("a selector takes no wildcards", "!self.contains(\"*\")")]),
        },
    })
}

/// Workloads by their labels, in the security and telemetry APIs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// All of these labels.
    #[schemars(schema_with = "match_labels")]
    pub match_labels: BTreeMap<String, String>,
}

fn match_labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 4096,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": rules(&[("a label value takes no wildcards", "!self.contains(\"*\")")]),
        },
        "x-kubernetes-validations": rules(&[
            ("a label key takes no wildcards", "self.all(key, !key.contains(\"*\"))"),
            ("a label key cannot be empty", "self.all(key, key.size() != 0)"),
        ]),
    })
}

/// A resource that a policy is attached to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct TargetRef {
    /// API group; empty is the core group.
    #[schemars(length(max = 253), regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub kind: String,
    /// Name, in the policy's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Must be empty.
    #[schemars(extend("x-kubernetes-validations" = rules(&[("a target in another namespace cannot be referred to", "self.size() == 0")])))]
    pub namespace: String,
}

/// The rule that a policy has one way of naming its targets.
pub(crate) fn one_target_rule() -> serde_json::Value {
    rules(&[(
        "selector and targetRefs exclude each other",
        "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
    )])
}

/// The rule for a port number.
pub(crate) fn port_rule() -> serde_json::Value {
    rules(&[("a port is between 1 and 65535", "0 < self && self <= 65535")])
}
