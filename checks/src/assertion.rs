//! Expectations: a tree of the same shape as what is observed, with operators where equality is not enough.
//!
//! A mapping matches when each of its keys does; other keys are not looked at. A list matches item by item. A scalar matches
//! an equal one. A mapping whose keys begin with `$` holds operators, which must all hold:
//!
//! | operator | holds when the value |
//! |---|---|
//! | `$regex: RE` | is a string (or number) in which RE is found |
//! | `$gt` `$gte` `$lt` `$lte: N` | is a number (or a string that is one) in that relation to N |
//! | `$oneOf: [A, …]` | matches one of these expectations |
//! | `$all: [A, …]` | matches all of them |
//! | `$not: A` | is there and does not match |
//! | `$absent: true` | is not there, or is null (`false`: is there) |
//! | `$contains: A` | is a list with an item that matches A, or a string that contains A |
//! | `$each: A` | is a list, not empty, all of whose items match A |
//! | `$length: A` | is a list, mapping or string whose length matches A |

use regex::Regex;
use serde_json::{Map, Value};

use crate::{Text, wording};

/// One place where what was seen is not what was expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Path in the observation: `spec.http[0].route[1].weight`. Empty for the whole.
    pub path: String,
    /// What was expected there, in words.
    pub expected: Text,
    /// What was there; `None` if nothing was.
    pub actual: Option<Value>,
}

impl Mismatch {
    /// Where, what should be there, and what was.
    pub fn in_words(&self) -> Text {
        let (path, Text { ja, en }) = (self.place(), &self.expected);
        match self.actual.as_ref().map(wording::value) {
            None => Text {
                ja: format!("{path}: {ja} を期待しましたが、ありません"),
                en: format!("{path}: expected {en}, but it is not there"),
            },
            Some(actual) => Text {
                ja: format!("{path}: {ja} を期待しましたが、実際は {actual} でした"),
                en: format!("{path}: expected {en}, got {actual}"),
            },
        }
    }

    /// The same without what should be there, for checks that keep it to themselves.
    pub fn in_words_without_expected(&self) -> Text {
        let path = self.place();
        match self.actual.as_ref().map(wording::value) {
            None => Text { ja: format!("{path}: ありません"), en: format!("{path}: it is not there") },
            Some(actual) => Text { ja: format!("{path}: 実際は {actual} でした"), en: format!("{path}: got {actual}") },
        }
    }

    fn place(&self) -> &str {
        if self.path.is_empty() { "." } else { &self.path }
    }
}

/// An expectation that no observation could be judged by: an author's mistake, found by the linter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct BadExpectation {
    /// Path in the expectation.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Compares `actual` with `expected`; an empty list means that it matches.
///
/// # Errors
/// [`BadExpectation`] when the expectation itself is malformed.
pub fn compare(expected: &Value, actual: &Value) -> Result<Vec<Mismatch>, BadExpectation> {
    let mut mismatches = Vec::new();
    walk(expected, Some(actual), "", &mut mismatches)?;
    Ok(mismatches)
}

/// Finds malformed operators without an observation.
///
/// # Errors
/// The first malformed part.
pub fn lint(expected: &Value) -> Result<(), BadExpectation> {
    lint_at(expected, "")
}

fn lint_at(expected: &Value, path: &str) -> Result<(), BadExpectation> {
    match expected {
        Value::Object(fields) if is_operators(fields) => fields.iter().try_for_each(|(operator, operand)| {
            walk_operator(operator, operand, Some(&Value::Null), path, &mut Vec::new())?;
            match operand {
                Value::Array(items) => items.iter().try_for_each(|item| lint_at(item, path)),
                nested => lint_at(nested, path),
            }
        }),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| lint_at(value, &child(path, key))),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| lint_at(item, &format!("{path}[{i}]"))),
        _ => Ok(()),
    }
}

/// What was seen, cut down to the fields that the expectation speaks of.
pub fn prune(expected: &Value, actual: &Value) -> Value {
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(fields)) if !is_operators(wanted) => {
            let kept = wanted.iter().filter_map(|(key, expected)| {
                let actual = fields.get(key)?;
                Some((key.clone(), prune(expected, actual)))
            });
            Value::Object(kept.collect())
        }
        (Value::Array(wanted), Value::Array(items)) => {
            let pruned = items.iter().enumerate().map(|(i, item)| wanted.get(i).map_or_else(|| item.clone(), |e| prune(e, item)));
            Value::Array(pruned.collect())
        }
        _ => actual.clone(),
    }
}

