//! The downward API: what a pod may know about itself. No input or output here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use kube::ResourceExt;

use crate::quantity;

/// What the node gives a container that sets no limits: its own size.
pub(crate) const NODE_CPU: &str = "8";
/// As [`NODE_CPU`].
pub(crate) const NODE_MEMORY: &str = "16Gi";
/// As [`NODE_CPU`].
pub(crate) const NODE_STORAGE: &str = "64Gi";

/// A pod, and what is known of it only on its node.
#[derive(Debug, Clone)]
pub(crate) struct PodFacts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ip: &'a str,
    pub(crate) host_ip: &'a str,
}

/// The value of a field.
///
/// # Errors
/// The field is not one that the downward API knows.
pub(crate) fn field(facts: &PodFacts<'_>, selector: &ObjectFieldSelector) -> Result<String, String> {
    let (pod, path) = (facts.pod, selector.field_path.as_str());
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_owned(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.to_owned(),
        _ => {
            let of = |map: &BTreeMap<String, String>, prefix: &str| {
                let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
                Some(map.get(key).cloned().unwrap_or_default())
            };
            let found = of(pod.labels(), "metadata.labels").or_else(|| of(pod.annotations(), "metadata.annotations"));
            found.ok_or_else(|| format!("unsupported fieldPath: {path}"))?
        }
    })
}

/// `key="value"` lines, sorted, as the downward API writes labels and annotations.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// The value of a container's resource request or limit.
///
/// # Errors
/// The container or the resource does not exist, or a quantity is malformed.
pub(crate) fn resource(pod: &Pod, own: &Container, selector: &ResourceFieldSelector) -> Result<String, String> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match name {
        Some(name) => find(pod, name).ok_or_else(|| format!("container {name} not found"))?,
        None => own,
    };
    let resources = container.resources.clone().unwrap_or_default();
    let (kind, resource) = selector.resource.split_once('.').unwrap_or_default();
    let whole_node = match resource {
        "cpu" => NODE_CPU,
        "memory" => NODE_MEMORY,
        "ephemeral-storage" => NODE_STORAGE,
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let limit = || resources.limits.as_ref().and_then(|limits| limits.get(resource));
    let request = || resources.requests.as_ref().and_then(|requests| requests.get(resource));
    let quantity = match kind {
        "limits" => limit().map_or(whole_node, |quantity| &quantity.0),
        "requests" => request().map_or("0", |quantity| &quantity.0),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map_or("1", |divisor| &divisor.0);
    let divisor = if divisor == "0" { "1" } else { divisor };
    let parse = |text: &str| quantity::milli(text).ok_or_else(|| format!("malformed quantity {text:?}"));
    Ok(quantity::divide(parse(quantity)?, parse(divisor)?).to_string())
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|container| container.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn pod() -> Pod {
        let resources = json!({"limits": {"cpu": "500m", "memory": "128Mi"}});
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "labels": {"app": "web", "tier": "1"}},
            "spec": {"nodeName": "meshlab", "containers": [{"name": "web", "resources": resources}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_by_their_paths() {
        let pod = pod();
        let facts = PodFacts { pod: &pod, pod_ip: "10.244.0.5", host_ip: "10.244.0.1" };
        let get = |path: &str| field(&facts, &ObjectFieldSelector { field_path: path.into(), api_version: None });
        assert_eq!(get("metadata.labels['tier']").unwrap(), "1");
        assert_eq!(get("metadata.labels").unwrap(), "app=\"web\"\ntier=\"1\"");
        assert_eq!(get("status.podIP").unwrap(), "10.244.0.5");
        assert_eq!(get("spec.replicas").unwrap_err(), "unsupported fieldPath: spec.replicas");
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod();
        let own = &pod.spec.as_ref().unwrap().containers[0];
        let get = |name: &str, divisor: &str| {
            let divisor = Some(Quantity(divisor.into()));
            resource(&pod, own, &ResourceFieldSelector { container_name: None, divisor, resource: name.into() }).unwrap()
        };
        assert_eq!(get("limits.cpu", "1"), "1");
        assert_eq!(get("limits.cpu", "1m"), "500");
        assert_eq!(get("limits.memory", "1Mi"), "128");
        assert_eq!(get("requests.cpu", "1m"), "0");
    }
}
