//! Resources as they are on the wire: metadata and a spec.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a field of an object has against it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// Where: `spec.http[0].route[1].weight`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl FieldError {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// The part of an object's metadata that the mesh looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in RFC 3339 and UTC, so that text order is time order.
    pub creation_timestamp: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Its identity.
    pub uid: String,
}

/// A resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<S> {
    /// Metadata.
    pub meta: Metadata,
    /// Spec.
    pub spec: S,
}

impl<S: DeserializeOwned + Default> Object<S> {
    /// Reads an object strictly: a field that the type does not have is an error. A missing spec is an empty one.
    pub fn from_value(object: &Value) -> Result<Self, FieldError> {
        let meta = match object.get("metadata") {
            Some(meta) => read(meta, "metadata")?,
            None => Metadata::default(),
        };
        let spec = match object.get("spec") {
            None | Some(Value::Null) => S::default(),
            Some(spec) => read(spec, "spec")?,
        };
        Ok(Self { meta, spec })
    }
}

impl<S> Object<S> {
    /// The order in which Istio looks at resources that compete: oldest first, then by name and namespace.
    pub fn age_order(&self) -> (&str, &str, &str) {
        (&self.meta.creation_timestamp, &self.meta.name, &self.meta.namespace)
    }
}

fn read<T: DeserializeOwned>(value: &Value, root: &str) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => root.to_owned(),
            path => format!("{root}.{path}"),
        };
        FieldError::new(path, error.into_inner().to_string())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::VirtualService;

    #[test]
    fn an_unknown_field_is_named_with_its_path() {
        let object = json!({ "metadata": { "name": "a" }, "spec": { "hosts": ["a"], "http": [{ "retry": {} }] } });
        let error = Object::<VirtualService>::from_value(&object).unwrap_err();
        assert!(error.path.starts_with("spec.http[0]"), "{error}");
        assert!(error.message.contains("unknown field `retry`"), "{error}");
    }

    #[test]
    fn snake_case_is_not_the_api() {
        let object = json!({ "spec": { "hosts": ["a"], "export_to": ["*"] } });
        assert!(Object::<VirtualService>::from_value(&object).is_err());
    }
}
