//! `serviceaccounts/token`.

use http::StatusCode;
use meshlab_objects::{Cause, CauseReason, Status};
use serde_json::{Value, json};

use crate::auth::{BoundObject, TokenError, TokenRequest};
use crate::http::{Body, Response, yaml_or_json};
use crate::rest::{Call, meta};

pub(super) async fn issue(call: &Call, body: Body) -> Result<Response, Status> {
    let mut review = call.decode_object(body).await?.value;
    let kind = meshlab_objects::resource::GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    meta::check_kind(&mut review, &kind)?;
    let account = call.stored()?;
    let spec = &review["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bound = &spec["boundObjectRef"];
    let request = TokenRequest {
        audiences: spec["audiences"].as_array().into_iter().flatten().map(text).collect(),
        expiration_seconds: spec["expirationSeconds"].as_i64(),
        bound_to: bound.is_object().then(|| BoundObject {
            kind: text(&bound["kind"]),
            name: text(&bound["name"]),
            uid: text(&bound["uid"]),
        }),
    };
    let issued = call.api.tokens.issue(&call.api.store, call.namespace(), account.key.name(), &request);
    let issued = issued.map_err(|error| refusal(&error, &call.path.name))?;
    let spec = review.as_object_mut().map(|fields| fields.entry("spec").or_insert_with(|| json!({})));
    if let Some(spec) = spec.and_then(Value::as_object_mut) {
        spec.entry("expirationSeconds").or_insert_with(|| json!(3600));
        if spec.get("audiences").is_none_or(|audiences| audiences.as_array().is_none_or(Vec::is_empty)) {
            spec.insert("audiences".into(), json!(["https://kubernetes.default.svc.cluster.local"]));
        }
    }
    review["status"] = json!({"token": issued.token, "expirationTimestamp": meta::rfc3339(issued.expires)});
    let metadata = meta::metadata_mut(&mut review)?;
    metadata.insert("name".into(), json!(call.path.name));
    metadata.insert("namespace".into(), json!(call.namespace()));
    metadata.insert("creationTimestamp".into(), json!(meta::rfc3339(jiff::Timestamp::now())));
    Ok(yaml_or_json(StatusCode::CREATED, call.accept, &review))
}

fn refusal(error: &TokenError, name: &str) -> Status {
    let field = match error {
        TokenError::TooShort => "spec.expirationSeconds",
        TokenError::Gone { .. } | TokenError::UnknownBinding(_) => "spec.boundObjectRef",
        other => return Status::internal(other),
    };
    let cause = Cause { reason: CauseReason::FieldValueInvalid, message: format!("Invalid value: {error}"), field: field.into() };
    Status::invalid("authentication.k8s.io", "TokenRequest", name, vec![cause])
}
