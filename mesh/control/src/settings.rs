//! The operator's settings: ConfigMap `istio` (mesh configuration) and ConfigMap `istio-sidecar-injector` (installation values).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher;
use meshlab_compile::MeshConfig;
use meshlab_proxy_config::Log;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::inject::{Values, merge};
use crate::options::Options;
use crate::watch::{Change, watch};

const MESH: &str = "istio";
const INJECTOR: &str = "istio-sidecar-injector";

/// All settings, the defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Mesh configuration as it was written, with defaults.
    pub(crate) mesh: Value,
    /// The same, for the compiler.
    pub(crate) mesh_config: Arc<MeshConfig>,
    /// Installation values.
    pub(crate) values: Values,
}

impl Settings {
    /// What holds when nothing is set.
    pub(crate) fn defaults(options: &Options) -> Self {
        let mut mesh = json!({
            "trustDomain": "cluster.local",
            "rootNamespace": options.namespace,
            "defaultConfig": { "discoveryAddress": format!("istiod.{}.svc:15012", options.namespace) },
        });
        if let Some(percent) = options.trace_sampling.as_ref().and_then(|percent| percent.parse::<f64>().ok()) {
            mesh["defaultConfig"]["tracing"] = json!({ "sampling": percent });
        }
        mesh["domainSuffix"] = options.domain.clone().into();
        let mesh_config = Arc::new(serde_json::from_value(mesh.clone()).unwrap_or_default());
        Self { mesh, mesh_config, values: Values::default() }
    }

    /// With what the ConfigMaps say on top; what cannot be read is an error, and the caller keeps what it has.
    fn with(&self, maps: &BTreeMap<String, ConfigMap>) -> Result<Self, String> {
        let text = |map: &str, key: &str| maps.get(map)?.data.as_ref()?.get(key).cloned();
        let mut settings = self.clone();
        if let Some(text) = text(MESH, "mesh") {
            let set: Value = serde_saphyr::from_str(&text).map_err(|error| format!("ConfigMap {MESH}, key mesh: {error}"))?;
            merge::lay_over(&mut settings.mesh, &set);
            let parsed = serde_json::from_value(settings.mesh.clone());
            settings.mesh_config = Arc::new(parsed.map_err(|error| format!("ConfigMap {MESH}, key mesh: {error}"))?);
        }
        if let Some(text) = text(INJECTOR, "values") {
            settings.values = Values::parse(&text).map_err(|error| format!("ConfigMap {INJECTOR}, key values: {error}"))?;
        }
        Ok(settings)
    }

    /// The mesh's trust domain.
    pub(crate) fn trust_domain(&self) -> &str {
        &self.mesh_config.trust_domain
    }
}

/// Reads the settings once.
pub(crate) async fn load(client: &kube::Client, options: &Options, log: &Log) -> Settings {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &options.namespace);
    let (mesh, injector) = tokio::join!(api.get_opt(MESH), api.get_opt(INJECTOR));
    let mut maps = BTreeMap::new();
    for (name, map) in [(MESH, mesh), (INJECTOR, injector)] {
        match map {
            Ok(Some(map)) => drop(maps.insert(name.to_owned(), map)),
            Ok(None) => log.info("mesh", format_args!("no ConfigMap {name} in {}; using defaults", options.namespace)),
            Err(error) => log.error("mesh", format_args!("cannot read ConfigMap {name}: {error}; using defaults")),
        }
    }
    let defaults = Settings::defaults(options);
    defaults.with(&maps).unwrap_or_else(|error| {
        log.error("mesh", format_args!("{error}; using defaults"));
        defaults
    })
}

/// Follows the ConfigMaps and publishes every readable state of them.
pub(crate) async fn follow(client: kube::Client, options: &Options, log: Log, settings: watch::Sender<Settings>) {
    let api: Api<ConfigMap> = Api::namespaced(client, &options.namespace);
    let defaults = Settings::defaults(options);
    let mut maps = BTreeMap::new();
    let errors = log.clone();
    watch(api, watcher::Config::default(), log, move |change| {
        let ours = |map: &ConfigMap| [MESH, INJECTOR].contains(&map.name_any().as_str());
        match change {
            Change::All(all) => maps = all.into_iter().filter(ours).map(|map| (map.name_any(), map)).collect(),
            Change::Applied(map) if ours(&map) => drop(maps.insert(map.name_any(), map)),
            Change::Deleted(map) if ours(&map) => drop(maps.remove(&map.name_any())),
            Change::Applied(_) | Change::Deleted(_) => return,
        }
        match defaults.with(&maps) {
            Ok(new) => {
                settings.send_if_modified(|had| {
                    let changed = had.mesh != new.mesh || had.values != new.values;
                    *had = new;
                    changed
                });
            }
            Err(error) => errors.error("mesh", format_args!("{error}; the last good settings stay in effect")),
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(key: &str, text: &str) -> ConfigMap {
        ConfigMap { data: Some([(key.to_owned(), text.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn mesh_configuration_lies_over_the_defaults() {
        let defaults = Settings::defaults(&Options::parse(&[], &BTreeMap::new()).unwrap());
        let maps = BTreeMap::from([(MESH.to_owned(), map("mesh", "accessLogFile: /dev/stdout\ntrustDomain: example.org\n"))]);
        let settings = defaults.with(&maps).unwrap();
        assert_eq!(settings.trust_domain(), "example.org");
        assert_eq!(settings.mesh_config.access_log_file, "/dev/stdout");
        assert_eq!(settings.mesh["rootNamespace"], "istio-system");
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let defaults = Settings::defaults(&Options::parse(&[], &BTreeMap::new()).unwrap());
        let maps = BTreeMap::from([(MESH.to_owned(), map("mesh", "accessLogFile: [1"))]);
        assert!(defaults.with(&maps).unwrap_err().contains("ConfigMap istio, key mesh"));
    }
}
