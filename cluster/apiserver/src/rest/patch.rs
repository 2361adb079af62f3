//! PATCH, in its four forms.

use http::StatusCode;
use meshlab_objects::decode::{Encoding, decode};
use meshlab_objects::schema::Schema;
use meshlab_objects::{Cause, CauseReason, Reason, Status, patch};
use serde_json::Value;

use super::{Call, FieldValidation, Mutation};
use crate::http::{Response, read_body};

/// A decoded patch.
#[derive(Debug, Clone)]
pub(crate) enum Patch {
    /// RFC 6902
    Json(Value),
    /// RFC 7386
    Merge(Value),
    /// Kubernetes' own, with merge keys.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// What the manager wants.
        config: Value,
        /// Take fields from other managers.
        force: bool,
    },
}

impl Patch {
    /// The patched object. Not for [`Patch::Apply`], which needs the managers of the fields.
    pub(crate) fn apply_to(&self, schema: &Schema, object: &Value) -> Result<Value, Status> {
        match self {
            Self::Json(operations) => patch::json_patch(object, operations),
            Self::Merge(document) => patch::merge_patch(object, document),
            Self::Strategic(document) => patch::strategic_merge(schema, object, document),
            Self::Apply { .. } => Err(Status::internal("server-side apply is not a plain patch")),
        }
    }

    /// What strict decoding finds in the patched object, in the words of this kind of patch.
    pub(crate) fn strict_error(&self, errors: &[String]) -> Status {
        let errors = format!("strict decoding error: {}", errors.join(", "));
        match self {
            Self::Json(document) | Self::Merge(document) | Self::Strategic(document) => {
                let document = if matches!(self, Self::Strategic(_)) { go_format(document) } else { document.to_string() };
                let message = format!("Invalid value: {document:?}: {errors}");
                let cause = Cause { reason: CauseReason::FieldValueInvalid, message, field: "patch".into() };
                Status::invalid("", "", "", vec![cause])
            }
            Self::Apply { .. } => Status::bad_request(format!("error when applying: {errors}")),
        }
    }
}

/// Go's `%+v` of a decoded document, which Kubernetes prints.
fn go_format(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_format).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{}", go_format(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

impl Call {
    /// Reads a patch, and what strict decoding says of it.
    pub(crate) async fn decode_patch(&self, body: crate::http::Body) -> Result<(Patch, Vec<String>), Status> {
        let content_type = self.content_type().split(';').next().unwrap_or_default().trim().to_owned();
        let custom = self.served.custom.is_some();
        let encoding = match content_type.as_str() {
            "application/apply-patch+yaml" => Encoding::Yaml,
            "application/json-patch+json" | "application/merge-patch+json" => Encoding::Json,
            "application/strategic-merge-patch+json" if !custom => Encoding::Json,
            _ => {
                let mut accepted =
                    vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
                if !custom {
                    accepted.insert(2, "application/strategic-merge-patch+json");
                }
                return Err(Status::new(
                    Reason::UnsupportedMediaType,
                    format!(
                        "the body of the request was in an unknown format - accepted media types include: {}",
                        accepted.join(", ")
                    ),
                ));
            }
        };
        let decoded = decode(encoding, &read_body(body).await?)?;
        let patch = match content_type.as_str() {
            "application/json-patch+json" => Patch::Json(decoded.value),
            "application/merge-patch+json" => Patch::Merge(decoded.value),
            "application/strategic-merge-patch+json" => Patch::Strategic(decoded.value),
            _ => {
                if self.query.get("fieldManager").is_empty() {
                    let message = "Required value: is required for apply patch".to_owned();
                    let cause = Cause { reason: CauseReason::FieldValueRequired, message, field: "fieldManager".into() };
                    return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
                }
                Patch::Apply { config: decoded.value, force: self.query.flag("force") }
            }
        };
        Ok((patch, decoded.strict_errors))
    }

    pub(super) async fn patch(&self, body: crate::http::Body) -> Result<Response, Status> {
        let options = self.write_options()?;
        let (patch, strict_errors) = self.decode_patch(body).await?;
        if options.validation == FieldValidation::Strict && !strict_errors.is_empty() {
            return Err(patch.strict_error(&strict_errors));
        }
        let mut written = self.api.modify(&self.served, &self.key(), &Mutation::Patch(patch), &options).await?;
        if options.validation == FieldValidation::Warn {
            written.warnings.splice(0..0, strict_errors);
        }
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        self.answer(code, &written)
    }
}
