//! The smallest edit of an object that makes it what is expected, where that can be known.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::assertion;
use crate::check::ResourceProbe;

/// An edit of one object, as a JSON merge patch (RFC 7386).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectEdit {
    /// `v1`, `networking.istio.io/v1`.
    pub api_version: String,
    /// `Namespace`.
    pub kind: String,
    /// None for objects of the whole cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What is merged into it; null takes a field away.
    pub patch: Value,
}

impl ObjectEdit {
    /// An edit of the one object that a probe looks at; none if it looks at a list.
    pub(crate) fn of(probe: &ResourceProbe, patch: Value) -> Option<Self> {
        Some(Self {
            api_version: probe.api_version.clone(),
            kind: probe.kind.clone(),
            namespace: probe.namespace.clone(),
            name: probe.name.clone()?,
            patch,
        })
    }
}

/// The command that makes the edit, to be pasted into a shell.
impl fmt::Display for ObjectEdit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kubectl patch {} {}", self.kind.to_lowercase(), self.name)?;
        if let Some(namespace) = &self.namespace {
            write!(formatter, " -n {namespace}")?;
        }
        write!(formatter, " --type merge -p '{}'", self.patch.to_string().replace('\'', r"'\''"))
    }
}

/// The smallest merge patch after which `actual` is as expected; `None` where the expectation leaves open what should stand there
/// (a pattern, a negation), and where nothing is there to be edited.
pub(crate) fn smallest(expected: &Value, actual: &Value) -> Option<Value> {
    let patch = difference(expected, Some(actual).filter(|actual| !actual.is_null())?)?;
    let mut edited = actual.clone();
    merge(&mut edited, &patch);
    // What is told is proven: after this edit the check holds.
    assertion::compare(expected, &edited).is_ok_and(|mismatches| mismatches.is_empty()).then_some(patch)
}

fn holds(expected: &Value, actual: &Value) -> bool {
    assertion::compare(expected, actual).is_ok_and(|mismatches| mismatches.is_empty())
}

fn difference(expected: &Value, actual: &Value) -> Option<Value> {
    match expected {
        Value::Object(fields) if assertion::is_operators(fields) => wanted(expected, actual),
        Value::Object(fields) => {
            let mut patch = Map::new();
            for (key, expected) in fields {
                let actual = actual.get(key).unwrap_or(&Value::Null);
                if !holds(expected, actual) {
                    patch.insert(key.clone(), difference(expected, actual)?);
                }
            }
            Some(Value::Object(patch))
        }
        // A merge patch replaces a list as a whole.
        Value::Array(items) => {
            let actual = actual.as_array().filter(|actual| actual.len() == items.len())?;
            items.iter().zip(actual).map(|(expected, actual)| replaced(expected, actual)).collect::<Option<_>>().map(Value::Array)
        }
        scalar => Some(scalar.clone()),
    }
}

/// A value that an operator holds for, and that is nearest to what is there.
fn wanted(expected: &Value, actual: &Value) -> Option<Value> {
    let fields = expected.as_object().filter(|fields| fields.len() == 1)?;
    let (operator, operand) = fields.iter().next()?;
    match (operator.as_str(), operand) {
        ("$absent", Value::Bool(true)) => Some(Value::Null),
        ("$gte" | "$lte", number) => Some(number.clone()),
        ("$oneOf", Value::Array(options)) => options.iter().find_map(|option| difference(option, actual)),
        ("$contains", item) if plain(item) => {
            let mut items = actual.as_array().cloned().unwrap_or_default();
            items.push(item.clone());
            Some(Value::Array(items))
        }
        _ => None,
    }
}

/// An item of a list as it should be.
fn replaced(expected: &Value, actual: &Value) -> Option<Value> {
    if holds(expected, actual) {
        return Some(actual.clone());
    }
    let mut item = actual.clone();
    merge(&mut item, &difference(expected, actual)?);
    Some(item)
}

/// Whether it says what should stand there, without operators.
fn plain(expected: &Value) -> bool {
    match expected {
        Value::Object(fields) => !assertion::is_operators(fields) && fields.values().all(plain),
        Value::Array(items) => items.iter().all(plain),
        _ => true,
    }
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_smallest_edit_changes_what_differs_and_nothing_else() {
        for (expected, actual, edit) in [
            (
                json!({"metadata": {"labels": {"istio-injection": "enabled"}}}),
                json!({"metadata": {"name": "webapp", "labels": {"a": "b"}}}),
                Some(json!({"metadata": {"labels": {"istio-injection": "enabled"}}})),
            ),
            (
                json!({"spec": {"selector": {"$absent": true}, "mtls": {"mode": "STRICT"}}}),
                json!({"spec": {"selector": {"app": "x"}, "mtls": {"mode": "STRICT"}}}),
                Some(json!({"spec": {"selector": null}})),
            ),
            (
                json!({"servers": [{"port": 80, "hosts": {"$contains": "b"}}]}),
                json!({"servers": [{"port": 80, "hosts": ["a"], "tls": {}}]}),
                Some(json!({"servers": [{"port": 80, "hosts": ["a", "b"], "tls": {}}]})),
            ),
            (json!({"replicas": {"$gte": 2}}), json!({"replicas": 1}), Some(json!({"replicas": 2}))),
            // What should stand there is not known.
            (json!({"host": {"$regex": "^a"}}), json!({"host": "b"}), None),
            (json!({"host": {"$not": "b"}}), json!({"host": "b"}), None),
            // Nothing is there to be edited.
            (json!({"spec": {"a": 1}}), Value::Null, None),
        ] {
            assert_eq!(smallest(&expected, &actual), edit, "{expected} of {actual}");
        }
    }

    #[test]
    fn an_edit_is_a_command_that_a_shell_takes() {
        let edit = ObjectEdit {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: Some("webapp".to_owned()),
            name: "page".to_owned(),
            patch: json!({"data": {"title": "it's up"}}),
        };
        insta::assert_snapshot!(edit, @r#"kubectl patch configmap page -n webapp --type merge -p '{"data":{"title":"it'\''s up"}}'"#);
    }
}
