//! What the control plane tells a proxy: the compiled form of the Istio API, and the only thing the proxy knows.
//!
//! The model and the names are Envoy's (listeners, filter chains, routes, clusters, endpoints), so that what a learner reads
//! in `config_dump` holds in Istio too; it is smaller because it only has what Istio's API can express. Everything is plain
//! data: equal input to the compiler gives equal bytes here, and a resource is sent again only when its bytes change.
//!
//! Durations are milliseconds in fields that end in `_ms`. Maps are ordered, so serialisation is deterministic.

mod access;
mod cluster;
pub mod discovery;
mod host;
mod listener;
mod matching;
mod route;
mod telemetry;

pub use access::*;
pub use cluster::*;
pub use host::*;
pub use listener::*;
pub use matching::*;
pub use route::*;
pub use telemetry::*;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// All that one proxy is given. Keys are resource names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// Where to accept connections, by listener name (`0.0.0.0_80`, `virtualInbound`).
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// HTTP route tables, by route name (`80`, `inbound|8080||`, `http.8080`).
    pub routes: BTreeMap<String, Arc<RouteConfiguration>>,
    /// Upstream clusters, by cluster name (`outbound|80|v1|reviews.default.svc.cluster.local`).
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Members of the clusters whose discovery is [`Discovery::Eds`], by cluster name.
    pub endpoints: BTreeMap<String, Arc<Endpoints>>,
    /// Certificates and CA bundles from Secrets, by `credentialName` reference (`kubernetes://ns/name`).
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// What to measure, trace and log.
    pub telemetry: Arc<TelemetryConfig>,
}

/// The Kubernetes object that some part of the configuration comes from; it is what a decision trail names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// `VirtualService`, `DestinationRule`, `AuthorizationPolicy`, …
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where in it, as a field path: `spec.http[1].match[0]`. Empty for the whole object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A certificate with its key, a CA bundle, or both, taken from a Kubernetes Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secret {
    /// PEM certificate chain (`tls.crt`, `cert`).
    pub certificate_chain: String,
    /// PEM private key (`tls.key`, `key`).
    pub private_key: String,
    /// PEM CA bundle to verify peers with (`ca.crt`, `cacert`).
    pub ca_certificates: String,
    /// Why the Secret cannot be used, when it cannot: connections that need it are refused, all else goes on.
    pub error: Option<String>,
}
