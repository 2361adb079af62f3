//! Workloads as telemetry names them, and how proxies tell each other.
//!
//! In HTTP by Istio's headers: `x-envoy-peer-metadata-id` has the node's id, `x-envoy-peer-metadata` a base64 protobuf `Struct`. Over
//! TCP by messages that have both (`tcp::peer_exchange`).

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meshlab_proxy_config::{EndpointMetadata, WorkloadLabels};
use parking_lot::Mutex;

use super::wire::{Reader, bytes_field};

/// A workload, as labels name it. Empty fields are shown as `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) workload: String,
    pub(crate) namespace: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) canonical_service: String,
    pub(crate) canonical_revision: String,
    pub(crate) cluster: String,
}

/// Longest header or message that is looked into, in bytes.
pub(crate) const MAXIMUM_METADATA: usize = 8 * 1024;

const STRUCT_TYPE: &str = "type.googleapis.com/google.protobuf.Struct";

impl Peer {
    pub(crate) fn of_workload(labels: &WorkloadLabels) -> Self {
        Self {
            workload: labels.workload.clone(),
            namespace: labels.namespace.clone(),
            app: labels.app.clone(),
            version: labels.version.clone(),
            canonical_service: labels.canonical_service.clone(),
            canonical_revision: labels.canonical_revision.clone(),
            cluster: labels.cluster.clone(),
        }
    }

    pub(crate) fn of_endpoint(metadata: &EndpointMetadata) -> Self {
        let label = |name: &str| metadata.labels.get(name).cloned().unwrap_or_default();
        let or = |first: String, second: String| if first.is_empty() { second } else { first };
        let (app, version) = (label("app"), label("version"));
        Self {
            canonical_service: or(label("service.istio.io/canonical-name"), or(app.clone(), metadata.workload.clone())),
            canonical_revision: or(label("service.istio.io/canonical-revision"), version.clone()),
            workload: metadata.workload.clone(),
            namespace: metadata.namespace.clone(),
            cluster: label("topology.istio.io/cluster"),
            app,
            version,
        }
    }

    /// The header's value.
    pub(crate) fn encode(&self) -> String {
        STANDARD.encode(self.to_struct())
    }

    /// What a header says, or `None` if it is not of this form.
    pub(crate) fn decode(header: &[u8]) -> Option<Self> {
        if header.len() > MAXIMUM_METADATA {
            return None;
        }
        Self::from_struct(&STANDARD.decode(header).ok()?)
    }

    /// The message that is exchanged over TCP.
    pub(crate) fn to_exchange(&self, node_id: &str) -> Vec<u8> {
        let mut both = Vec::new();
        put_field(&mut both, "x-envoy-peer-metadata", &bytes_field(STRUCT_VALUE, &self.to_struct()));
        put_field(&mut both, "x-envoy-peer-metadata-id", &string_value(node_id));
        // Any has the type in 1 and the value in 2.
        [bytes_field(1, STRUCT_TYPE.as_bytes()), bytes_field(2, &both)].concat()
    }

    /// What such a message says, or `None` if it is not of this form.
    pub(crate) fn from_exchange(message: &[u8]) -> Option<Self> {
        if read_value(message, 1)? != STRUCT_TYPE.as_bytes() {
            return None;
        }
        let fields = read_struct(read_value(message, 2)?)?;
        Self::from_struct(read_value(fields.get("x-envoy-peer-metadata")?, STRUCT_VALUE)?)
    }

    fn to_struct(&self) -> Vec<u8> {
        let labels = [
            ("app", &self.app),
            ("service.istio.io/canonical-name", &self.canonical_service),
            ("service.istio.io/canonical-revision", &self.canonical_revision),
            ("version", &self.version),
        ];
        let mut inner = Vec::new();
        for (name, value) in labels.into_iter().filter(|(_, value)| !value.is_empty()) {
            put_field(&mut inner, name, &string_value(value));
        }
        let mut outer = Vec::new();
        put_field(&mut outer, "CLUSTER_ID", &string_value(&self.cluster));
        put_field(&mut outer, "LABELS", &bytes_field(STRUCT_VALUE, &inner));
        put_field(&mut outer, "NAMESPACE", &string_value(&self.namespace));
        put_field(&mut outer, "WORKLOAD_NAME", &string_value(&self.workload));
        outer
    }

