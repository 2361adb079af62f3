//! Telemetry resources and mesh settings merged for one proxy: the mesh's, then the namespace's, then the workload's.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshlab_istio_api::{
    AccessLogging, ModeSelector, Object, ProviderRef, TagOperation, Telemetry, Tracing as ApiTracing, WorkloadMode,
};
use meshlab_proxy_config::{
    AccessLog, CustomTag, Fraction, LogFormat, MetricOverride, SpanExporter, TelemetryConfig, Tracing, WorkloadLabels,
};

use crate::cluster::cluster_name;
use crate::mesh_config::{ExtensionProvider, MeshConfig};
use crate::proxy::ProxyIdentity;
use crate::security::authorization::provider_host;
use crate::security::selection::{has_selector, select};
use crate::snapshot::Snapshot;

/// Istio's access log line.
const TEXT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% \
%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's access log fields.
const JSON_FORMAT: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// Istio's share of requests traced.
const DEFAULT_SAMPLING_PERCENT: f64 = 1.0;
/// The provider that is always there.
const BUILT_IN_LOG: &str = "envoy";

/// What a proxy measures, traces and logs.
pub(crate) fn telemetry(snapshot: &Snapshot, proxy: &ProxyIdentity) -> TelemetryConfig {
    let sources = snapshot.sources();
    let resources = applicable(snapshot, proxy);
    TelemetryConfig {
        workload: workload_labels(proxy, &sources.mesh),
        metrics: resources.iter().flat_map(|resource| metrics(&resource.spec)).collect(),
        tracing: tracing(&resources, snapshot, proxy),
        access_logs: access_logs(&resources, &sources.mesh),
    }
}

/// One resource for each scope, the oldest: mesh, namespace, workload.
fn applicable<'a>(snapshot: &'a Snapshot, proxy: &ProxyIdentity) -> Vec<&'a Arc<Object<Telemetry>>> {
    let sources = snapshot.sources();
    let root = &sources.mesh.root_namespace;
    let selected = select(&sources.telemetries, proxy, root);
    let find = |namespace: &str, selector: bool| {
        selected.iter().find(|resource| resource.meta.namespace == namespace && has_selector(&resource.spec) == selector).copied()
    };
    let own = (proxy.namespace != *root).then(|| find(&proxy.namespace, false)).flatten();
    [find(root, false), own, find(&proxy.namespace, true)].into_iter().flatten().collect()
}

fn workload_labels(proxy: &ProxyIdentity, mesh: &MeshConfig) -> WorkloadLabels {
    let label = |keys: &[&str]| keys.iter().find_map(|key| proxy.labels.get(*key)).filter(|value| !value.is_empty()).cloned();
    let unknown = || "unknown".to_owned();
    WorkloadLabels {
        workload: if proxy.workload.is_empty() { unknown() } else { proxy.workload.clone() },
        namespace: proxy.namespace.clone(),
        app: label(&["app"]).unwrap_or_else(unknown),
        version: label(&["version"]).unwrap_or_else(unknown),
        canonical_service: label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
            .unwrap_or_else(|| if proxy.workload.is_empty() { unknown() } else { proxy.workload.clone() }),
        canonical_revision: label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
            .unwrap_or_else(|| "latest".to_owned()),
        cluster: "Kubernetes".into(),
        principal: proxy.spiffe(&mesh.trust_domain),
    }
}

/// `None`: both sides.
fn client_side(mode: WorkloadMode) -> Option<bool> {
    match mode {
        WorkloadMode::ClientAndServer => None,
        WorkloadMode::Client => Some(true),
        WorkloadMode::Server => Some(false),
    }
}

fn metrics(telemetry: &Telemetry) -> Vec<MetricOverride> {
    let overrides = telemetry.metrics.iter().flat_map(|metrics| &metrics.overrides);
    overrides
        .map(|change| {
            let selector = change.r#match.clone().unwrap_or_default();
            let tags = change.tag_overrides.iter().map(|(tag, change)| {
                let value = (change.operation == TagOperation::Upsert).then(|| change.value.clone());
                (tag.clone(), value)
            });
            MetricOverride {
                metric: selector.custom_metric.unwrap_or_else(|| selector.metric.unwrap_or_default().name().to_owned()),
                client: client_side(selector.mode),
                disabled: change.disabled.unwrap_or(false),
                tags: tags.collect(),
            }
        })
        .collect()
}

