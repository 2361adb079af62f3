//! `field.Error` in Kubernetes' words.

use serde_json::Value;

use crate::{Cause, CauseReason};

/// `Required value`, with details where there are some.
pub(crate) fn required(field: impl Into<String>, detail: &str) -> Cause {
    let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
    Cause { reason: CauseReason::FieldValueRequired, message, field: field.into() }
}

/// `Invalid value: "x": why`
pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
    Cause {
        reason: CauseReason::FieldValueInvalid,
        message: format!("Invalid value: {}: {detail}", show(value)),
        field: field.into(),
    }
}

/// `Invalid value: "string": spec.replicas in body must be of type integer: "string"`
pub(crate) fn wrong_type(field: &str, shown: &str, expected: &str) -> Cause {
    let message = format!("Invalid value: {shown:?}: {field} in body must be of type {expected}: {shown:?}");
    Cause { reason: CauseReason::FieldValueTypeInvalid, message, field: field.to_owned() }
}

/// `Unsupported value: "x": supported values: "a", "b"`
pub(crate) fn not_supported<'a>(
    field: impl Into<String>,
    value: &Value,
    supported: impl IntoIterator<Item = &'a Value>,
) -> Cause {
    let supported: Vec<String> = supported.into_iter().map(show).collect();
    let message = format!("Unsupported value: {}: supported values: {}", show(value), supported.join(", "));
    Cause { reason: CauseReason::FieldValueNotSupported, message, field: field.into() }
}

/// `Forbidden: why`
pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
    Cause { reason: CauseReason::FieldValueForbidden, message: format!("Forbidden: {detail}"), field: field.into() }
}

/// `Duplicate value: "x"`
pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
    Cause { reason: CauseReason::FieldValueDuplicate, message: format!("Duplicate value: {}", show(value)), field: field.into() }
}

/// `Not found: "x"`
pub(crate) fn not_found(field: impl Into<String>, value: &Value) -> Cause {
    Cause { reason: CauseReason::FieldValueNotFound, message: format!("Not found: {}", show(value)), field: field.into() }
}

/// `Too long: may not be more than 63 bytes`
pub(crate) fn too_long(field: impl Into<String>, max: u64) -> Cause {
    Cause {
        reason: CauseReason::FieldValueTooLong,
        message: format!("Too long: may not be more than {max} bytes"),
        field: field.into(),
    }
}

/// `Too many: 3: must have at most 2 items`
pub(crate) fn too_many(field: impl Into<String>, count: usize, max: u64) -> Cause {
    let message = format!("Too many: {count}: must have at most {max} items");
    Cause { reason: CauseReason::FieldValueTooMany, message, field: field.into() }
}

/// How much of a value a message shows.
const MAX_SHOWN: usize = 512;

/// A value as messages show it: strings quoted, the rest as JSON, all of a bounded length.
pub(crate) fn show(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > MAX_SHOWN {
        let end = (0..=MAX_SHOWN).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
