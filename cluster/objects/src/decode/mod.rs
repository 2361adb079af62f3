//! Request bodies to objects: JSON, YAML and protobuf.

pub mod protobuf;
mod text;

use serde_json::Value;

use crate::{Reason, Status};

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
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            ""
            | "application/json"
            | "application/json-patch+json"
            | "application/merge-patch+json"
            | "application/strategic-merge-patch+json" => Ok(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" | "application/apply-patch+yaml" => Ok(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            _ => Err(Status::new(
                Reason::UnsupportedMediaType,
                format!(
                    "the body of the request was in an unknown format - accepted media types include: application/json, \
                     application/yaml, application/vnd.kubernetes.protobuf (it was {content_type:?})"
                ),
            )),
        }
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
    match encoding {
        Encoding::Json => json(body),
        Encoding::Yaml => yaml(body),
        Encoding::Protobuf => protobuf::decode(body)
            .map(|value| Decoded { value, strict_errors: Vec::new() })
            .map_err(|error| Status::bad_request(error.to_string())),
    }
}

/// Decodes JSON.
///
/// # Errors
/// 400 where it is malformed or nests too deep.
pub fn json(body: &[u8]) -> Result<Decoded, Status> {
    text::json(body).map_err(|error| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of a known type): couldn't get version/kind; json parse error: {error}"
        ))
    })
}

/// Decodes one YAML document, as `sigs.k8s.io/yaml` reads it: YAML 1.1 booleans and octal numbers, scalar keys as strings.
///
/// # Errors
/// 400 where it is malformed, nests too deep or expands too far.
pub fn yaml(body: &[u8]) -> Result<Decoded, Status> {
    text::yaml(body).map_err(|error| Status::bad_request(format!("error converting YAML to JSON: yaml: {error}")))
}

#[cfg(test)]
mod tests;