fn tracing(resources: &[&Arc<Object<Telemetry>>], snapshot: &Snapshot, proxy: &ProxyIdentity) -> Option<Tracing> {
    let mesh = &snapshot.sources().mesh;
    let mut provider = mesh.default_providers.tracing.first().map(String::as_str);
    let mut disabled = false;
    let mut sampling = mesh.default_config.tracing.sampling;
    let mut custom_tags = &BTreeMap::new();
    let entries: Vec<&ApiTracing> = resources.iter().flat_map(|resource| &resource.spec.tracing).collect();
    for entry in &entries {
        provider = entry.providers.first().map(|provider| provider.name.as_str()).or(provider);
        disabled = entry.disable_span_reporting.unwrap_or(disabled);
        sampling = entry.random_sampling_percentage.or(sampling);
        if !entry.custom_tags.is_empty() {
            custom_tags = &entry.custom_tags;
        }
    }
    if disabled {
        return None;
    }
    let (cluster, exporter) = match provider {
        Some(name) => {
            receiver(mesh.extension_providers.iter().find(|provider| provider.name == name)?, snapshot, &proxy.namespace)?
        }
        // Without the Telemetry API the tracer of `defaultConfig` is used.
        None if mesh.enable_tracing => {
            let address = &mesh.default_config.tracing.zipkin.as_ref()?.address;
            let (host, port) = address.rsplit_once(':')?;
            (cluster_name(port.parse().ok()?, "", &provider_host(host, snapshot, &proxy.namespace)), SpanExporter::Zipkin)
        }
        None => return None,
    };
    Some(Tracing {
        sampling: Fraction::from_percent(sampling.unwrap_or(DEFAULT_SAMPLING_PERCENT)),
        cluster,
        exporter,
        service_name: service_name(proxy),
        custom_tags: custom_tags.iter().filter_map(|(name, tag)| Some((name.clone(), custom_tag(tag)?))).collect(),
    })
}

fn receiver(provider: &ExtensionProvider, snapshot: &Snapshot, namespace: &str) -> Option<(String, SpanExporter)> {
    let (settings, exporter) = match (&provider.zipkin, &provider.opentelemetry) {
        (Some(zipkin), _) => (zipkin, SpanExporter::Zipkin),
        (None, Some(otlp)) if otlp.http.is_some() => (otlp, SpanExporter::OtlpHttp),
        (None, Some(otlp)) => (otlp, SpanExporter::OtlpGrpc),
        (None, None) => return None,
    };
    Some((cluster_name(settings.port, "", &provider_host(&settings.service, snapshot, namespace)), exporter))
}

/// `app.namespace`
fn service_name(proxy: &ProxyIdentity) -> String {
    let app = proxy.labels.get("app").filter(|app| !app.is_empty()).map_or("istio-proxy", String::as_str);
    format!("{app}.{}", proxy.namespace)
}

fn custom_tag(tag: &meshlab_istio_api::CustomTag) -> Option<CustomTag> {
    if let Some(literal) = &tag.literal {
        return Some(CustomTag::Literal(literal.value.clone()));
    }
    if let Some(source) = &tag.environment {
        return Some(CustomTag::Environment { name: source.name.clone(), default: source.default_value.clone() });
    }
    let source = tag.header.as_ref()?;
    Some(CustomTag::Header { name: source.name.to_ascii_lowercase(), default: source.default_value.clone() })
}

fn access_logs(resources: &[&Arc<Object<Telemetry>>], mesh: &MeshConfig) -> Vec<AccessLog> {
    let entries: Vec<&AccessLogging> = resources.iter().flat_map(|resource| &resource.spec.access_logging).collect();
    if entries.is_empty() {
        let defaults = mesh.default_providers.access_logging.iter().filter_map(|name| log(name, None, None, mesh));
        let file =
            (!mesh.access_log_file.is_empty()).then(|| AccessLog { format: mesh_format(mesh), filter: None, client: None });
        return defaults.chain(file).collect();
    }
    let client = providers_of(&entries, WorkloadMode::Client, mesh);
    let server = providers_of(&entries, WorkloadMode::Server, mesh);
    if client == server {
        return client.iter().filter_map(|(name, filter)| log(name, filter.clone(), None, mesh)).collect();
    }
    let side = |list: &BTreeMap<String, Option<String>>, client: bool| {
        list.iter().filter_map(|(name, filter)| log(name, filter.clone(), Some(client), mesh)).collect::<Vec<_>>()
    };
    let mut out = side(&client, true);
    out.extend(side(&server, false));
    out
}

