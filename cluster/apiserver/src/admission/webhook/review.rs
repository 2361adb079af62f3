//! `admission.k8s.io/v1 AdmissionReview`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use meshlab_objects::{Reason, Status};
use serde_json::{Value, json};

use super::super::{Attributes, Operation};
use super::configuration::Webhook;
use super::dispatch::CallError;
use crate::rest::{meta, to_version};

/// A question to a webhook.
pub(super) struct Review {
    uid: String,
    /// The `AdmissionReview`.
    pub(super) body: Value,
}

/// A webhook's answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    allowed: bool,
    status: Value,
    /// The operations of a JSON patch.
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
}

/// The `request` of a review, without its objects.
pub(super) fn request(webhook: &Webhook, attributes: &Attributes, uid: &str) -> Value {
    let definition = &attributes.served.definition;
    let (group, plural) = (&definition.group, &definition.plural);
    let kind_in = |version: &str| match definition.subresource(&attributes.subresource) {
        Some(sub) if sub.kind.kind != definition.kind => {
            json!({"group": sub.kind.group, "version": sub.kind.version, "kind": sub.kind.kind})
        }
        _ => json!({"group": group, "version": version, "kind": definition.kind}),
    };
    let resource_in = |version: &str| json!({"group": group, "version": version, "resource": plural});
    let mut request = json!({
        "uid": uid,
        "kind": kind_in(&webhook.version),
        "resource": resource_in(&webhook.version),
        "requestKind": kind_in(&attributes.version),
        "requestResource": resource_in(&attributes.version),
        "name": attributes.key.name(),
        "operation": attributes.operation.name(),
        "userInfo": attributes.user.to_value(),
        "dryRun": attributes.dry_run,
        "options": options(attributes),
    });
    if !attributes.subresource.is_empty() {
        request["subResource"] = json!(attributes.subresource);
        request["requestSubResource"] = json!(attributes.subresource);
    }
    let namespace = if definition.group.is_empty() && definition.plural == "namespaces" {
        attributes.key.name()
    } else {
        attributes.key.namespace()
    };
    if !namespace.is_empty() {
        request["namespace"] = json!(namespace);
    }
    request
}

fn options(attributes: &Attributes) -> Value {
    let kind = match attributes.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    for (name, value) in attributes.options.as_object().into_iter().flatten() {
        if name != "kind" && name != "apiVersion" {
            options[name] = value.clone();
        }
    }
    if attributes.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

impl Review {
    pub(super) fn new(webhook: &Webhook, attributes: &Attributes, object: &Value) -> Self {
        let uid = meta::new_uid();
        let mut request = request(webhook, attributes, &uid);
        let definition = &attributes.served.definition;
        let old = attributes.old.as_ref().unwrap_or(&Value::Null);
        for (field, value) in [("object", object), ("oldObject", old)] {
            let shown = value.is_object().then(|| to_version(value, definition, &webhook.version).into_owned());
            request[field] = shown.unwrap_or(Value::Null);
        }
        Self { uid, body: json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}) }
    }

    /// Understands an answer.
    pub(super) fn read(&self, body: &[u8]) -> Result<Answer, CallError> {
        let invalid = |why: String| CallError::Answer(why);
        let review: Value = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("couldn't get version/kind; json parse error: {error}")))?;
        if review["kind"] != "AdmissionReview" || review["apiVersion"] != "admission.k8s.io/v1" {
            let got = format!(
                "{}, Kind={}",
                review["apiVersion"].as_str().unwrap_or_default(),
                review["kind"].as_str().unwrap_or_default()
            );
            return Err(invalid(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {got}")));
        }
        let response = &review["response"];
        if !response.is_object() {
            return Err(invalid("webhook response was absent".into()));
        }
        if response["uid"] != self.uid.as_str() {
            return Err(invalid(format!("expected response.uid={:?}, got {}", self.uid, response["uid"])));
        }
        let patch = match response["patch"].as_str() {
            None | Some("") => None,
            Some(_) if response["patchType"] != "JSONPatch" => {
                return Err(invalid(format!("invalid response.patchType of {}", response["patchType"])));
            }
            Some(encoded) => {
                let decoded =
                    BASE64_STANDARD.decode(encoded).map_err(|error| invalid(format!("response.patch is not base64: {error}")))?;
                let operations = serde_json::from_slice(&decoded);
                Some(operations.map_err(|error| invalid(format!("response.patch is not a JSON patch: {error}")))?)
            }
        };
        let warnings =
            response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Answer { allowed: response["allowed"] == true, status: response["status"].clone(), patch, warnings })
    }
}

impl Answer {
    /// # Errors
    /// The webhook denied the request; its status and words are kept.
    pub(super) fn check(&self, webhook: &str) -> Result<(), Status> {
        if self.allowed {
            return Ok(());
        }
        let message = self.status["message"].as_str().filter(|message| !message.is_empty());
        let reason = self.status["reason"].as_str().filter(|reason| !reason.is_empty());
        let denied = format!("admission webhook {webhook:?} denied the request");
        let text = match (message, reason) {
            (Some(message), _) => format!("{denied}: {message}"),
            (None, Some(reason)) => format!("{denied}: {reason}"),
            (None, None) => format!("{denied} without explanation"),
        };
        let mut status = Status::new(known_reason(reason.unwrap_or_default()), text);
        let code = self.status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        // A webhook that gives no code, as Istio's, denies with 400 (apiserver's `ToStatusErr`).
        status.code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
        Err(status)
    }
}

fn known_reason(name: &str) -> Reason {
    match name {
        "BadRequest" => Reason::BadRequest,
        "Unauthorized" => Reason::Unauthorized,
        "NotFound" => Reason::NotFound,
        "AlreadyExists" => Reason::AlreadyExists,
        "Conflict" => Reason::Conflict,
        "Invalid" => Reason::Invalid,
        "TooManyRequests" => Reason::TooManyRequests,
        "InternalError" => Reason::InternalError,
        "ServiceUnavailable" => Reason::ServiceUnavailable,
        "Timeout" => Reason::Timeout,
        _ => Reason::Forbidden,
    }
}