fn walk(expected: &Value, actual: Option<&Value>, path: &str, out: &mut Vec<Mismatch>) -> Result<(), BadExpectation> {
    match expected {
        Value::Object(fields) if is_operators(fields) => {
            for (operator, operand) in fields {
                walk_operator(operator, operand, actual, path, out)?;
            }
        }
        Value::Object(fields) => match actual {
            Some(Value::Object(present)) => {
                for (key, value) in fields {
                    walk(value, present.get(key), &child(path, key), out)?;
                }
            }
            // A missing object only fails in what is expected of it: `{$absent: true}` inside must still hold.
            None | Some(Value::Null) => {
                for (key, value) in fields {
                    walk(value, None, &child(path, key), out)?;
                }
            }
            other => out.push(mismatch(path, text("オブジェクト", "an object"), other)),
        },
        Value::Array(wanted) => match actual {
            Some(Value::Array(items)) if items.len() == wanted.len() => {
                for (i, (expected, item)) in wanted.iter().zip(items).enumerate() {
                    walk(expected, Some(item), &format!("{path}[{i}]"), out)?;
                }
            }
            other => {
                let count = wanted.len();
                out.push(mismatch(path, text(&format!("{count} 個のリスト"), &format!("a list of {count}")), other));
            }
        },
        scalar => {
            if !actual.is_some_and(|actual| scalar_equal(scalar, actual)) {
                out.push(mismatch(path, wording::of(scalar), actual));
            }
        }
    }
    Ok(())
}

fn walk_operator(
    operator: &str,
    operand: &Value,
    actual: Option<&Value>,
    path: &str,
    out: &mut Vec<Mismatch>,
) -> Result<(), BadExpectation> {
    let bad = |problem: &str| BadExpectation { path: path.to_owned(), problem: format!("{operator}: {problem}") };
    let holds = |expected: &Value, actual: Option<&Value>| -> Result<bool, BadExpectation> {
        let mut inner = Vec::new();
        walk(expected, actual, path, &mut inner)?;
        Ok(inner.is_empty())
    };
    let actual = actual.filter(|value| !value.is_null());
    let list = |operand: &Value| operand.as_array().cloned().ok_or_else(|| bad("takes a list"));
    let holds = match operator {
        "$regex" => {
            let pattern = operand.as_str().ok_or_else(|| bad("takes a string"))?;
            let regex = Regex::new(pattern).map_err(|error| bad(&error.to_string()))?;
            actual.and_then(as_text).is_some_and(|text| regex.is_match(&text))
        }
        "$gt" | "$gte" | "$lt" | "$lte" => {
            let limit = as_number(operand).ok_or_else(|| bad("takes a number"))?;
            actual.and_then(as_number).is_some_and(|number| match operator {
                "$gt" => number > limit,
                "$gte" => number >= limit,
                "$lt" => number < limit,
                _ => number <= limit,
            })
        }
        "$oneOf" => {
            let mut any = false;
            for option in list(operand)? {
                any |= holds(&option, actual)?;
            }
            any
        }
        "$all" => {
            for option in list(operand)? {
                walk(&option, actual, path, out)?;
            }
            return Ok(());
        }
        "$not" => actual.is_some() && !holds(operand, actual)?,
        "$absent" => {
            let absent = operand.as_bool().ok_or_else(|| bad("takes true or false"))?;
            actual.is_none() == absent
        }
        "$contains" => match actual {
            Some(Value::Array(items)) => {
                let mut any = false;
                for item in items {
                    any |= holds(operand, Some(item))?;
                }
                any
            }
            Some(Value::String(text)) => operand.as_str().is_some_and(|part| text.contains(part)),
            _ => false,
        },
        "$each" => match actual {
            Some(Value::Array(items)) if !items.is_empty() => {
                for (i, item) in items.iter().enumerate() {
                    walk(operand, Some(item), &format!("{path}[{i}]"), out)?;
                }
                return Ok(());
            }
            _ => {
                out.push(mismatch(path, text("空でないリスト", "a list that is not empty"), actual));
                return Ok(());
            }
        },
        "$length" => {
            let length = actual.and_then(|value| match value {
                Value::Array(items) => Some(items.len()),
                Value::Object(fields) => Some(fields.len()),
                Value::String(text) => Some(text.chars().count()),
                _ => None,
            });
            let length = length.map(Value::from);
            holds(operand, length.as_ref())?
        }
        _ => return Err(bad("there is no such operator")),
    };
    if !holds {
        let operator = Map::from_iter([(operator.to_owned(), operand.clone())]);
        out.push(mismatch(path, wording::of(&Value::Object(operator)), actual));
    }
    Ok(())
}

