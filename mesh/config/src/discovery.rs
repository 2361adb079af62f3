//! The discovery protocol: what a proxy and the control plane say to each other.
//!
//! One bidirectional HTTP/2 request per proxy, `POST` [`STREAM_PATH`]: both bodies are JSON messages, one a line. The proxy
//! begins with [`ProxyMessage::Hello`]; each [`Update`] is answered by an ack or a nack before the next one is sent, so a slow
//! proxy skips intermediate states instead of queueing them. The first update of a stream is complete, all others are deltas.
//!
//! Certificates are asked for with `POST` [`CERTIFICATE_PATH`] ([`CertificateRequest`], [`CertificateResponse`]).
//! Both paths need a service-account token (`authorization: Bearer`, audience [`TOKEN_AUDIENCE`]) or a mesh client certificate.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Cluster, Endpoints, Listener, ProxyConfig, RouteConfiguration, Secret, TelemetryConfig};

/// Path of the configuration stream.
pub const STREAM_PATH: &str = "/meshlab.discovery.v1/stream";
/// Path of certificate signing; Istio's name for the service.
pub const CERTIFICATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Audience that a token must have to be accepted.
pub const TOKEN_AUDIENCE: &str = "istio-ca";
/// Longest message taken from a peer. A mesh of thousands of services stays far below it.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What a proxy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProxyMessage {
    /// Who it is; the first message.
    Hello(Box<Node>),
    /// The update is live.
    Ack {
        /// [`Update::version`].
        version: u64,
    },
    /// Some resources of the update were refused; the proxy keeps what it had of those and runs the others.
    Nack {
        /// [`Update::version`].
        version: u64,
        /// What was refused.
        rejected: Vec<Rejection>,
    },
}

/// One resource that a proxy refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The resource, `listener 0.0.0.0_80`.
    pub resource: String,
    /// Why.
    pub message: String,
}

/// A proxy, as it introduces itself: Istio's node metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    /// Sidecar or gateway.
    pub kind: NodeKind,
    /// Pod name.
    pub pod: String,
    /// Pod namespace.
    pub namespace: String,
    /// The pod's address.
    pub ip: String,
    /// Service account.
    pub service_account: String,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Pod annotations.
    pub annotations: BTreeMap<String, String>,
    /// Name of the workload that owns the pod (`reviews-v1`).
    pub workload: String,
    /// `Kubernetes`.
    pub cluster_id: String,
    /// `default.svc.cluster.local`.
    pub dns_domain: String,
    /// Name of the Kubernetes node, which tells its locality.
    pub node_name: String,
    /// `REDIRECT`, `TPROXY` or `NONE`.
    pub interception_mode: String,
    /// Version of the proxy.
    pub version: String,
}

impl Node {
    /// `reviews-v1-abc.default`, as `proxy-status` names it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.pod, self.namespace)
    }
}

/// What a proxy is there for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// `proxy sidecar`.
    #[default]
    Sidecar,
    /// `proxy router`: a gateway.
    Router,
}

/// What the control plane says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlMessage {
    /// A change of configuration.
    Update(Box<Update>),
}

/// A change of configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// Number of the configuration this leads to; it increases on a stream.
    pub version: u64,
    /// Start from nothing instead of from what the proxy has.
    #[serde(skip_serializing_if = "is_false")]
    pub complete: bool,
    /// Listeners.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub listeners: Delta<Listener>,
    /// Route tables.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub routes: Delta<RouteConfiguration>,
    /// Clusters.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub clusters: Delta<Cluster>,
    /// Members of clusters.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub endpoints: Delta<Endpoints>,
    /// Certificates of gateways.
    #[serde(skip_serializing_if = "Delta::is_empty")]
    pub secrets: Delta<Secret>,
    /// Telemetry, when it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Arc<TelemetryConfig>>,
}

/// Resources of one type that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
pub struct Delta<T> {
    /// New or changed, by name.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Arc<T>>,
    /// Gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

impl<T> Default for Delta<T> {
    fn default() -> Self {
        Self { set: BTreeMap::new(), removed: Vec::new() }
    }
}

/// Which resources have been found equal. Proxies share most of what they have and get, so a pair is compared once, and not once for
/// each proxy. What is compared lives as long as this, so that an address means one resource.
#[derive(Debug, Default)]
pub struct Comparisons<'a> {
    known: HashMap<(usize, usize), bool>,
    compared: PhantomData<&'a ()>,
}

