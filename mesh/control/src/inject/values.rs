//! What an installation chooses about injected containers: the `values` of ConfigMap `istio-sidecar-injector`, in Istio's form.

use serde_json::{Value, json};

/// Installation values, with Istio's defaults (those of its demo profile for resources) under what the operator set.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Value);

impl Default for Values {
    fn default() -> Self {
        Self(json!({
            "global": {
                "hub": "ghcr.io/meshlab",
                "tag": "latest",
                "imagePullPolicy": "",
                "istioNamespace": "istio-system",
                "caAddress": "",
                "network": "",
                "logging": { "level": "default:info" },
                "multiCluster": { "clusterName": "Kubernetes" },
                "proxy": {
                    "image": "proxyv2",
                    "clusterDomain": "cluster.local",
                    "logLevel": "warning",
                    "componentLogLevel": "misc:error",
                    "privileged": false,
                    "statusPort": 15020,
                    "holdApplicationUntilProxyStarts": false,
                    "includeIPRanges": "*",
                    "excludeIPRanges": "",
                    "includeInboundPorts": "*",
                    "excludeInboundPorts": "",
                    "includeOutboundPorts": "",
                    "excludeOutboundPorts": "",
                    "readinessInitialDelaySeconds": 0,
                    "readinessPeriodSeconds": 15,
                    "readinessFailureThreshold": 4,
                    "startupProbe": { "enabled": true, "failureThreshold": 600 },
                    "resources": {
                        "requests": { "cpu": "10m", "memory": "40Mi" },
                        "limits": { "cpu": "2", "memory": "1Gi" },
                    },
                },
                "proxy_init": { "image": "proxyv2" },
            },
            "sidecarInjectorWebhook": { "rewriteAppHTTPProbe": true },
        }))
    }
}

impl Values {
    /// Lays the operator's values (JSON) over the defaults.
    ///
    /// # Errors
    /// It is not a JSON object.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let set: serde_json::Map<String, Value> = serde_json::from_str(text)?;
        let mut values = Self::default();
        super::merge::lay_over(&mut values.0, &Value::Object(set));
        Ok(values)
    }

    /// A value by JSON pointer below `/global`; null where there is none.
    pub fn global(&self, pointer: &str) -> &Value {
        self.0.pointer(&format!("/global{pointer}")).unwrap_or(&Value::Null)
    }

    /// A text, number or flag below `/global`, as text.
    pub fn text(&self, pointer: &str) -> String {
        match self.global(pointer) {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    /// Whether probes are rewritten where a pod does not say.
    pub fn rewrite_probes(&self) -> bool {
        self.0.pointer("/sidecarInjectorWebhook/rewriteAppHTTPProbe").and_then(Value::as_bool).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_values_lie_over_the_defaults() {
        let values = Values::parse(r#"{"global": {"tag": "1.2", "proxy": {"readinessPeriodSeconds": 1}}}"#).unwrap();
        assert_eq!(values.text("/tag"), "1.2");
        assert_eq!(values.text("/proxy/readinessPeriodSeconds"), "1");
        assert_eq!(values.text("/hub"), "ghcr.io/meshlab");
    }
}
