//! Sidecar: what a workload's proxy receives and may reach.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{ConnectionPoolSettings, Destination, Port, ServerTlsSettings, WorkloadSelector};

/// The scope of some workloads' proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Sidecar {
    /// The workloads; all of the namespace if unset.
    pub workload_selector: Option<WorkloadSelector>,
    /// What is received; as the services say if empty.
    pub ingress: Vec<IstioIngressListener>,
    /// What may be reached; everything visible if empty.
    pub egress: Vec<IstioEgressListener>,
    /// Limits of inbound connections.
    pub inbound_connection_pool: Option<ConnectionPoolSettings>,
    /// What is done with unknown destinations.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// One inbound listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["port"]))]
pub struct IstioIngressListener {
    /// Port.
    pub port: Port,
    /// Address to bind.
    pub bind: String,
    /// How traffic gets to it.
    pub capture_mode: CaptureMode,
    /// Where it goes: `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix://`.
    pub default_endpoint: String,
    /// TLS terminated here, with permissive or disabled mutual TLS only.
    pub tls: Option<ServerTlsSettings>,
    /// Limits.
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// One outbound listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["hosts"]))]
pub struct IstioEgressListener {
    /// Port; every port if unset.
    pub port: Option<Port>,
    /// Address to bind.
    pub bind: String,
    /// How traffic gets to it.
    pub capture_mode: CaptureMode,
    /// `namespace/host`; `.` is the own namespace, `*` any, `~` none.
    pub hosts: Vec<String>,
}

/// How traffic gets to a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// As the mesh does.
    #[default]
    Default,
    /// By redirection.
    Iptables,
    /// By its port.
    None,
}

/// What is done with unknown destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct OutboundTrafficPolicy {
    /// Let them through or not.
    pub mode: Option<OutboundMode>,
    /// A proxy that unknown traffic goes through.
    pub egress_proxy: Option<Destination>,
}

/// Whether unknown destinations are reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Only what the registry has.
    RegistryOnly,
    /// Everything.
    #[default]
    AllowAny,
}
