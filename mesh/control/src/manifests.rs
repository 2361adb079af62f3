//! The manifests that install the mesh, on the embedded cluster and on any other.

/// Every manifest in the order in which it is applied: name and YAML, which may hold several documents.
pub fn manifests() -> [(&'static str, &'static str); 8] {
    [
        ("namespace", include_str!("../../../kind-config/mesh/namespace.yaml")),
        ("crds", include_str!("../../../kind-config/mesh/crds.yaml")),
        ("rbac", include_str!("../../../kind-config/mesh/rbac.yaml")),
        ("config", include_str!("../../../kind-config/mesh/config.yaml")),
        ("webhooks", include_str!("../../../kind-config/mesh/webhooks.yaml")),
        ("istiod", include_str!("../../../kind-config/mesh/istiod.yaml")),
        ("ingressgateway", include_str!("../../../kind-config/mesh/ingressgateway.yaml")),
        ("egressgateway", include_str!("../../../kind-config/mesh/egressgateway.yaml")),
    ]
}
