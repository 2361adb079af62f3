//! The error every API call can end in: a Kubernetes `Status`.

use serde::Serialize;
use serde_json::{Value, json};

/// A failure, as `metav1.Status` says it to a client. Small enough to be returned by value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason (`NotFound`).
    pub reason: Reason,
    /// What went wrong, in Kubernetes' own wording where it has one.
    pub message: String,
    /// Group of the resource concerned.
    pub group: Box<str>,
    /// Kind (or, as Kubernetes does for `NotFound`, the plural resource name).
    pub kind: Box<str>,
    /// Name of the object concerned.
    pub name: Box<str>,
    /// The fields at fault.
    pub causes: Vec<Cause>,
    /// When it makes sense to try again.
    pub retry_after_seconds: Option<u32>,
}

/// The reasons of `metav1.StatusReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 409 on create
    AlreadyExists,
    /// 409
    Conflict,
    /// 410 for a watch or a continue token
    Expired,
    /// 410
    Gone,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    Invalid,
    /// 429
    TooManyRequests,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
    /// 504
    Timeout,
}

impl Reason {
    /// The HTTP status code Kubernetes sends with this reason.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired | Self::Gone => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// One field at fault, `metav1.StatusCause`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What kind of fault.
    pub reason: CauseReason,
    /// In words, without the field: `Unsupported value: "x": supported values: "a", "b"`.
    pub message: String,
    /// Field path: `spec.containers[0].image`.
    pub field: String,
}

/// The kinds of `field.Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CauseReason {
    /// Required value is missing.
    FieldValueRequired,
    /// Malformed or out of range.
    FieldValueInvalid,
    /// Not one of the allowed values.
    FieldValueNotSupported,
    /// May not be set here.
    FieldValueForbidden,
    /// Stands twice.
    FieldValueDuplicate,
    /// Refers to something that is not there.
    FieldValueNotFound,
    /// Too long.
    FieldValueTooLong,
    /// Too many items.
    FieldValueTooMany,
    /// Wrong type.
    FieldValueTypeInvalid,
    /// Owned by another field manager (server-side apply).
    FieldManagerConflict,
}

impl Status {
    /// A status with this reason, its usual code, and a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code(),
            reason,
            message: message.into(),
            group: "".into(),
            kind: "".into(),
            name: "".into(),
            causes: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// `pods "web" not found`
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{} {name:?} not found", qualified(resource, group))).about(group, resource, name)
    }

    /// `pods "web" already exists`
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::AlreadyExists, format!("{} {name:?} already exists", qualified(resource, group)))
            .about(group, resource, name)
    }

    /// `Operation cannot be fulfilled on pods "web": …`
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let resource_name = qualified(resource, group);
        Self::new(Reason::Conflict, format!("Operation cannot be fulfilled on {resource_name} {name:?}: {why}"))
            .about(group, resource, name)
    }

    /// `Pod "web" is invalid: spec.containers: Required value`
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let faults: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let faults = match faults.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut status = Self::new(Reason::Invalid, format!("{} {name:?} is invalid: {faults}", qualified(kind, group)));
        status.causes = causes;
        status.about(group, kind, name)
    }

    /// 400 with a message.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500 with a message.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// Names the object concerned.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.group = group.into();
        self.kind = kind.into();
        self.name = name.into();
        self
    }

    /// The `metav1.Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        let mut details = serde_json::Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !value.is_empty() {
                details.insert(key.into(), json!(value));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
            details.insert("causes".into(), causes.collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), json!(seconds));
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

/// `deployments.apps`, or `pods` for the core group.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
