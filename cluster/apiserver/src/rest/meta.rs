//! What all kinds have in common: `apiVersion`, `kind`, `metadata`, and the options of a write.

use http::HeaderValue;
use jiff::Timestamp;
use meshlab_objects::decode::{Decoded, Encoding, decode};
use meshlab_objects::resource::{GroupVersionKind, ResourceDefinition};
use meshlab_objects::{Cause, CauseReason, Reason, Status};
use rand::Rng;
use serde_json::{Value, json};

use super::Call;
use crate::http::read_body;

/// A decoded request body.
pub(crate) type Body = Decoded;

/// What becomes of fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// # Errors
    /// 422 in Kubernetes' words.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "Ignore" => Ok(Self::Ignore),
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            other => {
                let cause = invalid_option("fieldValidation", other, &["Ignore", "Strict", "Warn"]);
                Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]))
            }
        }
    }
}

pub(crate) fn invalid_option(field: &str, value: &str, supported: &[&str]) -> Cause {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    Cause {
        reason: CauseReason::FieldValueNotSupported,
        message: format!("Unsupported value: {value:?}: supported values: {}", supported.join(", ")),
        field: field.into(),
    }
}

/// The field manager of a write: the one that is named, or the program of the user agent.
///
/// # Errors
/// 422 over 128 characters.
pub(crate) fn field_manager(named: &str, user_agent: Option<&HeaderValue>) -> Result<String, Status> {
    const LONGEST: usize = 128;
    if named.chars().count() > LONGEST {
        let cause = Cause {
            reason: CauseReason::FieldValueTooLong,
            message: format!("Too long: may not be more than {LONGEST} bytes"),
            field: "fieldManager".into(),
        };
        return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
    }
    if !named.is_empty() {
        return Ok(named.to_owned());
    }
    let agent = user_agent.and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
    let program = agent.split('/').next().unwrap_or_default();
    Ok(program.chars().take(LONGEST).collect())
}

/// Kinds whose PUT makes an object that is not there.
pub(crate) fn can_create_on_update(definition: &ResourceDefinition) -> bool {
    matches!(
        (definition.group.as_str(), definition.plural.as_str()),
        ("", "endpoints" | "events" | "limitranges")
            | ("events.k8s.io", "events")
            | ("coordination.k8s.io", "leases")
            | ("rbac.authorization.k8s.io", _)
    )
}

/// Whether `metadata.generation` counts the changes of the spec.
pub(crate) fn tracks_generation(definition: &ResourceDefinition, custom: bool) -> bool {
    custom
        || matches!(
            definition.group.as_str(),
            "apps"
                | "batch"
                | "networking.k8s.io"
                | "policy"
                | "apiextensions.k8s.io"
                | "admissionregistration.k8s.io"
                | "discovery.k8s.io"
        )
        || (definition.group.is_empty() && definition.plural == "replicationcontrollers")
}

/// `2026-01-31T12:00:00Z`
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random UUID.
pub(crate) fn new_uid() -> String {
    let mut bits: u128 = rand::rng().random();
    // Version 4, variant 1 (RFC 9562).
    bits = bits & !(0xf << 76) | 4 << 76;
    bits = bits & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A name from `generateName`, with the letters and digits that Kubernetes uses so as to form no words.
pub(crate) fn generated_name(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LONGEST: usize = 58;
    let mut random = rand::rng();
    let mut name: String = prefix.chars().take(LONGEST).collect();
    name.extend((0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])));
    name
}

/// An object's `metadata`, made if it is missing.
///
/// # Errors
/// 400 if the object is not an object or its metadata is none.
pub(crate) fn metadata_mut(object: &mut Value) -> Result<&mut serde_json::Map<String, Value>, Status> {
    let fields = object.as_object_mut().ok_or_else(|| Status::bad_request("the object is not a JSON object"))?;
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is not a JSON object"))
}

pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(crate) fn is_being_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Drops the lists and maps of an object's metadata that are empty: written by Go, they are not there.
pub(crate) fn drop_empty(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let is_empty = match metadata.get(field) {
            Some(Value::Object(fields)) => fields.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            _ => false,
        };
        if is_empty {
            metadata.remove(field);
        }
    }
}

/// Takes fields from the old object, or removes them where it has none.
pub(crate) fn carry(new: &mut serde_json::Map<String, Value>, old: &Value, fields: &[&str]) {
    for field in fields {
        match old.get(*field).filter(|value| !value.is_null()) {
            Some(value) => new.insert((*field).to_owned(), value.clone()),
            None => new.remove(*field),
        };
    }
}

/// Checks `apiVersion` and `kind` of a body, which may leave them out.
///
/// # Errors
/// 400 in Kubernetes' words.
pub(crate) fn check_kind(object: &mut Value, expected: &GroupVersionKind) -> Result<(), Status> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let fields = object.as_object_mut().ok_or_else(|| Status::bad_request("the object provided is not a JSON object"))?;
    if kind.is_empty() {
        fields.insert("kind".into(), Value::String(expected.kind.clone()));
    } else if kind != expected.kind {
        let message = format!(
            "{kind} in version {:?} cannot be handled as a {}: converting (v1.{kind}) to (v1.{}): unknown conversion",
            api_version, expected.kind, expected.kind
        );
        return Err(Status::new(Reason::BadRequest, message));
    }
    if api_version.is_empty() {
        fields.insert("apiVersion".into(), Value::String(expected.api_version()));
    } else if api_version != expected.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version()
        )));
    }
    Ok(())
}

impl Call {
    /// Reads and decodes the body of a create or an update.
    pub(crate) async fn decode_object(&self, body: crate::http::Body) -> Result<Body, Status> {
        let encoding = Encoding::from_content_type(self.content_type())?;
        decode(encoding, &read_body(body).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_uuids_of_version_4() {
        let uid = new_uid();
        assert_eq!((uid.len(), &uid[14..15]), (36, "4"));
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"), "{uid}");
    }

    #[test]
    fn generated_names_fit_into_a_label() {
        assert_eq!(generated_name("web-").len(), 9);
        assert_eq!(generated_name(&"x".repeat(80)).len(), 63);
    }
}
