//! Whether a pod is injected at all.

use serde_json::Value;

use super::pod::Pod;

/// Namespaces of Kubernetes itself are left alone.
const IGNORED_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// The webhook's selectors have already chosen by namespace; this is the pod's own say. The label beats the annotation, and
/// a value that is neither yes nor empty is a no.
pub(crate) fn wants_injection(pod: Pod<'_>, namespace: &str) -> bool {
    // A host network's traffic is not the pod's to redirect.
    if pod.0["spec"]["hostNetwork"] == true || IGNORED_NAMESPACES.contains(&namespace) {
        return false;
    }
    const NAME: &str = "sidecar.istio.io/inject";
    let said = pod.label(NAME).or_else(|| pod.annotation(NAME)).unwrap_or_default();
    matches!(said.to_lowercase().as_str(), "" | "y" | "yes" | "true" | "on")
}

/// Whether a node runs native sidecars reliably: Kubernetes does from 1.33 on.
pub(crate) fn runs_native_sidecars(node: &Value) -> bool {
    let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (1, 33))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fact_46_the_label_beats_the_annotation_and_host_networks_never() {
        let pod = |label: Option<&str>, annotation: Option<&str>, host_network: bool| {
            let mut metadata = json!({"labels": {}, "annotations": {}});
            if let Some(label) = label {
                metadata["labels"]["sidecar.istio.io/inject"] = label.into();
            }
            if let Some(annotation) = annotation {
                metadata["annotations"]["sidecar.istio.io/inject"] = annotation.into();
            }
            wants_injection(Pod(&json!({"metadata": metadata, "spec": {"hostNetwork": host_network}})), "default")
        };
        assert!(pod(None, None, false));
        assert!(!pod(None, None, true));
        assert!(!pod(Some("true"), None, true));
        assert!(!pod(None, Some("false"), false));
        assert!(pod(Some("true"), Some("false"), false));
        assert!(!pod(Some("false"), Some("true"), false));
        assert!(!pod(Some("maybe"), None, false));
        assert!(!wants_injection(Pod(&json!({})), "kube-system"));
    }
    #[test]
    fn fact_46_native_sidecars_are_automatic_where_kubernetes_runs_them() {
        let node = |version: &str| json!({"status": {"nodeInfo": {"kubeletVersion": version}}});
        for version in ["v1.33.0", "v1.34.1-gke.100", "v2.0.0"] {
            assert!(runs_native_sidecars(&node(version)), "{version}");
        }
        for version in ["v1.32.9", "v1.29.0", "", "unknown"] {
            assert!(!runs_native_sidecars(&node(version)), "{version}");
        }
    }

    /// The webhooks that a namespace's and a pod's labels choose, as Kubernetes evaluates their selectors.
    fn chosen(namespace: &[(&str, &str)], pod: &[(&str, &str)]) -> Vec<String> {
        let manifest = include_str!("../../../../kind-config/mesh/webhooks.yaml");
        let objects: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
        let mutating = objects.iter().find(|object| object["kind"] == "MutatingWebhookConfiguration").unwrap();
        let selected = |selector: &Value, labels: &[(&str, &str)]| {
            selector["matchExpressions"].as_array().unwrap().iter().all(|expression| {
                let value = labels.iter().find(|(name, _)| expression["key"] == *name).map(|(_, value)| *value);
                let listed = expression["values"].as_array().into_iter().flatten().any(|listed| listed.as_str() == value);
                match expression["operator"].as_str().unwrap() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "DoesNotExist" => value.is_none(),
                    other => panic!("{other}"),
                }
            })
        };
        let webhooks = mutating["webhooks"].as_array().unwrap();
        assert!(webhooks.iter().all(|webhook| webhook["failurePolicy"] == "Fail"));
        let called = webhooks
            .iter()
            .filter(|webhook| selected(&webhook["namespaceSelector"], namespace) && selected(&webhook["objectSelector"], pod));
        called.map(|webhook| webhook["name"].as_str().unwrap().split('.').take(2).collect::<Vec<_>>().join(".")).collect()
    }

    #[test]
    fn fact_46_the_labels_choose_one_webhook_or_none() {
        let enabled = ("istio-injection", "enabled");
        let revision = ("istio.io/rev", "default");
        let (yes, no) = (("sidecar.istio.io/inject", "true"), ("sidecar.istio.io/inject", "false"));
        for (namespace, pod, webhook) in [
            (vec![], vec![], None),
            (vec![enabled], vec![], Some("namespace.sidecar-injector")),
            (vec![enabled], vec![no], None),
            (vec![("istio-injection", "disabled")], vec![yes], None),
            (vec![revision], vec![], Some("rev.namespace")),
            (vec![("istio.io/rev", "canary")], vec![], None),
            // istio-injection wins over istio.io/rev.
            (vec![enabled, ("istio.io/rev", "canary")], vec![], Some("namespace.sidecar-injector")),
            (vec![("istio-injection", "disabled"), revision], vec![], None),
            (vec![], vec![yes], Some("object.sidecar-injector")),
            (vec![], vec![revision], Some("rev.object")),
            (vec![], vec![revision, no], None),
        ] {
            assert_eq!(chosen(&namespace, &pod), webhook.into_iter().collect::<Vec<_>>(), "{namespace:?} {pod:?}");
        }
    }
}
