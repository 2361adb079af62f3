//! The manifests that install the mesh, on the embedded cluster and on any other.

/// A static, so that the text is in the program once: a function that is this small is compiled, with its constants, in every crate that
/// calls it.
static MANIFESTS: [(&str, &str); 8] = [
    ("namespace", include_str!("../../../kind-config/mesh/namespace.yaml")),
    ("crds", include_str!("../../../kind-config/mesh/crds.yaml")),
    ("rbac", include_str!("../../../kind-config/mesh/rbac.yaml")),
    ("config", include_str!("../../../kind-config/mesh/config.yaml")),
    ("webhooks", include_str!("../../../kind-config/mesh/webhooks.yaml")),
    ("istiod", include_str!("../../../kind-config/mesh/istiod.yaml")),
    ("ingressgateway", include_str!("../../../kind-config/mesh/ingressgateway.yaml")),
    ("egressgateway", include_str!("../../../kind-config/mesh/egressgateway.yaml")),
];

/// Every manifest in the order in which it is applied: name and YAML, which may hold several documents.
pub fn manifests() -> [(&'static str, &'static str); 8] {
    MANIFESTS
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::inventory::Followed;

    fn objects() -> Vec<Value> {
        let documents = manifests().into_iter().filter(|(name, _)| *name != "crds").flat_map(|(_, yaml)| yaml.split("\n---\n"));
        documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect()
    }

    fn find(kind: &str, name: &str) -> Value {
        let found = objects().into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    fn lists(list: &Value, wanted: &str) -> bool {
        list.as_array().unwrap().iter().any(|item| item == wanted || item == "*")
    }

    #[test]
    fn istiods_role_lets_it_follow_all_it_follows() {
        let role = find("ClusterRole", "istiod-clusterrole-istio-system");
        for followed in Followed::all() {
            let resource = followed.resource();
            for verb in ["list", "watch"] {
                let allowed = role["rules"].as_array().unwrap().iter().any(|rule| {
                    lists(&rule["apiGroups"], &resource.group)
                        && lists(&rule["resources"], &resource.plural)
                        && lists(&rule["verbs"], verb)
                });
                assert!(allowed, "{verb} {}", resource.plural);
            }
            if followed.is_istio() {
                let status = format!("{}/status", resource.plural);
                let allowed = role["rules"].as_array().unwrap().iter().any(|rule| {
                    lists(&rule["apiGroups"], &resource.group)
                        && rule["resources"].as_array().unwrap().iter().any(|name| *name == status)
                        && lists(&rule["verbs"], "patch")
                });
                assert!(allowed, "patch {status}");
            }
        }
    }

    #[test]
    fn gateways_are_what_gateway_resources_select() {
        for (name, label) in [("istio-ingressgateway", "ingressgateway"), ("istio-egressgateway", "egressgateway")] {
            let (deployment, service) = (find("Deployment", name), find("Service", name));
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            assert_eq!(labels["istio"], label);
            for (key, value) in service["spec"]["selector"].as_object().unwrap() {
                assert_eq!(labels[key], *value);
            }
        }
    }
}