impl<'a> Comparisons<'a> {
    fn equal<T: PartialEq>(&mut self, old: &'a Arc<T>, new: &'a Arc<T>) -> bool {
        let addresses = (Arc::as_ptr(old).addr(), Arc::as_ptr(new).addr());
        Arc::ptr_eq(old, new) || *self.known.entry(addresses).or_insert_with(|| old == new)
    }
}

impl<T: PartialEq> Delta<T> {
    fn all(new: &BTreeMap<String, Arc<T>>) -> Self {
        Self { set: new.clone(), removed: Vec::new() }
    }

    /// Both are in order, so one walk through both is enough.
    fn between<'a>(
        old: &'a BTreeMap<String, Arc<T>>,
        new: &'a BTreeMap<String, Arc<T>>,
        comparisons: &mut Comparisons<'a>,
    ) -> Self {
        let mut delta = Self::default();
        let mut had = old.iter().peekable();
        for (name, value) in new {
            while let Some((gone, _)) = had.next_if(|(had, _)| *had < name) {
                delta.removed.push(gone.clone());
            }
            let before = had.next_if(|(had, _)| *had == name);
            if before.is_none_or(|(_, before)| !comparisons.equal(before, value)) {
                delta.set.insert(name.clone(), value.clone());
            }
        }
        delta.removed.extend(had.map(|(gone, _)| gone.clone()));
        delta
    }
}

impl<T> Delta<T> {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    /// How many resources changed.
    pub fn len(&self) -> usize {
        self.set.len() + self.removed.len()
    }

    fn apply(self, resources: &mut BTreeMap<String, Arc<T>>) {
        for name in &self.removed {
            resources.remove(name);
        }
        resources.extend(self.set);
    }
}

impl Update {
    /// What leads from `old` to `new`; without `old`, all of `new`.
    pub fn between(version: u64, old: Option<&ProxyConfig>, new: &ProxyConfig) -> Self {
        match old {
            Some(old) => Self::from_old(version, old, new, &mut Comparisons::default()),
            None => Self {
                version,
                complete: true,
                listeners: Delta::all(&new.listeners),
                routes: Delta::all(&new.routes),
                clusters: Delta::all(&new.clusters),
                endpoints: Delta::all(&new.endpoints),
                secrets: Delta::all(&new.secrets),
                telemetry: Some(new.telemetry.clone()),
            },
        }
    }

    /// What leads from `old` to `new`, for one of many proxies.
    pub fn from_old<'a>(version: u64, old: &'a ProxyConfig, new: &'a ProxyConfig, comparisons: &mut Comparisons<'a>) -> Self {
        Self {
            version,
            complete: false,
            listeners: Delta::between(&old.listeners, &new.listeners, comparisons),
            routes: Delta::between(&old.routes, &new.routes, comparisons),
            clusters: Delta::between(&old.clusters, &new.clusters, comparisons),
            endpoints: Delta::between(&old.endpoints, &new.endpoints, comparisons),
            secrets: Delta::between(&old.secrets, &new.secrets, comparisons),
            telemetry: (old.telemetry != new.telemetry).then(|| new.telemetry.clone()),
        }
    }

    /// Whether a proxy would notice it.
    pub fn is_empty(&self) -> bool {
        !self.complete && self.telemetry.is_none() && self.counts().iter().all(|(_, count)| *count == 0)
    }

    /// How many resources of each type changed, by Envoy's short names.
    pub fn counts(&self) -> [(&'static str, usize); 5] {
        [
            ("CDS", self.clusters.len()),
            ("LDS", self.listeners.len()),
            ("EDS", self.endpoints.len()),
            ("RDS", self.routes.len()),
            ("SDS", self.secrets.len()),
        ]
    }

    /// The configuration that `config` becomes.
    #[must_use]
    pub fn apply(self, config: &ProxyConfig) -> ProxyConfig {
        let mut config = if self.complete { ProxyConfig::default() } else { config.clone() };
        self.listeners.apply(&mut config.listeners);
        self.routes.apply(&mut config.routes);
        self.clusters.apply(&mut config.clusters);
        self.endpoints.apply(&mut config.endpoints);
        self.secrets.apply(&mut config.secrets);
        if let Some(telemetry) = self.telemetry {
            config.telemetry = telemetry;
        }
        config
    }
}

/// Asks for a workload certificate. The identity is that of the caller, whatever the request says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// PEM certificate signing request.
    pub csr: String,
    /// Wanted validity in seconds; 0 takes the CA's default.
    #[serde(default)]
    pub validity_s: u64,
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateResponse {
    /// PEM certificates: the workload's own, then intermediates, the root last.
    pub chain: Vec<String>,
}

/// A peer's message cannot be read.
#[derive(Debug)]
pub enum MessageError {
    /// It is longer than [`MAX_MESSAGE_BYTES`].
    TooLong,
    /// It is not a message of the protocol.
    Malformed(serde_json::Error),
}