pub(crate) fn is_operators(fields: &Map<String, Value>) -> bool {
    !fields.is_empty() && fields.keys().all(|key| key.starts_with('$'))
}

fn child(path: &str, key: &str) -> String {
    // A key with a dot in it (a label, an annotation) is quoted, as kubectl's JSONPath does.
    let key = if key.contains('.') { format!("[{key:?}]") } else { key.to_owned() };
    if path.is_empty() || key.starts_with('[') { format!("{path}{key}") } else { format!("{path}.{key}") }
}

fn text(ja: &str, en: &str) -> Text {
    Text { ja: ja.to_owned(), en: en.to_owned() }
}

fn mismatch(path: &str, expected: Text, actual: Option<&Value>) -> Mismatch {
    Mismatch { path: path.to_owned(), expected, actual: actual.cloned() }
}

fn scalar_equal(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => expected == actual,
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(expected: Value, actual: Value) -> String {
        let mismatches = compare(&expected, &actual).expect("a good expectation");
        mismatches.iter().map(|mismatch| mismatch.in_words().en).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn other_keys_are_not_looked_at() {
        assert_eq!(report(json!({"a": {"b": 1}}), json!({"a": {"b": 1.0, "c": 2}, "d": 3})), "");
    }

    #[test]
    fn mismatches_name_their_path() {
        let expected = json!({"spec": {"http": [{"route": {"weight": {"$gte": 5}}}], "mode": "STRICT"}});
        let actual = json!({"spec": {"http": [{"route": {"weight": 4}}], "mode": "PERMISSIVE"}});
        insta::assert_snapshot!(report(expected, actual), @r#"
        spec.http[0].route.weight: expected at least 5, got 4
        spec.mode: expected "STRICT", got "PERMISSIVE"
        "#);
    }

    #[test]
    fn a_missing_object_is_reported_at_the_field_that_is_wanted() {
        insta::assert_snapshot!(report(json!({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}), json!({})),
            @r#"metadata.labels["app.kubernetes.io/name"]: expected "x", but it is not there"#);
        assert_eq!(report(json!({"spec": {"tls": {"$absent": true}}}), json!({})), "");
    }

    #[test]
    fn operators() {
        for (expected, actual, matches) in [
            (json!({"$regex": "^v[12]$"}), json!("v2"), true),
            (json!({"$regex": "^5"}), json!(503), true),
            (json!({"$lt": 10}), json!("9.5"), true),
            (json!({"$oneOf": [200, {"$gte": 500}]}), json!(503), true),
            (json!({"$oneOf": [200, 201]}), json!(404), false),
            (json!({"$not": "v1"}), json!("v2"), true),
            (json!({"$not": "v1"}), Value::Null, false),
            (json!({"$contains": {"name": "b"}}), json!([{"name": "a"}, {"name": "b", "x": 1}]), true),
            (json!({"$contains": "denied"}), json!("RBAC: access denied"), true),
            (json!({"$each": {"ready": true}}), json!([{"ready": true}, {"ready": false}]), false),
            (json!({"$each": {"ready": true}}), json!([]), false),
            (json!({"$length": {"$gte": 2}}), json!([1, 2]), true),
            (json!({"$gte": 1, "$lte": 3}), json!(4), false),
            (json!({"$all": [{"$gte": 1}, {"$not": 2}]}), json!(2), false),
        ] {
            let mismatches = compare(&expected, &actual).expect("a good expectation");
            assert_eq!(mismatches.is_empty(), matches, "{expected} against {actual}: {mismatches:?}");
        }
    }

    #[test]
    fn malformed_expectations_are_errors_and_never_pass() {
        for bad in [json!({"$regexp": "x"}), json!({"$regex": "("}), json!({"a": [{"$gte": "x"}]}), json!({"$oneOf": 3})] {
            assert!(lint(&bad).is_err(), "{bad}");
        }
        assert!(compare(&json!({"$regex": "("}), &json!("x")).is_err());
    }

    #[test]
    fn pruning_keeps_what_the_expectation_speaks_of() {
        let actual = json!({"spec": {"a": 1, "b": 2}, "status": {}});
        assert_eq!(prune(&json!({"spec": {"b": 3}}), &actual), json!({"spec": {"b": 2}}));
    }
}
