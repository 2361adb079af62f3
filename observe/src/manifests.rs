//! The addons as Kubernetes objects.

/// The name of each addon and its manifest: YAML documents, all in `istio-system`, whose containers have the images
/// `ghcr.io/meshlab/<name>`. They can be applied in any order.
pub fn manifests() -> Vec<(&'static str, &'static str)> {
    vec![
        ("prometheus", include_str!("../../kind-config/addons/prometheus.yaml")),
        ("jaeger", include_str!("../../kind-config/addons/jaeger.yaml")),
        ("grafana", include_str!("../../kind-config/addons/grafana.yaml")),
        ("kiali", include_str!("../../kind-config/addons/kiali.yaml")),
    ]
}
