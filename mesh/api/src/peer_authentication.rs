//! PeerAuthentication: which mutual TLS a workload takes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::LabelSelector;
use crate::schema::rules;

/// Mutual TLS of the selected workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "portLevelMtls needs a selector",
    "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true",
)])))]
pub struct PeerAuthentication {
    /// The workloads; all of the namespace if unset.
    pub selector: Option<LabelSelector>,
    /// The mode.
    pub mtls: Option<MutualTls>,
    /// The mode of single workload ports.
    #[schemars(extend(
        "minProperties" = 1,
        "x-kubernetes-validations" = rules(&[("a port is between 1 and 65535", "self.all(key, 0 < int(key) && int(key) <= 65535)")])
    ))]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// A mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MutualTls {
    /// The mode.
    pub mode: MutualTlsMode,
}

/// What is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// As the wider scope says.
    #[default]
    Unset,
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
