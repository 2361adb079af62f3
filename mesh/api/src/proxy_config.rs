//! ProxyConfig: how the selected workloads' proxies are started.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::LabelSelector;

/// Settings of the proxy itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyConfig {
    /// The workloads; all of the namespace if unset.
    pub selector: Option<LabelSelector>,
    /// Worker threads.
    #[schemars(range(min = 0))]
    pub concurrency: Option<i32>,
    /// Environment variables of the proxy's container.
    #[schemars(transform = value_length)]
    pub environment_variables: BTreeMap<String, String>,
    /// The proxy's image.
    pub image: Option<ProxyImage>,
}

fn value_length(schema: &mut schemars::Schema) {
    if let Some(values) = schema.get_mut("additionalProperties").and_then(serde_json::Value::as_object_mut) {
        values.insert("maxLength".into(), 2048.into());
    }
}

/// The proxy's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyImage {
    /// `default`, `debug` or `distroless`.
    pub image_type: String,
}
