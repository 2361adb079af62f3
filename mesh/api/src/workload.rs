//! WorkloadEntry and WorkloadGroup: workloads that are no pods.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::common::port_rule;
use crate::schema::{at_most_one, rules};

const UDS_PORTS: (&str, &str) =
    ("a Unix socket has no ports", "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true");

/// One workload outside Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[("an address or a network is needed", "has(self.address) || has(self.network)"), UDS_PORTS])))]
pub struct WorkloadEntry {
    /// IP address, host name or Unix socket.
    #[schemars(length(max = 256), extend("x-kubernetes-validations" = rules(&[
        (
            "a Unix socket is an absolute path or an abstract name",
            "self.startsWith(\"unix://\") ? (self.substring(7, 8) == \"/\" || self.substring(7, 8) == \"@\") : true",
        ),
        ("a Unix socket is not a folder", "self.startsWith(\"unix://\") ? !self.endsWith(\"/\") : true"),
    ])))]
    pub address: String,
    /// Ports by the service port's name.
    #[schemars(schema_with = "ports")]
    pub ports: BTreeMap<String, u32>,
    /// Labels.
    #[schemars(extend("maxProperties" = 256))]
    pub labels: BTreeMap<String, String>,
    /// Network it is in.
    #[schemars(length(max = 2048))]
    pub network: String,
    /// `region/zone/subzone`.
    #[schemars(length(max = 2048))]
    pub locality: String,
    /// Relative weight.
    pub weight: u32,
    /// Service account in the same namespace.
    #[schemars(length(max = 253))]
    pub service_account: String,
}

fn ports(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 128,
        "additionalProperties": { "type": "integer", "minimum": 0, "maximum": u32::MAX, "x-kubernetes-validations": port_rule() },
        "x-kubernetes-validations": rules(&[(
            "a port name has letters, digits and dashes only",
            "self.all(key, size(key) < 63 && key.matches(\"^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$\"))",
        )]),
    })
}

/// A template for WorkloadEntries; accepted, and without effect until entries are registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["template"]))]
pub struct WorkloadGroup {
    /// Labels and annotations of the entries.
    pub metadata: Option<WorkloadMetadata>,
    /// What the entries look like.
    #[schemars(extend("x-kubernetes-validations" = rules(&[UDS_PORTS])))]
    pub template: WorkloadEntry,
    /// Health check.
    pub probe: Option<ReadinessProbe>,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadMetadata {
    /// Labels.
    #[schemars(extend("maxProperties" = 256))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[schemars(extend("maxProperties" = 256))]
    pub annotations: BTreeMap<String, String>,
}

/// A health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = at_most_one(&["httpGet", "tcpSocket", "exec", "grpc"])))]
pub struct ReadinessProbe {
    /// Wait before the first.
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: i32,
    /// Limit of one.
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
    /// Between two.
    #[schemars(range(min = 0))]
    pub period_seconds: i32,
    /// Successes in a row to be ready.
    #[schemars(range(min = 0))]
    pub success_threshold: i32,
    /// Failures in a row not to be.
    #[schemars(range(min = 0))]
    pub failure_threshold: i32,
    /// By HTTP.
    pub http_get: Option<HttpProbe>,
    /// By connecting.
    pub tcp_socket: Option<TcpProbe>,
    /// By command.
    pub exec: Option<ExecProbe>,
    /// By gRPC.
    pub grpc: Option<GrpcProbe>,
}

/// An HTTP probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["port"]))]
pub struct HttpProbe {
    /// Path.
    pub path: String,
    /// Port.
    #[schemars(extend("x-kubernetes-validations" = port_rule()))]
    pub port: u32,
    /// Host.
    pub host: String,
    /// HTTP or HTTPS.
    #[schemars(extend("x-kubernetes-validations" = rules(&[("the scheme is HTTP or HTTPS", "self in [\"\", \"HTTP\", \"HTTPS\"]")])))]
    pub scheme: String,
    /// Headers.
    pub http_headers: Vec<ProbeHeader>,
}

/// A probe's header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeHeader {
    /// Name.
    #[schemars(regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub name: String,
    /// Value.
    pub value: String,
}

/// A TCP probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["port"]))]
pub struct TcpProbe {
    /// Host.
    pub host: String,
    /// Port.
    #[schemars(extend("x-kubernetes-validations" = port_rule()))]
    pub port: u32,
}

/// A command probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["command"]))]
pub struct ExecProbe {
    /// The command.
    #[schemars(inner(length(min = 1)))]
    pub command: Vec<String>,
}

/// A gRPC probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcProbe {
    /// Port.
    #[schemars(extend("x-kubernetes-validations" = port_rule()))]
    pub port: u32,
    /// Service name.
    pub service: String,
}
