//! What the proxy was given, and how its endpoints fare.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use meshlab_proxy_config::Secret;
use serde_json::{Value, json};

use super::LEVELS;
use crate::cluster::breaker::Resource;
use crate::proxy::Shared;

fn section(kind: &str, key: &str, entries: Vec<Value>) -> Value {
    json!({ "@type": format!("type.googleapis.com/envoy.admin.v3.{kind}"), key: entries })
}

fn wrapped<T: serde::Serialize>(kind: &str, value: &T) -> Value {
    json!({ kind: serde_json::to_value(value).unwrap_or_default() })
}

/// `/config_dump`: Envoy's sections, with this proxy's own resources in them. Private keys are left out.
pub(crate) fn config(proxy: &Shared) -> Value {
    let snapshot = proxy.snapshot.load();
    let config = &snapshot.config;
    let listeners: Vec<Value> = config
        .listeners
        .iter()
        .map(|(name, listener)| json!({ "name": name, "active_state": wrapped("listener", &**listener) }))
        .collect();
    let clusters = config.clusters.values().map(|cluster| wrapped("cluster", &**cluster)).collect();
    let routes = config.routes.values().map(|routes| wrapped("route_config", &**routes)).collect();
    let endpoints = config
        .endpoints
        .iter()
        .map(|(name, endpoints)| json!({ "endpoint_config": { "cluster_name": name, "endpoints": endpoints.endpoints } }))
        .collect();
    let secrets = config
        .secrets
        .iter()
        .map(|(name, secret)| {
            let shown = Secret { private_key: redacted(&secret.private_key), ..(**secret).clone() };
            json!({ "name": name, "secret": serde_json::to_value(shown).unwrap_or_default() })
        })
        .collect();
    json!({
        "configs": [
            section("BootstrapConfigDump", "bootstrap", vec![json!({
                "node": { "id": proxy.options.node_id },
                "telemetry": serde_json::to_value(&*config.telemetry).unwrap_or_default(),
            })]),
            section("ClustersConfigDump", "dynamic_active_clusters", clusters),
            section("EndpointsConfigDump", "dynamic_endpoint_configs", endpoints),
            section("ListenersConfigDump", "dynamic_listeners", listeners),
            section("RoutesConfigDump", "dynamic_route_configs", routes),
            section("SecretsConfigDump", "dynamic_active_secrets", secrets),
        ]
    })
}

fn redacted(key: &str) -> String {
    if key.is_empty() { String::new() } else { "[redacted]".to_owned() }
}

/// `/clusters`
pub(crate) fn clusters_text(proxy: &Shared) -> String {
    let snapshot = proxy.snapshot.load();
    let mut names: Vec<_> = snapshot.clusters.keys().collect();
    names.sort();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(out, "{text}");
    };
    for name in names {
        let cluster = &snapshot.clusters[name];
        let limits = cluster.config.circuit_breaker;
        line(format_args!("{name}::observability_name::{name}"));
        line(format_args!("{name}::default_priority::max_connections::{}", limits.max_connections));
        line(format_args!("{name}::default_priority::max_pending_requests::{}", limits.max_pending_requests));
        line(format_args!("{name}::default_priority::max_requests::{}", limits.max_requests));
        line(format_args!("{name}::default_priority::max_retries::{}", limits.max_retries));
        line(format_args!("{name}::added_via_api::true"));
        for member in cluster.hosts() {
            let host = &member.host;
            let prefix = format!("{name}::{}", host.address);
            for (stat, _, value) in host.stats.values() {
                line(format_args!("{prefix}::{stat}::{value}"));
            }
            let health = if host.health.ejected() { "/failed_outlier_check" } else { "healthy" };
            line(format_args!("{prefix}::health_flags::{health}"));
            line(format_args!("{prefix}::weight::{}", member.weight));
            let mut locality = host.metadata.locality.split('/');
            for part in ["region", "zone", "sub_zone"] {
                line(format_args!("{prefix}::{part}::{}", locality.next().unwrap_or("")));
            }
            line(format_args!("{prefix}::priority::{}", member.priority));
            line(format_args!("{prefix}::success_rate::-1"));
        }
    }
    out
}

