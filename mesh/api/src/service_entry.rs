//! ServiceEntry: services that Kubernetes does not know.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::common::port_rule;
use crate::schema::{item_rules, rules};
use crate::{WorkloadEntry, WorkloadSelector};

/// Services added to the mesh's registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["hosts"], "x-kubernetes-validations" = rules(&[
    (
        "workloadSelector and endpoints exclude each other",
        "(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1",
    ),
    (
        "CIDR addresses need resolution NONE or STATIC",
        "!((has(self.addresses) ? self.addresses : []).exists(k, k.contains(\"/\")) && !((has(self.resolution) ? self.resolution : \"NONE\") in [\"STATIC\", \"NONE\"]))",
    ),
    ("resolution NONE takes no endpoints", "((has(self.resolution) ? self.resolution : \"NONE\") == \"NONE\") ? !has(self.endpoints) : true"),
    (
        "resolution DNS_ROUND_ROBIN takes one endpoint at most",
        "((has(self.resolution) ? self.resolution : \"\") == \"DNS_ROUND_ROBIN\") ? ((has(self.endpoints) ? self.endpoints : []).size() <= 1) : true",
    ),
])))]
pub struct ServiceEntry {
    /// Host names.
    #[schemars(
        length(min = 1, max = 256),
        transform = item_rules(&[("a host cannot be the wildcard alone", "self != \"*\"")])
    )]
    pub hosts: Vec<String>,
    /// Virtual addresses or blocks.
    #[schemars(length(max = 256), inner(length(max = 64)))]
    pub addresses: Vec<String>,
    /// Ports.
    #[schemars(
        length(max = 256),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = rules(&[("port numbers must differ", "self.all(l1, self.exists_one(l2, l1.number == l2.number))")])
        )
    )]
    pub ports: Vec<ServicePort>,
    /// Inside or outside the mesh.
    pub location: Location,
    /// How addresses are found.
    pub resolution: Resolution,
    /// Addresses.
    #[schemars(length(max = 4096), transform = item_rules(&[
        ("an address or a network is needed", "has(self.address) || has(self.network)"),
        ("a Unix socket has no ports", "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true"),
    ]))]
    pub endpoints: Vec<WorkloadEntry>,
    /// Pods and WorkloadEntries that are its endpoints.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see it: `.`, `*`, names.
    pub export_to: Vec<String>,
    /// Names its servers may have.
    pub subject_alt_names: Vec<String>,
}

/// A port of a service entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["number", "name"]))]
pub struct ServicePort {
    /// 1 to 65535.
    #[schemars(extend("x-kubernetes-validations" = port_rule()))]
    pub number: u32,
    /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TLS or TCP.
    #[schemars(length(max = 256))]
    pub protocol: String,
    /// A label for the port.
    #[schemars(length(max = 256))]
    pub name: String,
    /// The endpoints' port.
    #[schemars(extend("x-kubernetes-validations" = port_rule()))]
    pub target_port: u32,
}

/// Inside or outside the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside: no automatic mutual TLS.
    #[default]
    MeshExternal,
    /// Inside.
    MeshInternal,
}

/// How a service entry's addresses are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The client already has one.
    #[default]
    None,
    /// The endpoints given.
    Static,
    /// By name; all answers are used.
    Dns,
    /// By name when connecting; the first answer is used.
    DnsRoundRobin,
    /// By the name in each request.
    DynamicDns,
}
