//! `/openapi/v2`, for kubectl 1.27 and 1.28, which ask it alone whether a kind's writes take `fieldValidation`.
//!
//! The document is gnostic's protobuf form of Swagger 2.0 (`openapiv2/OpenAPIv2.proto`), which has no JSON alternative on this path.
//! It lists the PATCH operation of every kind and no definitions: `apply` then merges by the types that kubectl has built in,
//! as it does when the document is missing. The definitions are in `/openapi/v3`.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use meshlab_objects::resource::Verb;
use meshlab_objects::{Reason, Status};

use crate::http::{Response, bytes_answer};
use crate::registry::Registry;

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The spelling of older clients.
const OLD_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The document.
///
/// # Errors
/// 406 for whoever does not read protobuf.
pub(super) fn document(registry: &Registry, parts: &Parts) -> Result<Response, Status> {
    if !accepts(&parts.headers) {
        let message = format!("only the following media types are accepted: {PROTOBUF}; /openapi/v3 has JSON");
        return Err(Status::new(Reason::NotAcceptable, message));
    }
    let mut response = bytes_answer(StatusCode::OK, PROTOBUF, encode(registry));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    Ok(response)
}

fn accepts(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|entry| entry == PROTOBUF || entry == OLD_PROTOBUF)
}

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Adds a length-delimited field.
    fn with(mut self, number: u8, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        // Numbers up to 15 take one byte, and there are no larger ones here.
        self.0.push(number << 3 | 2);
        let mut length = content.len();
        while length >= 0x80 {
            self.0.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend_from_slice(content);
        self
    }

    /// Adds a message.
    fn nest(self, number: u8, message: Self) -> Self {
        self.with(number, message.0)
    }
}

fn encode(registry: &Registry) -> Vec<u8> {
    let mut paths = Message::default();
    for served in registry.resources().iter().filter(|served| served.definition.can(Verb::Patch)) {
        let definition = &served.definition;
        for version in &definition.versions {
            let root = if definition.group.is_empty() {
                format!("/api/{version}")
            } else {
                format!("/apis/{}/{version}", definition.group)
            };
            let scope = if definition.namespaced { "/namespaces/{namespace}" } else { "" };
            let path = format!("{root}{scope}/{}/{{name}}", definition.plural);
            let kind = format!("group: {:?}\nversion: {version:?}\nkind: {:?}\n", definition.group, definition.kind);
            // NamedPathItem { name, value: PathItem { patch } }
            let item = Message::default().nest(8, patch_operation(&kind));
            paths = paths.nest(2, Message::default().with(1, path).nest(2, item));
        }
    }
    let info = Message::default().with(1, "Kubernetes").with(2, "v1.33.0");
    Message::default().with(1, "2.0").nest(2, info).nest(8, paths).0
}

/// An Operation that takes `fieldValidation` and names its kind.
fn patch_operation(kind: &str) -> Message {
    let parameter = Message::default().with(2, "query").with(4, "fieldValidation").with(6, "string");
    // ParametersItem { parameter: Parameter { non_body_parameter: NonBodyParameter { query_parameter_sub_schema } } }
    let parameter = Message::default().nest(1, Message::default().nest(2, Message::default().nest(3, parameter)));
    let extension = Message::default().with(1, "x-kubernetes-group-version-kind").nest(2, Message::default().with(2, kind));
    Message::default().nest(8, parameter).nest(13, extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_varints() {
        assert_eq!(Message::default().with(1, "ab").0, [10, 2, b'a', b'b']);
        assert_eq!(Message::default().with(2, [0; 300]).0[..3], [18, 0xac, 0x02]);
    }
}
