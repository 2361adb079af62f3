//! Whether a pod is injected at all.

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn semantics_46_the_label_beats_the_annotation_and_host_networks_never() {
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
}
