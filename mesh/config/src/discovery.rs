//! The discovery protocol: what a proxy and the control plane say to each other.
//!
//! One bidirectional HTTP/2 request per proxy, `POST` [`STREAM_PATH`]: both bodies are JSON messages, one a line. The proxy
//! begins with [`ProxyMessage::Hello`]; each [`Update`] is answered by an ack or a nack before the next one is sent, so a slow
//! proxy skips intermediate states instead of queueing them. The first update of a stream is complete, all others are deltas.
//!
//! Certificates are asked for with `POST` [`CERTIFICATE_PATH`] ([`CertificateRequest`], [`CertificateResponse`]).
//! Both paths need a service-account token (`authorization: Bearer`, audience [`TOKEN_AUDIENCE`]) or a mesh client certificate.

mod delta;

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::delta::{Comparisons, Delta, Update};

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
            // The first message is the longest by far; its memory is not kept for the others.
            let line = std::mem::take(&mut self.buffer);
            if !line.iter().all(u8::is_ascii_whitespace) {
                messages.push(serde_json::from_slice(&line).map_err(MessageError::Malformed)?);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