/// `/clusters?format=json`
pub(crate) fn clusters_json(proxy: &Shared) -> Value {
    let snapshot = proxy.snapshot.load();
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let statuses: Vec<Value> = clusters
        .into_iter()
        .map(|cluster| {
            let hosts: Vec<Value> = cluster
                .hosts()
                .iter()
                .map(|member| {
                    let host = &member.host;
                    let stats: Vec<Value> = host
                        .stats
                        .values()
                        .into_iter()
                        .map(|(name, counter, value)| {
                            let kind = if counter { "COUNTER" } else { "GAUGE" };
                            json!({ "name": name, "value": value.to_string(), "type": kind })
                        })
                        .collect();
                    json!({
                        "address": { "socket_address": { "address": host.address.ip().to_string(), "port_value": host.address.port() } },
                        "stats": stats,
                        "health_status": {
                            "eds_health_status": "HEALTHY",
                            "failed_outlier_check": host.health.ejected(),
                        },
                        "weight": member.weight,
                        "priority": member.priority,
                        "locality": { "region": host.metadata.locality },
                        "tls": cluster.is_tls(host),
                    })
                })
                .collect();
            let breaker = &cluster.breaker;
            json!({
                "name": &*cluster.name,
                "added_via_api": true,
                "host_statuses": hosts,
                "circuit_breakers": {
                    "limits": cluster.config.circuit_breaker,
                    "connections": breaker.in_use(Resource::Connections),
                    "pending_requests": breaker.in_use(Resource::Pending),
                    "requests": breaker.in_use(Resource::Requests),
                    "retries": breaker.in_use(Resource::Retries),
                },
            })
        })
        .collect();
    json!({ "cluster_statuses": statuses })
}

/// `/listeners`
pub(crate) fn listeners_text(proxy: &Shared) -> String {
    let snapshot = proxy.snapshot.load();
    let lines: String =
        snapshot.config.listeners.iter().map(|(name, listener)| format!("{name}::{}\n", listener.address)).collect();
    lines
}

/// `/listeners?format=json`
pub(crate) fn listeners_json(proxy: &Shared) -> Value {
    let snapshot = proxy.snapshot.load();
    let statuses: Vec<Value> = snapshot
        .config
        .listeners
        .iter()
        .map(|(name, listener)| {
            let address = listener.address;
            json!({
                "name": name,
                "local_address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
            })
        })
        .collect();
    json!({ "listener_statuses": statuses })
}

/// `/certs`
pub(crate) fn certificates(proxy: &Shared) -> Value {
    let Some(identity) = proxy.identity.load_full() else { return json!({ "certificates": [] }) };
    let describe = |der: &[u8]| {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return json!({}) };
        let validity = certificate.validity();
        let time = |seconds: i64| jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
        let uris = crate::tls::peer::PeerCertificate::parse(&der.to_vec().into()).map(|peer| peer.uri_names).unwrap_or_default();
        let left = validity.not_after.timestamp() - jiff::Timestamp::now().as_second();
        json!({
            "path": "<inline>",
            "serial_number": certificate.raw_serial_as_string().replace(':', ""),
            "subject_alt_names": uris.iter().map(|uri| json!({ "uri": uri })).collect::<Vec<_>>(),
            "days_until_expiration": (left / 86_400).max(0).to_string(),
            "valid_from": time(validity.not_before.timestamp()),
            "expiration_time": time(validity.not_after.timestamp()),
        })
    };
    let chain: Vec<Value> = identity.certified.cert.iter().map(|certificate| describe(certificate)).collect();
    let roots: Vec<Value> = {
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject;
        CertificateDer::pem_slice_iter(identity.source.roots.as_bytes()).flatten().map(|root| describe(&root)).collect()
    };
    json!({ "certificates": [{ "ca_cert": roots, "cert_chain": chain }] })
}

/// `/server_info`
pub(crate) fn server_info(proxy: &Shared) -> Value {
    let level = LEVELS[usize::from(proxy.log_level.load(Ordering::Relaxed)).min(LEVELS.len() - 1)];
    json!({
        "version": format!("meshlab-proxy/{}", env!("CARGO_PKG_VERSION")),
        "state": if proxy.is_draining() { "DRAINING" } else if proxy.is_ready() { "LIVE" } else { "PRE_INITIALIZING" },
        "uptime_all_epochs": format!("{}s", proxy.started.elapsed().as_secs()),
        "uptime_current_epoch": format!("{}s", proxy.started.elapsed().as_secs()),
        "hot_restart_version": "disabled",
        "command_line_options": { "log_level": level, "service_node": proxy.options.node_id, "concurrency": 0 },
        "node": { "id": proxy.options.node_id },
    })
}
