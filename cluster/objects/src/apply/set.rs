//! Sets of field paths, `FieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// As deep as a set may nest.
const MAX_DEPTH: usize = 120;

/// A set of paths, as a tree. An element is one step as `FieldsV1` writes it: `f:name`, `k:{"name":"a"}`, `v:"a"`, `i:0`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// The path that ends here is in the set.
    pub(super) own: bool,
    pub(super) children: BTreeMap<String, Set>,
}

impl Set {
    pub(super) fn is_empty(&self) -> bool {
        !self.own && self.children.values().all(Self::is_empty)
    }

    pub(super) fn child(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    pub(super) fn child_mut(&mut self, element: &str) -> &mut Self {
        self.children.entry(element.to_owned()).or_default()
    }

    /// Puts a subset below an element, if there is something in it.
    pub(super) fn attach(&mut self, element: String, subset: Self) {
        if !subset.is_empty() {
            self.children.entry(element).or_default().add(subset);
        }
    }

    /// Adds what is in another set.
    pub(super) fn add(&mut self, other: Self) {
        self.own |= other.own;
        if self.children.is_empty() {
            self.children = other.children;
            return;
        }
        for (element, subset) in other.children {
            self.children.entry(element).or_default().add(subset);
        }
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.add(other.clone());
        all
    }

    /// Whether anything in the set is also in these `fieldsV1`, which need not be read for it.
    pub(super) fn touches(&self, fields: &Value) -> bool {
        let Some(fields) = fields.as_object() else { return false };
        self.own && (fields.is_empty() || fields.contains_key("."))
            || self.children.iter().any(|(element, subset)| fields.get(element).is_some_and(|fields| subset.touches(fields)))
    }

    /// Whether everything in the set is in these `fieldsV1`.
    pub(super) fn is_within(&self, fields: &Value) -> bool {
        let Some(fields) = fields.as_object() else { return false };
        (!self.own || fields.is_empty() || fields.contains_key("."))
            && self
                .children
                .iter()
                .all(|(element, subset)| subset.is_empty() || fields.get(element).is_some_and(|fields| subset.is_within(fields)))
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let common = |(element, subset): (&String, &Self)| {
            let both = subset.intersection(other.child(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        };
        Self { own: self.own && other.own, children: self.children.iter().filter_map(common).collect() }
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let rest = |(element, subset): (&String, &Self)| {
            let rest = match other.child(element) {
                Some(other) => subset.difference(other),
                None => subset.clone(),
            };
            (!rest.is_empty()).then(|| (element.clone(), rest))
        };
        Self { own: self.own && !other.own, children: self.children.iter().filter_map(rest).collect() }
    }

    /// From `fieldsV1`. `None` where it is malformed.
    pub(super) fn from_fields(fields: &Value) -> Option<Self> {
        Self::read(fields, 0)
    }

    fn read(fields: &Value, depth: usize) -> Option<Self> {
        if depth > MAX_DEPTH {
            return None;
        }
        let fields = fields.as_object()?;
        let mut set = Self { own: fields.is_empty() && depth > 0 || fields.contains_key("."), children: BTreeMap::new() };
        for (element, below) in fields.iter().filter(|(element, _)| *element != ".") {
            let known = match element.split_at_checked(2)? {
                ("f:", _) => true,
                ("k:", keys) => serde_json::from_str::<Map<String, Value>>(keys).is_ok(),
                ("v:", value) => serde_json::from_str::<Value>(value).is_ok(),
                ("i:", index) => index.parse::<usize>().is_ok(),
                _ => false,
            };
            if !known {
                return None;
            }
            set.children.insert(element.clone(), Self::read(below, depth + 1)?);
        }
        Some(set)
    }

    /// As `fieldsV1`.
    pub(super) fn to_fields(&self) -> Value {
        let mut fields = Map::new();
        for (element, subset) in self.children.iter().filter(|(_, subset)| !subset.is_empty()) {
            fields.insert(element.clone(), subset.to_fields());
        }
        if self.own && !fields.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        Value::Object(fields)
    }

    /// The paths as messages show them: `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.own {
            paths.push(path.to_owned());
        }
        for (element, subset) in &self.children {
            subset.collect_paths(&format!("{path}{}", shown(element)), paths);
        }
    }
}

fn shown(element: &str) -> String {
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            format!("[{}]", keys.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        Some(("i:", index)) => format!("[{index}]"),
        _ => element.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_and_written() {
        let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:finalizers": {"v:\"x\"": {}}}});
        let set = Set::from_fields(&fields).unwrap();
        assert_eq!(set.to_fields(), fields);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.finalizers[=\"x\"]"
            ]
        );
        assert!(set.difference(&set).is_empty());
        assert_eq!(set.intersection(&set), set);
        assert_eq!(set.union(&set), set);
        assert!(set.is_within(&fields) && set.touches(&fields));
        let other = Set::from_fields(&json!({"f:metadata": {"f:labels": {"f:other": {}}}})).unwrap();
        assert!(!other.is_within(&fields) && !other.touches(&fields));
    }

    #[test]
    fn malformed_fields() {
        for fields in [json!(1), json!({"x": {}}), json!({"f:a": 1}), json!({"k:{": {}}), json!({"i:x": {}}), json!({"ü": {}})] {
            assert!(Set::from_fields(&fields).is_none(), "{fields}");
        }
    }
}
