//! EnvoyFilter and WasmPlugin: accepted, kept, and without effect on a proxy that is not Envoy.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// Patches to Envoy's configuration; they have no effect here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct EnvoyFilter {
    /// Kept as it is.
    #[serde(flatten)]
    #[schemars(skip)]
    pub fields: BTreeMap<String, Value>,
}

/// A WebAssembly extension of Envoy; it has no effect here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["url"], "x-kubernetes-preserve-unknown-fields" = true))]
pub struct WasmPlugin {
    /// Where the module is.
    #[schemars(length(min = 1))]
    pub url: String,
    /// Kept as it is.
    #[serde(flatten)]
    #[schemars(skip)]
    pub fields: BTreeMap<String, Value>,
}
