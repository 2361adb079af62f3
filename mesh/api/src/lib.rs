//! The Istio API as Rust types: one file per resource, the CustomResourceDefinitions generated from them, and validation.
//!
//! Field names, enum values, served versions and what is refused are Istio's, so that YAML written for one works with the
//! other; descriptions and messages are our own.

mod authorization_policy;
mod common;
mod crd;
mod destination_rule;
mod duration;
mod gateway;
mod inert;
mod kind;
mod object;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod schema;
mod service_entry;
mod sidecar;
mod telemetry;
mod validate;
mod virtual_service;
mod workload;

pub use authorization_policy::{
    Action, AuthorizationPolicy, Condition, ExtensionProvider, From as RuleFrom, Operation, Rule, Source, To as RuleTo,
};
pub use common::{Destination, LabelSelector, Percent, Port, PortSelector, StringMatch, TargetRef, WorkloadSelector};
pub use crd::{crds, crds_yaml};
pub use destination_rule::*;
pub use duration::{Duration, DurationError, DurationOrZero};
pub use gateway::{Gateway, Server, ServerTlsMode, ServerTlsSettings, TlsCertificate, TlsProtocol};
pub use inert::{EnvoyFilter, WasmPlugin};
pub use kind::{Group, Kind};
pub use object::{FieldError, Metadata, Object};
pub use peer_authentication::{MutualTls, MutualTlsMode, PeerAuthentication};
pub use proxy_config::{ProxyConfig, ProxyImage};
pub use request_authentication::{ClaimToHeader, JwtHeader, JwtRule, RequestAuthentication};
pub use service_entry::{Location, Resolution, ServiceEntry, ServicePort};
pub use sidecar::{CaptureMode, IstioEgressListener, IstioIngressListener, OutboundMode, OutboundTrafficPolicy, Sidecar};
pub use telemetry::{
    AccessLogFilter, AccessLogging, CustomTag, IstioMetric, MetricSelector, Metrics, MetricsOverrides, ModeSelector, ProviderRef,
    TagOperation, TagOverride, TagSource, TagValue, Telemetry, Tracing, WorkloadMode,
};
pub use validate::{Warning, validate};
pub use virtual_service::*;
pub use workload::{
    ExecProbe, GrpcProbe, HttpProbe, ProbeHeader, ReadinessProbe, TcpProbe, WorkloadEntry, WorkloadGroup, WorkloadMetadata,
};
