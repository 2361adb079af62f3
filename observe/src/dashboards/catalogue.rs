//! The dashboards, like those Istio brings for Grafana. Titles are names of [`crate::pages::texts`].

/// A dashboard.
pub(super) struct Dashboard {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What it is good for.
    pub(super) about: &'static str,
    /// What can be chosen.
    pub(super) variable: Option<Variable>,
    pub(super) panels: &'static [Panel],
}

/// A label to choose by. In a query, `$filter` is where the choice goes for the called side, `$source` for the calling one.
#[derive(Clone, Copy)]
pub(super) struct Variable {
    pub(super) title: &'static str,
    /// The label's name after `source_` or `destination_`.
    pub(super) label: &'static str,
}

impl Variable {
    /// The label of `side`: `destination` or `source`.
    pub(super) fn label(self, side: &str) -> String {
        format!("{side}_{}", self.label)
    }
}

/// A chart.
pub(super) struct Panel {
    pub(super) title: &'static str,
    /// PromQL.
    pub(super) query: &'static str,
    pub(super) unit: &'static str,
    /// Labels whose values name a line.
    pub(super) legend: &'static [&'static str],
}

const fn panel(title: &'static str, query: &'static str, unit: &'static str, legend: &'static [&'static str]) -> Panel {
    Panel { title, query, unit, legend }
}

/// All of them.
pub(super) const DASHBOARDS: &[Dashboard] = &[
    Dashboard { id: "mesh", title: "mesh", about: "mesh_about", variable: None, panels: MESH },
    Dashboard {
        id: "service",
        title: "service",
        about: "service_about",
        variable: Some(Variable { title: "service", label: "service_name" }),
        panels: SERVICE,
    },
    Dashboard {
        id: "workload",
        title: "workload",
        about: "workload_about",
        variable: Some(Variable { title: "workload", label: "workload" }),
        panels: WORKLOAD,
    },
    Dashboard { id: "performance", title: "performance", about: "performance_about", variable: None, panels: PERFORMANCE },
    Dashboard {
        id: "control-plane",
        title: "control_plane",
        about: "control_plane_about",
        variable: None,
        panels: CONTROL_PLANE,
    },
];

const MESH: &[Panel] = &[
    panel(
        "requests_by_destination",
        "sum by (destination_workload, destination_workload_namespace) (rate(istio_requests_total{reporter=\"destination\"}[1m]))",
        "/s",
        &["destination_workload", "destination_workload_namespace"],
    ),
    panel(
        "success_rate",
        "100 * (sum by (destination_service_name) (rate(istio_requests_total{reporter=\"source\",response_code!~\"5..|0\"}[1m])) or sum by (destination_service_name) (rate(istio_requests_total{reporter=\"source\"}[1m])) * 0) / (sum by (destination_service_name) (rate(istio_requests_total{reporter=\"source\"}[1m])) > 0)",
        "%",
        &["destination_service_name"],
    ),
    panel(
        "responses_by_code",
        "sum by (response_code) (rate(istio_requests_total{reporter=\"source\"}[1m]))",
        "/s",
        &["response_code"],
    ),
    panel(
        "latency_p95",
        "histogram_quantile(0.95, sum by (le, destination_workload) (rate(istio_request_duration_milliseconds_bucket{reporter=\"destination\"}[1m])))",
        "ms",
        &["destination_workload"],
    ),
    panel(
        "mtls_share",
        "100 * (sum by (destination_workload) (rate(istio_requests_total{reporter=\"destination\",connection_security_policy=\"mutual_tls\"}[1m])) or sum by (destination_workload) (rate(istio_requests_total{reporter=\"destination\"}[1m])) * 0) / (sum by (destination_workload) (rate(istio_requests_total{reporter=\"destination\"}[1m])) > 0)",
        "%",
        &["destination_workload"],
    ),
    panel("tcp_sent", "sum by (destination_workload) (rate(istio_tcp_sent_bytes_total[1m]))", "B/s", &["destination_workload"]),
];

const SERVICE: &[Panel] = &[
    panel(
        "requests_by_source",
        "sum by (source_workload) (rate(istio_requests_total{reporter=\"source\"$filter}[1m]))",
        "/s",
        &["source_workload"],
    ),
    panel(
        "responses_by_code",
        "sum by (response_code) (rate(istio_requests_total{reporter=\"source\"$filter}[1m]))",
        "/s",
        &["response_code"],
    ),
    panel(
        "flags",
        "sum by (response_flags) (rate(istio_requests_total{reporter=\"source\"$filter}[1m]))",
        "/s",
        &["response_flags"],
    ),
    panel(
        "versions_compared",
        "sum by (destination_version) (rate(istio_requests_total{reporter=\"source\"$filter}[1m]))",
        "/s",
        &["destination_version"],
    ),
    panel(
        "latency_p50",
        "histogram_quantile(0.5, sum by (le, destination_version) (rate(istio_request_duration_milliseconds_bucket{reporter=\"source\"$filter}[1m])))",
        "ms",
        &["destination_version"],
    ),
    panel(
        "latency_p99",
        "histogram_quantile(0.99, sum by (le, destination_version) (rate(istio_request_duration_milliseconds_bucket{reporter=\"source\"$filter}[1m])))",
        "ms",
        &["destination_version"],
    ),
];

const WORKLOAD: &[Panel] = &[
    panel(
        "inbound",
        "sum by (source_workload, response_code) (rate(istio_requests_total{reporter=\"destination\"$filter}[1m]))",
        "/s",
        &["source_workload", "response_code"],
    ),
    panel(
        "outbound",
        "sum by (source_workload, destination_service_name, response_code) (rate(istio_requests_total{reporter=\"source\"$source}[1m]))",
        "/s",
        &["source_workload", "destination_service_name", "response_code"],
    ),
    panel(
        "latency_p95",
        "histogram_quantile(0.95, sum by (le, source_workload) (rate(istio_request_duration_milliseconds_bucket{reporter=\"destination\"$filter}[1m])))",
        "ms",
        &["source_workload"],
    ),
    panel(
        "request_bytes",
        "sum by (destination_workload) (rate(istio_request_bytes_sum{reporter=\"destination\"$filter}[1m]))",
        "B/s",
        &["destination_workload"],
    ),
    panel(
        "response_bytes",
        "sum by (destination_workload) (rate(istio_response_bytes_sum{reporter=\"destination\"$filter}[1m]))",
        "B/s",
        &["destination_workload"],
    ),
    panel(
        "tcp_received",
        "sum by (destination_workload) (rate(istio_tcp_received_bytes_total{reporter=\"destination\"$filter}[1m]))",
        "B/s",
        &["destination_workload"],
    ),
];

const PERFORMANCE: &[Panel] = &[
    panel(
        "latency_p50",
        "histogram_quantile(0.5, sum by (le, reporter) (rate(istio_request_duration_milliseconds_bucket[1m])))",
        "ms",
        &["reporter"],
    ),
    panel(
        "latency_p99",
        "histogram_quantile(0.99, sum by (le, reporter) (rate(istio_request_duration_milliseconds_bucket[1m])))",
        "ms",
        &["reporter"],
    ),
    panel("connections", "sum by (pod) (envoy_server_total_connections)", "", &["pod"]),
    panel("upstream_active", "sum by (pod) (envoy_cluster_upstream_rq_active)", "", &["pod"]),
    panel("scrape_samples", "scrape_samples_scraped", "", &["pod", "instance"]),
    panel("scrape_time", "scrape_duration_seconds * 1000", "ms", &["pod", "instance"]),
    panel("series", "prometheus_tsdb_head_series", "", &["instance"]),
    panel("spans_stored", "jaeger_spans", "", &["pod"]),
];

const CONTROL_PLANE: &[Panel] = &[
    panel("pushes", "sum by (type) (rate(pilot_xds_pushes[1m]))", "/s", &["type"]),
    panel(
        "convergence",
        "1000 * histogram_quantile(0.95, sum by (le) (rate(pilot_proxy_convergence_time_bucket[30m])))",
        "ms",
        &[],
    ),
    panel("proxies", "sum by (pod) (pilot_xds)", "", &["pod"]),
    panel("rejects", "sum(rate(pilot_total_xds_rejects[1m])) or sum(pilot_info) * 0", "/s", &[]),
    panel("injections", "sum(sidecar_injection_success_total)", "", &[]),
    panel("certificates", "sum(citadel_server_success_cert_issuance_count)", "", &[]),
    panel(
        "validations",
        "sum by (__name__) ({__name__=~\"galley_validation_passed|galley_validation_failed\"})",
        "",
        &["__name__"],
    ),
    panel("resources", "sum by (__name__) ({__name__=~\"pilot_services|pilot_virt_services\"})", "", &["__name__"]),
];
