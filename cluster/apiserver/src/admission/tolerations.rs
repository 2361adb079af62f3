//! Lets a pod stay for a while on a node that is not ready, as `DefaultTolerationSeconds` does.

use serde_json::{Value, json};

/// Kubernetes' default for both taints.
const SECONDS: u32 = 300;

pub(super) fn admit_pod(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |toleration: &Value| {
            let keys = toleration["key"] == key || toleration["key"].as_str().unwrap_or_default().is_empty();
            let effects = matches!(toleration["effect"].as_str(), None | Some("" | "NoExecute"));
            keys && effects
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}