impl std::fmt::Display for MessageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => write!(f, "a discovery message is longer than {MAX_MESSAGE_BYTES} bytes"),
            Self::Malformed(error) => write!(f, "a discovery message cannot be read: {error}"),
        }
    }
}

impl std::error::Error for MessageError {}

/// Cuts a byte stream into messages.
pub struct MessageReader<T> {
    buffer: Vec<u8>,
    message: PhantomData<fn() -> T>,
}

impl<T> Default for MessageReader<T> {
    fn default() -> Self {
        Self { buffer: Vec::new(), message: PhantomData }
    }
}

impl<T: DeserializeOwned> MessageReader<T> {
    /// Takes the next bytes and returns the messages they complete.
    ///
    /// # Errors
    /// The peer does not keep to the protocol; the stream has to be closed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<T>, MessageError> {
        let mut messages = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.take(&rest[..end])?;
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                messages.push(serde_json::from_slice(&self.buffer).map_err(MessageError::Malformed)?);
            }
            self.buffer.clear();
            rest = &rest[end + 1..];
        }
        self.take(rest)?;
        Ok(messages)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), MessageError> {
        if self.buffer.len() + bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}

/// A message as it goes over the wire.
///
/// # Panics
/// Never: the protocol's types are plain data with string keys.
pub fn encode_message<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(message).expect("plain data");
    bytes.push(b'\n');
    bytes
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(address: &str) -> Arc<Endpoints> {
        let address = address.parse().unwrap();
        let endpoint = crate::Endpoint { address, weight: 1, priority: 0, metadata: crate::EndpointMetadata::default() };
        Arc::new(Endpoints { endpoints: vec![endpoint] })
    }

    fn config(members: &[(&str, &str)]) -> ProxyConfig {
        let endpoints = members.iter().map(|(name, address)| ((*name).to_owned(), endpoints(address))).collect();
        ProxyConfig { endpoints, ..ProxyConfig::default() }
    }

    #[test]
    fn a_delta_leads_from_one_configuration_to_the_next() {
        let old = config(&[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]);
        let new = config(&[("b", "10.0.0.3:80"), ("c", "10.0.0.4:80")]);
        let update = Update::between(2, Some(&old), &new);
        assert_eq!(update.endpoints.set.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(update.endpoints.removed, ["a"]);
        assert!(update.telemetry.is_none() && !update.complete);
        assert_eq!(update.apply(&old), new);
    }

    #[test]
    fn equal_content_is_no_change_even_in_another_allocation() {
        let update = Update::between(2, Some(&config(&[("a", "10.0.0.1:80")])), &config(&[("a", "10.0.0.1:80")]));
        assert!(update.is_empty());
    }

    #[test]
    fn a_complete_update_forgets_what_was_there() {
        let new = config(&[("a", "10.0.0.1:80")]);
        let update = Update::between(1, None, &new);
        assert!(!update.is_empty());
        assert_eq!(update.apply(&config(&[("z", "10.0.0.9:80")])), new);
    }

    #[test]
    fn messages_survive_any_cut_of_the_stream() {
        let sent = [ProxyMessage::Ack { version: 1 }, ProxyMessage::Hello(Box::default()), ProxyMessage::Ack { version: 2 }];
        let bytes: Vec<u8> = sent.iter().flat_map(encode_message).collect();
        for size in 1..bytes.len() {
            let mut reader = MessageReader::<ProxyMessage>::default();
            let got: Vec<_> = bytes.chunks(size).flat_map(|chunk| reader.push(chunk).unwrap()).collect();
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn what_is_not_a_message_is_an_error() {
        let mut reader = MessageReader::<ProxyMessage>::default();
        assert!(matches!(reader.push(b"{\"shutdown\":1}\n"), Err(MessageError::Malformed(_))));
    }

    #[test]
    fn one_walk_finds_what_came_what_went_and_what_changed() {
        let old = config(&[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80"), ("d", "10.0.0.4:80"), ("f", "10.0.0.6:80")]);
        let new = config(&[("b", "10.0.0.2:80"), ("c", "10.0.0.3:80"), ("d", "10.0.0.5:80"), ("e", "10.0.0.1:80")]);
        let mut comparisons = Comparisons::default();
        for _ in 0..2 {
            let delta = Update::from_old(2, &old, &new, &mut comparisons).endpoints;
            assert_eq!(delta.set.keys().collect::<Vec<_>>(), ["c", "d", "e"]);
            assert_eq!(delta.removed, ["a", "f"]);
        }
    }
}
