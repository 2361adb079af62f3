//! Request bodies to objects: JSON, YAML and protobuf.

use serde_json::Value;

use crate::Status;

/// An encoding a client can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`, and what clients send as JSON patches.
    Json,
    /// `application/yaml`, and server-side apply's `application/apply-patch+yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Encoding {
    /// The encoding a `Content-Type` names, its parameters aside. An empty one is JSON.
    ///
    /// # Errors
    /// 415 where it names none of these.
    pub fn from_content_type(content_type: &str) -> Result<Self, Status> {
        todo!("{content_type}")
    }
}

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object.
    pub value: Value,
    /// What strict decoding complains of, in Kubernetes' words: `duplicate field "spec.foo"`.
    pub strict_errors: Vec<String>,
}

/// Decodes a body. Depth and number of nodes are bounded; the size of the body is the caller's to bound (3 MiB).
///
/// # Errors
/// 400, in Kubernetes' words: `couldn't get version/kind; json parse error: …`.
pub fn decode(encoding: Encoding, body: &[u8]) -> Result<Decoded, Status> {
    todo!("{encoding:?} {}", body.len())
}