/// The providers that log on one side, with their filters. The last entry that names providers decides which; the others only say
/// whether those log.
fn providers_of(entries: &[&AccessLogging], mode: WorkloadMode, mesh: &MeshConfig) -> BTreeMap<String, Option<String>> {
    let names = |providers: &[ProviderRef]| providers.iter().map(|provider| provider.name.clone()).collect::<Vec<_>>();
    let mut inherited = mesh.default_providers.access_logging.clone();
    if inherited.is_empty() {
        inherited.push(BUILT_IN_LOG.to_owned());
    }
    let in_scope = entries
        .iter()
        .rev()
        .find(|entry| !entry.providers.is_empty())
        .map_or_else(|| inherited.clone(), |entry| names(&entry.providers));
    let mut out = BTreeMap::new();
    for entry in entries {
        if !entry.providers.is_empty() {
            inherited = names(&entry.providers);
        }
        let wanted = entry.r#match.unwrap_or(ModeSelector::default()).mode;
        if wanted != WorkloadMode::ClientAndServer && wanted != mode {
            continue;
        }
        for name in inherited.iter().filter(|name| in_scope.contains(name)) {
            if entry.disabled == Some(true) {
                out.remove(name);
            } else {
                let filter =
                    entry.filter.as_ref().map(|filter| filter.expression.clone()).filter(|expression| !expression.is_empty());
                let known = out.entry(name.clone()).or_insert(None);
                *known = filter.or(known.take());
            }
        }
    }
    out
}

/// A log, if its provider is one that proxies here can write to.
fn log(name: &str, filter: Option<String>, client: Option<bool>, mesh: &MeshConfig) -> Option<AccessLog> {
    let format = match mesh.extension_providers.iter().find(|provider| provider.name == name) {
        Some(provider) => {
            let file = provider.envoy_file_access_log.as_ref()?;
            match &file.log_format {
                Some(format) => match (&format.text, &format.labels) {
                    (Some(text), _) => LogFormat::Text(with_newline(text)),
                    (None, Some(labels)) => LogFormat::Json(labels.clone()),
                    (None, None) => mesh_format(mesh),
                },
                None => mesh_format(mesh),
            }
        }
        None if name == BUILT_IN_LOG => mesh_format(mesh),
        None => return None,
    };
    Some(AccessLog { format, filter, client })
}

/// The mesh's own format.
fn mesh_format(mesh: &MeshConfig) -> LogFormat {
    let json = mesh.access_log_encoding == "JSON";
    match (json, mesh.access_log_format.as_str()) {
        (false, "") => LogFormat::Text(TEXT_FORMAT.to_owned()),
        (false, format) => LogFormat::Text(with_newline(format)),
        (true, format) => {
            let own = serde_json::from_str(format).ok();
            LogFormat::Json(
                own.unwrap_or_else(|| JSON_FORMAT.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            )
        }
    }
}

fn with_newline(format: &str) -> String {
    if format.ends_with('\n') { format.to_owned() } else { format!("{format}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://istio.io/latest/docs/tasks/observability/logs/access-log/#default-access-log-format>
    #[test]
    fn logs_are_written_as_istio_documents_them() {
        insta::assert_snapshot!(TEXT_FORMAT.replace(' ', "\n"), @r#"
        [%START_TIME%]
        "%REQ(:METHOD)%
        %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%
        %PROTOCOL%"
        %RESPONSE_CODE%
        %RESPONSE_FLAGS%
        %RESPONSE_CODE_DETAILS%
        %CONNECTION_TERMINATION_DETAILS%
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%"
        %BYTES_RECEIVED%
        %BYTES_SENT%
        %DURATION%
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%
        "%REQ(X-FORWARDED-FOR)%"
        "%REQ(USER-AGENT)%"
        "%REQ(X-REQUEST-ID)%"
        "%REQ(:AUTHORITY)%"
        "%UPSTREAM_HOST%"
        %UPSTREAM_CLUSTER_RAW%
        %UPSTREAM_LOCAL_ADDRESS%
        %DOWNSTREAM_LOCAL_ADDRESS%
        %DOWNSTREAM_REMOTE_ADDRESS%
        %REQUESTED_SERVER_NAME%
        %ROUTE_NAME%
        "#);
        // The same, by name.
        let text = TEXT_FORMAT.replace(['[', ']', '"', '\n'], "");
        for operator in text.split(' ') {
            assert!(JSON_FORMAT.iter().any(|(_, value)| *value == operator), "{operator} is missing");
        }
        assert_eq!(text.split(' ').count(), JSON_FORMAT.len());
    }
}
