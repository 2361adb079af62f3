//! Making answers.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use meshlab_objects::Status;
use serde_json::{Value, json};

use super::accept::Encoding;
use super::{Accept, Body, Response, full};

/// Content with a type.
pub(crate) fn bytes_answer(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response {
    body_answer(code, content_type, full(bytes))
}

fn body_answer(code: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// JSON that is written while it is read.
pub(crate) fn json_answer_of(code: StatusCode, body: Body) -> Response {
    body_answer(code, "application/json", body)
}

/// JSON, already written.
pub(crate) fn json_answer(code: StatusCode, json: impl Into<Bytes>) -> Response {
    bytes_answer(code, "application/json", json)
}

/// Plain text.
pub(crate) fn text_answer(code: StatusCode, text: impl Into<Bytes>) -> Response {
    bytes_answer(code, "text/plain; charset=utf-8", text)
}

/// A value in the encoding that the client asked for.
pub(crate) fn yaml_or_json(code: StatusCode, accept: Accept, value: &Value) -> Response {
    if accept.encoding == Encoding::Yaml {
        match serde_saphyr::to_string(value) {
            Ok(yaml) => return bytes_answer(code, "application/yaml", yaml),
            Err(error) => return error_answer(&Status::internal(error)),
        }
    }
    json_answer(code, value.to_string())
}

/// A failure.
pub(crate) fn error_answer(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_answer(code, status.to_value().to_string());
    if let Some(seconds) = status.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The `Status` of a success, as deletions answer it.
pub(crate) fn status_ok(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource});
    for (key, value) in [("group", group), ("uid", uid)] {
        if !value.is_empty() {
            details[key] = json!(value);
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Adds `Warning: 299 - "…"` headers, as kubectl prints them.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        // What a header cannot carry, no client can read.
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