    fn from_struct(bytes: &[u8]) -> Option<Self> {
        let fields = read_struct(bytes)?;
        let text = |fields: &BTreeMap<String, &[u8]>, name: &str| {
            let value = fields.get(name).and_then(|value| read_value(value, STRING_VALUE));
            value.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
        };
        let labels =
            fields.get("LABELS").and_then(|value| read_value(value, STRUCT_VALUE)).and_then(read_struct).unwrap_or_default();
        Some(Self {
            workload: text(&fields, "WORKLOAD_NAME"),
            namespace: text(&fields, "NAMESPACE"),
            cluster: text(&fields, "CLUSTER_ID"),
            app: text(&labels, "app"),
            version: text(&labels, "version"),
            canonical_service: text(&labels, "service.istio.io/canonical-name"),
            canonical_revision: text(&labels, "service.istio.io/canonical-revision"),
        })
    }
}

/// Field numbers of `Value`.
const STRING_VALUE: u64 = 3;
const STRUCT_VALUE: u64 = 5;

fn string_value(text: &str) -> Vec<u8> {
    bytes_field(STRING_VALUE, text.as_bytes())
}

/// `Struct.fields` is a map in field 1, its entries have the key in 1 and the value in 2.
fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let mut entry = bytes_field(1, name.as_bytes());
    entry.extend(bytes_field(2, value));
    out.extend(bytes_field(1, &entry));
}

fn read_value(bytes: &[u8], wanted: u64) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next() {
        if field.number == wanted {
            return field.bytes;
        }
    }
    None
}

fn read_struct(bytes: &[u8]) -> Option<BTreeMap<String, &[u8]>> {
    let mut fields = BTreeMap::new();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next() {
        let (1, Some(entry)) = (field.number, field.bytes) else { continue };
        let name = String::from_utf8(read_value(entry, 1)?.to_vec()).ok()?;
        fields.insert(name, read_value(entry, 2).unwrap_or_default());
    }
    (!reader.failed()).then_some(fields)
}

/// Everything that metrics have as a label's source, each kept once, so that equal ones are the same object.
pub(crate) struct Peers {
    known: Mutex<AHashMap<Peer, Arc<Peer>>>,
    names: Mutex<AHashMap<Arc<str>, ()>>,
    /// By header value; read without a lock on every request.
    decoded: ArcSwap<AHashMap<Vec<u8>, Arc<Peer>>>,
    limit: usize,
    pub(crate) unknown: Arc<Peer>,
    pub(crate) unknown_name: Arc<str>,
}

impl Peers {
    pub(crate) fn new(limit: usize) -> Self {
        let unknown = Arc::new(Peer::default());
        Self {
            known: Mutex::new(AHashMap::from_iter([(Peer::default(), unknown.clone())])),
            names: Mutex::default(),
            decoded: ArcSwap::default(),
            limit,
            unknown,
            unknown_name: "unknown".into(),
        }
    }

    pub(crate) fn intern(&self, peer: Peer) -> Arc<Peer> {
        let mut known = self.known.lock();
        if let Some(peer) = known.get(&peer) {
            return peer.clone();
        }
        if known.len() >= self.limit {
            // Those that nobody has any more make room.
            known.retain(|_, peer| Arc::strong_count(peer) > 1);
            if known.len() >= self.limit {
                return self.unknown.clone();
            }
        }
        let shared = Arc::new(peer.clone());
        known.insert(peer, shared.clone());
        shared
    }

    /// One object for equal names.
    pub(crate) fn name(&self, name: &str) -> Arc<str> {
        let mut names = self.names.lock();
        if let Some((name, ())) = names.get_key_value(name) {
            return name.clone();
        }
        if names.len() >= self.limit {
            names.retain(|name, ()| Arc::strong_count(name) > 1);
            if names.len() >= self.limit {
                return self.unknown_name.clone();
            }
        }
        let shared: Arc<str> = name.into();
        names.insert(shared.clone(), ());
        shared
    }

    /// The peer that a header tells of.
    pub(crate) fn decode(&self, header: &[u8]) -> Option<Arc<Peer>> {
        if let Some(peer) = self.decoded.load().get(header) {
            return Some(peer.clone());
        }
        let peer = self.intern(Peer::decode(header)?);
        if self.decoded.load().len() < self.limit.min(1000) {
            self.decoded.rcu(|decoded| {
                let mut decoded = AHashMap::clone(decoded);
                decoded.insert(header.to_vec(), peer.clone());
                decoded
            });
        }
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_peer_survives_its_header() {
        let peer = Peer {
            workload: "reviews-v1".into(),
            namespace: "default".into(),
            app: "reviews".into(),
            version: "v1".into(),
            canonical_service: "reviews".into(),
            canonical_revision: "v1".into(),
            cluster: "Kubernetes".into(),
        };
        assert_eq!(Peer::decode(peer.encode().as_bytes()), Some(peer));
    }

    proptest! {
        #[test]
        fn any_header_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Peer::from_exchange(&bytes);
            let _ = Peer::decode(STANDARD.encode(bytes).as_bytes());
        }
    }
}
