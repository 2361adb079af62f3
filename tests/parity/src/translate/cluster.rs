//! Clusters and their endpoints.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use meshlab_proxy_config::{
    CircuitBreaker, Cluster, Discovery, Endpoints, LoadBalancer, OutlierDetection, ProxyConfig, UpstreamProtocol,
};
use serde_json::{Value, json};

use super::{Bootstrap, address, duration, tls};

pub(super) fn cluster(cluster: &Cluster, config: &ProxyConfig, options: &Bootstrap<'_>) -> Result<Value> {
    let Discovery::Static(members) = &cluster.discovery else {
        bail!("{}: discovery {:?}", cluster.name, cluster.discovery);
    };
    ensure!(cluster.proxy_protocol.is_none(), "{}: PROXY protocol", cluster.name);
    let mut out = json!({
        "name": cluster.name,
        "type": "STATIC",
        "connect_timeout": duration(cluster.connect_timeout_ms),
        "load_assignment": load_assignment(&cluster.name, members),
        "circuit_breakers": circuit_breakers(&cluster.circuit_breaker),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol(cluster)?,
        },
    });
    match cluster.load_balancer {
        LoadBalancer::LeastRequest { warmup_ms: 0 } => out["lb_policy"] = json!("LEAST_REQUEST"),
        LoadBalancer::RoundRobin { warmup_ms: 0 } => out["lb_policy"] = json!("ROUND_ROBIN"),
        LoadBalancer::Random => out["lb_policy"] = json!("RANDOM"),
        LoadBalancer::RingHash { minimum_ring_size } => {
            out["lb_policy"] = json!("RING_HASH");
            out["ring_hash_lb_config"] = json!({ "minimum_ring_size": minimum_ring_size });
        }
        LoadBalancer::Maglev { table_size } => {
            out["lb_policy"] = json!("MAGLEV");
            out["maglev_lb_config"] = json!({ "table_size": table_size });
        }
        other => bail!("{}: load balancer {other:?}", cluster.name),
    }
    if let Some(socket) = tls::upstream(cluster, members, config, options)? {
        out["transport_socket"] = socket;
    }
    if let Some(detection) = &cluster.outlier_detection {
        out["outlier_detection"] = outlier_detection(detection);
        out["common_lb_config"] = json!({ "healthy_panic_threshold": { "value": detection.min_health_percent } });
    }
    Ok(out)
}

fn load_assignment(name: &str, members: &Endpoints) -> Value {
    let mut by_priority: BTreeMap<u32, Vec<Value>> = BTreeMap::new();
    for endpoint in &members.endpoints {
        by_priority.entry(endpoint.priority).or_default().push(json!({
            "endpoint": { "address": address(endpoint.address) },
            "load_balancing_weight": endpoint.weight,
        }));
    }
    let groups: Vec<Value> =
        by_priority.into_iter().map(|(priority, endpoints)| json!({ "priority": priority, "lb_endpoints": endpoints })).collect();
    json!({ "cluster_name": name, "endpoints": groups })
}

fn circuit_breakers(limits: &CircuitBreaker) -> Value {
    json!({ "thresholds": [{
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
        "track_remaining": true,
    }] })
}

fn protocol(cluster: &Cluster) -> Result<Value> {
    let mut common = json!({});
    if cluster.idle_timeout_ms > 0 {
        common["idle_timeout"] = duration(cluster.idle_timeout_ms);
    }
    if cluster.max_requests_per_connection > 0 {
        common["max_requests_per_connection"] = json!(cluster.max_requests_per_connection);
    }
    let mut out = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": common,
    });
    if let Some(options) = tls::server_name_of_request(&cluster.tls) {
        out["upstream_http_protocol_options"] = options;
    }
    match cluster.protocol {
        UpstreamProtocol::Http1 => out["explicit_http_config"] = json!({ "http_protocol_options": {} }),
        UpstreamProtocol::Http2 => out["explicit_http_config"] = json!({ "http2_protocol_options": {} }),
        UpstreamProtocol::SameAsDownstream => {
            out["use_downstream_protocol_config"] = json!({ "http_protocol_options": {}, "http2_protocol_options": {} });
        }
        UpstreamProtocol::Tcp => out["explicit_http_config"] = json!({ "http_protocol_options": {} }),
    }
    Ok(out)
}

fn outlier_detection(detection: &OutlierDetection) -> Value {
    let enforced = |count: u32| if count > 0 { 100 } else { 0 };
    let mut out = json!({
        "enforcing_consecutive_5xx": enforced(detection.consecutive_5xx),
        "enforcing_consecutive_gateway_failure": enforced(detection.consecutive_gateway_errors),
        "enforcing_success_rate": 0,
        "interval": duration(detection.interval_ms),
        "base_ejection_time": duration(detection.base_ejection_ms),
        "max_ejection_percent": detection.max_ejection_percent,
        "split_external_local_origin_errors": detection.split_local_errors,
    });
    if detection.consecutive_5xx > 0 {
        out["consecutive_5xx"] = json!(detection.consecutive_5xx);
    }
    if detection.consecutive_gateway_errors > 0 {
        out["consecutive_gateway_failure"] = json!(detection.consecutive_gateway_errors);
    }
    if detection.split_local_errors {
        out["enforcing_consecutive_local_origin_failure"] = json!(enforced(detection.consecutive_local_origin_failures));
        if detection.consecutive_local_origin_failures > 0 {
            out["consecutive_local_origin_failure"] = json!(detection.consecutive_local_origin_failures);
        }
        out["enforcing_local_origin_success_rate"] = json!(0);
    }
    out
}
