//! A container's environment, from all the sources Kubernetes has. No input or output here.

mod expansion;
mod fields;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Secret, Service};
use kube::ResourceExt;
use thiserror::Error;

pub(crate) use expansion::expand;
pub(crate) use fields::{NODE_CPU, NODE_MEMORY, NODE_STORAGE, PodFacts, field, resource};

/// Where environments and volumes take their content from: the objects of the pod's namespace.
pub(crate) trait Objects {
    /// A ConfigMap.
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>>;
    /// A Secret.
    fn secret(&self, name: &str) -> Option<Arc<Secret>>;
}

/// Why a container's configuration cannot be made. The words are the kubelet's.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ConfigError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("{0}")]
    Field(String),
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    RunsAsRoot { pod: String, container: String },
    #[error("no command specified")]
    NoCommand,
    #[error("failed to prepare {path} of container {container}: {reason}")]
    Mount { container: String, path: String, reason: String },
}

/// The environment of `container` in the pod of `facts`, laid over the image's own (`base`). `services` are those whose links
/// the pod wants to see.
///
/// # Errors
/// A source that is not optional is missing.
pub(crate) fn environment(
    base: &BTreeMap<String, String>,
    container: &Container,
    facts: &PodFacts<'_>,
    objects: &impl Objects,
    service_list: &[Arc<Service>],
) -> Result<BTreeMap<String, String>, ConfigError> {
    let links: BTreeMap<String, String> = service_list.iter().flat_map(|service| services::variables(service)).collect();
    let mut set = from_sources(container, objects)?;
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => match value_from(source, container, facts, objects)? {
                Some(value) => value,
                None => continue,
            },
            None => {
                let text = variable.value.as_deref().unwrap_or_default();
                expand(text, |name| set.get(name).or_else(|| links.get(name)).cloned())
            }
        };
        set.insert(variable.name.clone(), value);
    }
    let mut environment = base.clone();
    environment.extend(links);
    environment.extend(set);
    Ok(environment)
}

fn from_sources(container: &Container, objects: &impl Objects) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut set = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match objects.config_map(&reference.name) {
                Some(map) => {
                    let data = map.data.clone().unwrap_or_default();
                    set.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError::NoConfigMap(reference.name.clone())),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match objects.secret(&reference.name) {
                Some(secret) => {
                    let data = secret.data.clone().unwrap_or_default();
                    set.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), text(&value))));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError::NoSecret(reference.name.clone())),
            }
        }
    }
    set.retain(|name, _| !name.is_empty() && !name.contains('='));
    Ok(set)
}

fn text(bytes: &ByteString) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

fn value_from(
    source: &EnvVarSource,
    container: &Container,
    facts: &PodFacts<'_>,
    objects: &impl Objects,
) -> Result<Option<String>, ConfigError> {
    let namespace = || facts.pod.namespace().unwrap_or_default();
    let no_key = |kind, name: &str, key: &str| ConfigError::NoKey {
        kind,
        namespace: namespace(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(selector) = &source.field_ref {
        return field(facts, selector).map(Some).map_err(ConfigError::Field);
    }
    if let Some(selector) = &source.resource_field_ref {
        return resource(facts.pod, container, selector).map(Some).map_err(ConfigError::Field);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        return match objects.config_map(&selector.name) {
            None if optional => Ok(None),
            None => Err(ConfigError::NoConfigMap(selector.name.clone())),
            Some(map) => match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(no_key("ConfigMap", &selector.name, &selector.key)),
            },
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        return match objects.secret(&selector.name) {
            None if optional => Ok(None),
            None => Err(ConfigError::NoSecret(selector.name.clone())),
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(&selector.key)) {
                Some(value) => Ok(Some(text(value))),
                None if optional => Ok(None),
                None => Err(no_key("Secret", &selector.name, &selector.key)),
            },
        };
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    pub(crate) struct Fixed {
        pub(crate) config_maps: Value,
        pub(crate) secrets: Value,
    }

    impl Objects for Fixed {
        fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
            self.config_maps.get(name).map(|data| Arc::new(serde_json::from_value(json!({"data": data})).unwrap()))
        }
        fn secret(&self, name: &str) -> Option<Arc<Secret>> {
            self.secrets.get(name).map(|data| Arc::new(serde_json::from_value(json!({"data": data})).unwrap()))
        }
    }

    fn environment_of(container: Value) -> Result<BTreeMap<String, String>, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns"}})).unwrap();
        let facts = PodFacts { pod: &pod, pod_ip: "10.244.0.5", host_ip: "10.244.0.1" };
        let objects = Fixed { config_maps: json!({"cm": {"a": "1", "b": "2"}}), secrets: json!({"s": {"token": "c2VjcmV0"}}) };
        let service: Service = serde_json::from_value(
            json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 5432}]}}),
        )
        .unwrap();
        let base = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        let mut container = container;
        container["name"] = json!("web");
        let container = serde_json::from_value(container).unwrap();
        environment(&base, &container, &facts, &objects, &[Arc::new(service)])
    }

    #[test]
    fn all_sources_are_laid_over_each_other() {
        let environment = environment_of(json!({
            "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
            "env": [
                {"name": "A", "value": "$(CM_a)-$(DB_SERVICE_PORT)-$(NOPE)"},
                {"name": "B", "value": "$(A)!"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
                {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y", "optional": true}}},
                {"name": "CM_b", "value": "mine"},
            ],
        }))
        .unwrap();
        let shown = |name: &str| environment.get(name).map(String::as_str);
        assert_eq!(shown("A"), Some("1-5432-$(NOPE)"));
        assert_eq!(shown("B"), Some("1-5432-$(NOPE)!"));
        assert_eq!((shown("IP"), shown("KEY"), shown("token")), (Some("10.244.0.5"), Some("secret"), Some("secret")));
        assert_eq!((shown("GONE"), shown("CM_b"), shown("PATH")), (None, Some("mine"), Some("/bin")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |container| environment_of(container).unwrap_err().to_string();
        let key = json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z"}}}]});
        assert_eq!(error(key), "couldn't find key z in ConfigMap ns/cm");
        assert_eq!(error(json!({"envFrom": [{"secretRef": {"name": "none"}}]})), "secret \"none\" not found");
    }
}
