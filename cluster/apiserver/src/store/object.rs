//! An object as the store holds it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::Value;

/// A resource, whatever its version: `deployments.apps`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupResource {
    /// API group, empty for the core group.
    pub(crate) group: Arc<str>,
    /// Plural name.
    pub(crate) resource: Arc<str>,
}

impl GroupResource {
    pub(crate) fn new(group: &str, resource: &str) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

/// `namespace/name`, or `name` alone for what is not in a namespace. Ordered as Kubernetes orders lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(Arc<str>);

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() { Self(name.into()) } else { Self(format!("{namespace}/{name}").into()) }
    }

    /// A key as [`Key::as_str`] gave it.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub(crate) fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// First key of a namespace, and the first one behind it: `/` is followed by `0`.
    pub(super) fn namespace_range(namespace: &str) -> (Self, Self) {
        (Self(format!("{namespace}/").into()), Self(format!("{namespace}0").into()))
    }
}

/// One revision of an object, in its storage version, `metadata.resourceVersion` included. Immutable: every write makes a new one.
///
/// It is a tree while somebody works with it, and JSON alone when it rests ([`Object::rest`]): the tree of a pod takes some ten times
/// the memory of its text, most of it in half-empty maps of managed fields.
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    uid: Box<str>,
    api_version: Box<str>,
    /// At least one of `tree` and `json` is there.
    tree: RwLock<Option<Arc<Value>>>,
    json: OnceLock<Bytes>,
    /// Somebody asked for the tree since it was last looked at.
    in_use: AtomicBool,
}

impl Object {
    pub(super) fn new(key: Key, revision: u64, mut value: Value) -> Self {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
        }
        Self::unsaved(key, Some(revision), value)
    }

    /// An object that is not in the store: the outcome of a dry run.
    pub(crate) fn unsaved(key: Key, revision: Option<u64>, value: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().into();
        Self {
            key,
            revision: revision.unwrap_or_default(),
            uid: text(&value["metadata"]["uid"]),
            api_version: text(&value["apiVersion"]),
            tree: RwLock::new(Some(Arc::new(value))),
            json: OnceLock::new(),
            in_use: AtomicBool::new(true),
        }
    }

    /// An object as [`Object::json`] wrote it.
    pub(super) fn from_json(key: Key, revision: u64, json: Bytes) -> Self {
        Self { json: OnceLock::from(json.clone()), ..Self::unsaved(key, Some(revision), parse(&json)) }
    }

    /// The value.
    pub(crate) fn value(&self) -> Arc<Value> {
        self.in_use.store(true, Ordering::Relaxed);
        if let Some(tree) = &*self.tree.read() {
            return tree.clone();
        }
        self.tree.write().get_or_insert_with(|| Arc::new(self.json.get().map_or(Value::Null, |json| parse(json)))).clone()
    }

    /// The value as JSON; serialised once, shared by every reader.
    pub(crate) fn json(&self) -> Bytes {
        self.json.get_or_init(|| Bytes::from(self.value().to_string())).clone()
    }

    /// Lets go of the tree if nobody has asked for it since the last call.
    pub(super) fn rest(&self) {
        if !self.in_use.swap(false, Ordering::Relaxed) && self.tree.read().is_some() {
            drop(self.json());
            *self.tree.write() = None;
        }
    }

    /// `metadata.uid`
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// `apiVersion`
    pub(crate) fn api_version(&self) -> &str {
        &self.api_version
    }
}

fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("the store wrote this JSON itself")
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key.as_str(), self.revision)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_nobody_reads_keeps_its_text_alone_and_is_read_as_it_was() {
        let value =
            json!({"apiVersion": "v1", "metadata": {"name": "one", "uid": "u", "labels": {"a": "b"}}, "data": {"n": 1.5}});
        let object = Object::new(Key::new("ns", "one"), 7, value);
        let before = object.value();
        object.rest();
        assert!(object.tree.read().is_some(), "it was in use");
        object.rest();
        assert!(object.tree.read().is_none());
        assert_eq!((object.uid(), object.api_version()), ("u", "v1"));
        assert_eq!(object.value(), before);
        assert_eq!(object.json(), before.to_string());
    }
}
