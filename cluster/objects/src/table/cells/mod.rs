//! Cells of the built-in kinds.

pub(super) mod cluster;
pub(super) mod network;
pub(super) mod other;
pub(super) mod pod;
pub(super) mod workload;

use jiff::Timestamp;
use serde_json::Value;

use super::duration;

/// What stands where there is nothing.
const NONE: &str = "<none>";

/// An object to make cells of.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) object: &'a Value,
    pub(super) now: Timestamp,
}

impl<'a> Row<'a> {
    /// The value at a path of fields, if there is one.
    fn at(self, path: &str) -> Option<&'a Value> {
        at(self.object, path).filter(|value| !value.is_null())
    }

    fn text(self, pointer: &str) -> &'a str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A text, or `<none>`.
    fn text_or_none(self, pointer: &str) -> &'a str {
        let text = self.text(pointer);
        if text.is_empty() { NONE } else { text }
    }

    fn number(self, pointer: &str) -> i64 {
        self.at(pointer).and_then(Value::as_i64).unwrap_or_default()
    }

    fn list(self, pointer: &str) -> &'a [Value] {
        self.at(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn name(self) -> Value {
        self.text("/metadata/name").into()
    }

    fn age(self) -> Value {
        self.since("/metadata/creationTimestamp").into()
    }

    /// How long ago the time at a pointer was.
    fn since(self, pointer: &str) -> String {
        duration::since(self.at(pointer), self.now)
    }

    /// Names and images of the containers of a template.
    fn containers(self, pointer: &str) -> [Value; 2] {
        let containers = self.list(pointer);
        ["name", "image"].map(|field| join(containers.iter().map(|container| text(container, field))).into())
    }

    /// Number of keys of a map.
    fn count(self, pointer: &str) -> usize {
        self.at(pointer).and_then(Value::as_object).map(serde_json::Map::len).unwrap_or_default()
    }
}

/// The value at a path of fields, `/spec/replicas`. Unlike `Value::pointer`, which knows escapes, it allocates nothing: a list of
/// ten thousand pods asks a quarter of a million times.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').skip(1).try_fold(value, |value, field| value.get(field))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(",")
}

fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// `a=b,c=d`, or `<none>`.
fn labels(labels: Option<&Value>) -> String {
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    or_none(labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(","))
}

/// A `LabelSelector` as kubectl shows it: `a=b,c in (d,e)`.
fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.to_owned() };
    or_none(crate::selector::LabelSelector::from_value(selector).map(|selector| selector.to_string()).unwrap_or_default())
}

/// The first `max` of some items, and how many more there are.
fn first_of(items: &[String], max: usize, none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    let shown = items.iter().take(max).cloned().collect::<Vec<_>>().join(",");
    if items.len() > max { format!("{shown} + {} more...", items.len() - max) } else { shown }
}
