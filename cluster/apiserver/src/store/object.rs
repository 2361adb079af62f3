//! An object as the store holds it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
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

/// One revision of an object. Immutable: every write makes a new one.
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    /// In its storage version, `metadata.resourceVersion` included.
    pub(crate) value: Value,
    json: OnceLock<Bytes>,
}

impl Object {
    pub(super) fn new(key: Key, revision: u64, mut value: Value) -> Self {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
        }
        Self { key, revision, value, json: OnceLock::new() }
    }

    /// An object that is not in the store: the outcome of a dry run.
    pub(crate) fn unsaved(key: Key, revision: Option<u64>, value: Value) -> Self {
        Self { key, revision: revision.unwrap_or_default(), value, json: OnceLock::new() }
    }

    /// An object as [`Object::json`] wrote it.
    pub(super) fn from_json(key: Key, revision: u64, json: Bytes) -> Self {
        let value = serde_json::from_slice(&json).expect("the store wrote this JSON itself");
        Self { key, revision, value, json: OnceLock::from(json) }
    }

    /// The value as JSON; serialised once, shared by every reader.
    pub(crate) fn json(&self) -> Bytes {
        self.json.get_or_init(|| Bytes::from(self.value.to_string())).clone()
    }

    /// `metadata.uid`
    pub(crate) fn uid(&self) -> &str {
        self.value["metadata"]["uid"].as_str().unwrap_or_default()
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key.as_str(), self.revision)
    }
}
