//! Envoy as a process, with a static configuration that says what ours says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{PROXY_CORE, Process};
use crate::scenario::{CLIENT, LOG_FORMAT, SERVER, SNI};

/// Where Envoy is: the variable `ENVOY`, or in `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ENVOY") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|candidate| candidate.is_file())
}

/// Starts it with one worker.
pub(crate) fn start(program: &Path, configuration: &Path) -> Process {
    let configuration = configuration.to_str().expect("a temporary path is text");
    let quiet = ["--log-level", "error", "--disable-hot-restart", "--concurrency", "1"];
    Process::start(PROXY_CORE, program, &[&["-c", configuration], &quiet[..]].concat())
}

/// The outbound side of a sidecar.
pub(crate) fn outbound(address: SocketAddr, upstream: SocketAddr, certificates: Option<&Path>, http2: bool) -> Value {
    let alpn = if http2 { "h2" } else { "http/1.1" };
    let tls = certificates.map(|folder| {
        let mut context = common_tls(&folder.join("client"), SERVER);
        context["alpn_protocols"] = json!([alpn]);
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": SNI, "common_tls_context": context,
            },
        })
    });
    let retry = json!({
        "num_retries": 2, "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "retriable_status_codes": [503], "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" },
        }],
    });
    let principals = json!([{ "any": true }]);
    let permissions = json!([{ "header": { "name": ":method", "string_match": { "exact": "GET" } } }]);
    let mut cluster = cluster(upstream, http2);
    cluster["outlier_detection"] = json!({ "consecutive_5xx": 5, "interval": "10s", "base_ejection_time": "30s" });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    bootstrap(&listener(address, &Value::Null, &policy(&permissions, &principals), &retry), &cluster)
}

/// The inbound side of a sidecar.
pub(crate) fn inbound(address: SocketAddr, upstream: SocketAddr, certificates: &Path) -> Value {
    let mut context = common_tls(&certificates.join("server"), CLIENT);
    context["alpn_protocols"] = json!(["h2", "http/1.1"]);
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true, "common_tls_context": context,
        },
    });
    let retry = json!({ "num_retries": 2, "retry_on": "reset-before-request" });
    let principals = json!([{ "authenticated": { "principal_name": { "exact": CLIENT } } }]);
    bootstrap(&listener(address, &tls, &policy(&json!([{ "any": true }]), &principals), &retry), &cluster(upstream, false))
}

fn bootstrap(listener: &Value, cluster: &Value) -> Value {
    json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } })
}

fn common_tls(files: &Path, peer: &str) -> Value {
    let file = |name: &str| json!({ "filename": files.join(name) });
    json!({
        "tls_certificates": [{ "certificate_chain": file("certificate.pem"), "private_key": file("key.pem") }],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
        "validation_context": {
            "trusted_ca": file("roots.pem"),
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
        },
    })
}

fn policy(permissions: &Value, principals: &Value) -> Value {
    json!({ "rules": { "action": "ALLOW", "policies": {
        "ns[default]-policy[allow]-rule[0]": { "permissions": permissions, "principals": principals },
    } } })
}

fn listener(address: SocketAddr, tls: &Value, policy: &Value, retry: &Value) -> Value {
    let filter = |name: &str, path: &str, body: &Value| {
        let mut typed = body.clone();
        typed["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{path}"));
        json!({ "name": name, "typed_config": typed })
    };
    let filters = json!([
        filter("envoy.filters.http.rbac", "rbac.v3.RBAC", policy),
        filter("envoy.filters.http.fault", "fault.v3.HTTPFault", &json!({})),
        filter("envoy.filters.http.cors", "cors.v3.Cors", &json!({})),
        filter("envoy.filters.http.router", "router.v3.Router", &json!({})),
    ]);
    let per_route = json!({
        "envoy.filters.http.fault": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "delay": { "fixed_delay": "5s", "percentage": { "numerator": 0 } },
        },
        "envoy.filters.http.cors": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{ "exact": "https://example.com" }], "allow_methods": "GET",
        },
    });
    let route = |name: &str, matches: Value| {
        json!({
            "name": name, "match": matches, "typed_per_filter_config": per_route,
            "route": { "cluster": "c", "timeout": "15s", "retry_policy": retry },
            "decorator": { "operation": "reviews.default.svc.cluster.local:9080/*" },
        })
    };
    let routes = json!({
        "name": "r", "ignore_port_in_host_matching": true,
        "virtual_hosts": [{
            "name": "reviews.default.svc.cluster.local:9080", "domains": ["reviews.default.svc.cluster.local", "reviews", "*"],
            "include_request_attempt_count": true,
            "routes": [
                route("jason", json!({ "prefix": "/", "headers": [{ "name": "end-user", "string_match": { "exact": "jason" } }] })),
                route("regex", json!({ "safe_regex": { "regex": "/products/[0-9]+" } })),
                route("default", json!({ "prefix": "/" })),
            ],
        }],
    });
    let log = json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/null", "log_format": { "text_format_source": { "inline_string": LOG_FORMAT } },
        },
    });
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http", "access_log": [log], "http_filters": filters, "route_config": routes, "use_remote_address": false,
            "normalize_path": true, "forward_client_cert_details": if tls.is_null() { "SANITIZE" } else { "APPEND_FORWARD" },
            "set_current_client_cert_details": { "subject": true, "uri": true },
        },
    }] });
    if !tls.is_null() {
        chain["transport_socket"] = tls.clone();
    }
    json!({ "name": "l", "address": socket(address), "filter_chains": [chain] })
}

fn cluster(upstream: SocketAddr, http2: bool) -> Value {
    let protocol = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
    json!({
        "name": "c", "type": "STATIC", "connect_timeout": "10s", "lb_policy": "LEAST_REQUEST",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { protocol: {} },
        } },
        "load_assignment": { "cluster_name": "c", "endpoints": [{
            "lb_endpoints": [{ "endpoint": { "address": socket(upstream) } }],
        }] },
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
