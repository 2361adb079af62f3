//! Our proxy as a process, and its configuration.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use meshlab_net::OsNet;
use meshlab_proxy::{BufferedLog, Proxy, ProxyOptions, WorkloadIdentity};
use meshlab_proxy_config::ProxyConfig;
use serde_json::{Value, json};

use crate::scenario::{CLIENT, Identity, LOG_FORMAT, SERVER, SNI};

/// Serves until it is killed. On one core a runtime of one thread is the right one.
pub(crate) fn serve(configuration: &Path, identity: &Path) {
    let read = |path: &Path| std::fs::read_to_string(path).expect("the file is there");
    let configuration: ProxyConfig = serde_json::from_str(&read(configuration)).expect("the configuration fits the model");
    let identity: Option<Identity> = serde_json::from_str(&read(identity)).expect("an identity or null");
    let file = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let log = BufferedLog::start(file).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = ProxyOptions { admin_address: None, access_log: Arc::new(log.sink()), ..ProxyOptions::default() };
        let proxy = Proxy::start(OsNet, options);
        if let Some(Identity { certificate_chain, private_key, roots, spiffe_id }) = identity {
            let identity = WorkloadIdentity { certificate_chain, private_key, roots, spiffe_id };
            proxy.set_identity(identity).expect("the certificate is good");
        }
        proxy.apply(Arc::new(configuration)).expect("the configuration is good");
        std::future::pending::<()>().await;
    });
}

/// The outbound side of a sidecar: from `address` to `upstream`, with mesh TLS or without.
pub(crate) fn outbound(address: SocketAddr, upstream: SocketAddr, mesh: bool, http2: bool) -> Value {
    let name = "outbound|9080||reviews.default.svc.cluster.local";
    let alpn =
        if http2 { ["istio-peer-exchange", "istio", "istio-h2"] } else { ["istio-peer-exchange", "istio", "istio-http/1.1"] };
    let tls = json!({ "mesh": { "sni": SNI, "alpn": alpn, "subject_alt_names": [SERVER] } });
    let mut cluster = cluster(name, upstream, if mesh { tls } else { json!("disable") });
    cluster["protocol"] = json!(if http2 { "http2" } else { "http1" });
    cluster["outlier_detection"] = json!({
        "consecutive_5xx": 5, "consecutive_gateway_errors": 0, "interval_ms": 10_000, "base_ejection_ms": 30_000,
        "max_ejection_percent": 10, "min_health_percent": 0,
    });
    let listener = listener(
        "outbound",
        address,
        "sidecar_outbound",
        &Value::Null,
        policy(&json!({ "attribute": "method", "values": [{ "string": { "exact": "GET" } }] })),
    );
    let retry = json!({
        "attempts": 2, "on": ["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"],
        "status_codes": [503], "backoff_base_ms": 25, "prefer_other_hosts": true,
    });
    configuration(&listener, &routes(name, &retry), &cluster, "productpage-v1", "productpage")
}

/// The inbound side of a sidecar: mesh TLS at `address`, its application at `upstream`.
pub(crate) fn inbound(address: SocketAddr, upstream: SocketAddr) -> Value {
    let name = "inbound|9080||";
    let tls = json!({
        "certificate": "workload", "client_certificate": { "mesh": { "trust_domains": ["cluster.local"] } },
        "alpn": ["istio-h2", "istio-http/1.1", "istio"],
    });
    let principal = CLIENT.trim_start_matches("spiffe://");
    let listener = listener(
        "inbound",
        address,
        "sidecar_inbound",
        &tls,
        policy(&json!({ "attribute": "principal", "values": [{ "string": { "exact": principal } }] })),
    );
    let retry = json!({ "attempts": 2, "on": ["reset-before-request"], "backoff_base_ms": 25 });
    configuration(&listener, &routes(name, &retry), &cluster(name, upstream, json!("disable")), "reviews-v1", "reviews")
}

fn configuration(listener: &Value, routes: &Value, cluster: &Value, workload: &str, app: &str) -> Value {
    let name = cluster["name"].as_str().expect("a cluster has a name");
    json!({
        "listeners": { "l": listener }, "routes": { "r": routes }, "clusters": { name: cluster },
        "telemetry": {
            "workload": { "workload": workload, "namespace": "default", "app": app, "version": "v1", "canonical_service": app,
                          "canonical_revision": "v1", "cluster": "Kubernetes" },
            "access_logs": [{ "format": { "text": LOG_FORMAT }, "filter": null, "client": null }],
        },
    })
}

fn listener(direction: &str, address: SocketAddr, edge: &str, tls: &Value, access: Value) -> Value {
    let http = json!({ "route_config": "r", "stat_prefix": direction, "edge": edge, "access": access });
    json!({
        "name": "l", "address": address, "bind": true, "use_original_destination": false, "direction": direction,
        "filter_chains": [{ "name": "http", "tls": tls, "protocol": { "http": http } }], "default_filter_chain": null,
    })
}

/// One AuthorizationPolicy that allows what is sent.
fn policy(condition: &Value) -> Value {
    let origin = json!({ "kind": "AuthorizationPolicy", "namespace": "default", "name": "allow" });
    json!({ "allow": [{ "origin": origin, "rules": [{ "index": 0, "from": [[condition]], "to": [], "when": [] }] }] })
}

/// Three routes, of which the last one takes the requests.
fn routes(cluster: &str, retry: &Value) -> Value {
    let route = |name: &str, path: Value, header: Value| {
        let headers = if header.is_null() { json!([]) } else { json!([{ "name": "end-user", "value": header }]) };
        let forward = json!({
            "destinations": [{ "cluster": cluster, "weight": 1 }], "rewrite": null, "authority_rewrite": null, "timeout_ms": 15_000,
            "retry": retry, "upgrades": ["websocket"],
        });
        json!({
            "name": name, "matches": { "path": path, "headers": headers }, "action": { "forward": forward }, "origin": null,
            "fault": { "delay": { "delay_ms": 5000, "fraction": 0 }, "abort": null },
            "cors": { "allow_origins": [{ "exact": "https://example.com" }], "allow_methods": ["GET"], "max_age_s": null,
                      "allow_credentials": null, "forward_unmatched_preflights": true },
            "operation": "reviews.default.svc.cluster.local:9080/*",
        })
    };
    json!({
        "name": "r", "ignore_port_in_host": true,
        "virtual_hosts": [{
            "name": "reviews.default.svc.cluster.local:9080", "domains": ["reviews.default.svc.cluster.local", "reviews", "*"],
            "routes": [
                route("jason", json!({ "prefix": "/" }), json!({ "exact": "jason" })),
                route("regex", json!({ "regex": "/products/[0-9]+" }), Value::Null),
                route("default", json!({ "prefix": "/" }), Value::Null),
            ],
        }],
    })
}

fn cluster(name: &str, upstream: SocketAddr, tls: Value) -> Value {
    json!({
        "name": name, "discovery": { "static": { "endpoints": [{ "address": upstream, "weight": 1 }] } },
        "load_balancer": { "least_request": { "warmup_ms": 0 } }, "connect_timeout_ms": 10_000, "protocol": "http1", "tls": tls,
        "outlier_detection": null, "tcp_keepalive": null, "proxy_protocol": null,
        "service": { "host": "reviews.default.svc.cluster.local", "name": "reviews", "namespace": "default" },
    })
}
