//! Listeners: chains, TLS, the HTTP connection manager with Istio's filters.

use anyhow::{Context, Result, bail, ensure};
use meshlab_proxy_config::{
    AccessLog, ChainProtocol, EdgePolicy, FilterChain, HttpConnection, Listener, LogFormat, PathNormalization, ProxyConfig,
    TcpAccess, TcpProxy, Transport,
};
use serde_json::{Value, json};

use super::{Bootstrap, access, address, duration, route, tls};

pub(super) fn listener(listener: &Listener, config: &ProxyConfig, options: &Bootstrap<'_>) -> Result<Value> {
    let chains: Vec<&FilterChain> = listener.filter_chains.iter().collect();
    let sees_tls = chains
        .iter()
        .any(|chain| chain.matches.transport.is_some() || !chain.matches.server_names.is_empty() || chain.tls.is_some());
    let sees_http = chains.iter().any(|chain| !chain.matches.application_protocols.is_empty() && chain.tls.is_none());
    let mut inspectors = Vec::new();
    if sees_tls {
        inspectors.push(inspector("envoy.filters.listener.tls_inspector", "tls_inspector.v3.TlsInspector"));
    }
    if sees_http {
        inspectors.push(inspector("envoy.filters.listener.http_inspector", "http_inspector.v3.HttpInspector"));
    }
    Ok(json!({
        "name": listener.name,
        "address": address(listener.address),
        "enable_reuse_port": false,
        "listener_filters": inspectors,
        "filter_chains": chains.iter().map(|item| chain(item, config, options)).collect::<Result<Vec<_>>>()?,
    }))
}

fn inspector(name: &str, kind: &str) -> Value {
    json!({
        "name": name,
        "typed_config": { "@type": format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}") },
    })
}

fn chain(chain: &FilterChain, config: &ProxyConfig, options: &Bootstrap<'_>) -> Result<Value> {
    let mut matches = json!({});
    if !chain.matches.prefix_ranges.is_empty() {
        bail!("chain {}: matched by {:?}", chain.name, chain.matches);
    }
    if !chain.matches.server_names.is_empty() {
        matches["server_names"] = json!(chain.matches.server_names);
    }
    match chain.matches.transport {
        None => {}
        Some(Transport::Raw) => matches["transport_protocol"] = json!("raw_buffer"),
        Some(Transport::Tls) => matches["transport_protocol"] = json!("tls"),
    }
    if !chain.matches.application_protocols.is_empty() {
        matches["application_protocols"] = json!(chain.matches.application_protocols);
    }
    let (name, settings) = match &chain.protocol {
        ChainProtocol::Http(http) => ("http_connection_manager", connection_manager(http, config, options)?),
        ChainProtocol::Tcp(tcp) => ("tcp_proxy", tcp_proxy(tcp, config, options)?),
    };
    let mut out = json!({
        "filter_chain_match": matches,
        "filters": [{ "name": format!("envoy.filters.network.{name}"), "typed_config": settings }],
    });
    if let Some(wanted) = &chain.tls {
        out["transport_socket"] = tls::downstream(wanted, config, options)?;
    }
    Ok(out)
}

fn tcp_proxy(tcp: &TcpProxy, config: &ProxyConfig, options: &Bootstrap<'_>) -> Result<Value> {
    ensure!(tcp.access == TcpAccess::default(), "policies on connections");
    let logs = config.telemetry.access_logs.iter().map(|log| access_log(log, options)).collect::<Result<Vec<_>>>()?;
    let mut out = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": tcp.stat_prefix,
        "idle_timeout": duration(tcp.idle_timeout_ms),
        "access_log": logs,
    });
    match tcp.clusters.as_slice() {
        [only] => out["cluster"] = json!(only.cluster),
        several => {
            let each: Vec<Value> =
                several.iter().map(|target| json!({ "name": target.cluster, "weight": target.weight })).collect();
            out["weighted_clusters"] = json!({ "clusters": each });
        }
    }
    Ok(out)
}

fn connection_manager(http: &HttpConnection, config: &ProxyConfig, options: &Bootstrap<'_>) -> Result<Value> {
    let table = config.routes.get(&http.route_config).with_context(|| format!("no route table {}", http.route_config))?;
    let client_side = http.edge != EdgePolicy::SidecarInbound;
    let gateway = matches!(http.edge, EdgePolicy::Gateway { .. });
    let mut filters = access::filters(&http.access, gateway, config)?;
    filters.push(filter("envoy.filters.http.fault", "fault.v3.HTTPFault"));
    filters.push(filter("envoy.filters.http.cors", "cors.v3.Cors"));
    filters.push(filter("envoy.filters.http.router", "router.v3.Router"));
    let logs = config.telemetry.access_logs.iter().map(|log| access_log(log, options)).collect::<Result<Vec<_>>>()?;
    let mut out = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO",
        "stat_prefix": http.stat_prefix,
        "route_config": route::table(table, client_side)?,
        "http_filters": filters,
        "access_log": logs,
        "stream_idle_timeout": duration(http.stream_idle_timeout_ms),
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "normalize_path": http.path_normalization != PathNormalization::None,
        "use_remote_address": false,
    });
    match http.path_normalization {
        PathNormalization::None | PathNormalization::Base => {}
        PathNormalization::MergeSlashes => out["merge_slashes"] = json!(true),
        PathNormalization::DecodeAndMergeSlashes => {
            out["merge_slashes"] = json!(true);
            out["path_with_escaped_slashes_action"] = json!("UNESCAPE_AND_FORWARD");
        }
    }
    match http.edge {
        EdgePolicy::SidecarOutbound => {}
        EdgePolicy::SidecarInbound => {
            out["server_name"] = json!("istio-envoy");
            out["forward_client_cert_details"] = json!("APPEND_FORWARD");
            out["set_current_client_cert_details"] = json!({ "subject": true, "uri": true, "dns": true });
        }
        EdgePolicy::Gateway { trusted_proxies } => {
            out["server_name"] = json!("istio-envoy");
            out["use_remote_address"] = json!(true);
            out["xff_num_trusted_hops"] = json!(trusted_proxies);
            out["forward_client_cert_details"] = json!("SANITIZE_SET");
            out["set_current_client_cert_details"] = json!({ "subject": true, "cert": true, "uri": true, "dns": true });
        }
    }
    Ok(out)
}

pub(super) fn filter(name: &str, kind: &str) -> Value {
    json!({ "name": name, "typed_config": { "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}") } })
}

fn access_log(log: &AccessLog, options: &Bootstrap<'_>) -> Result<Value> {
    let LogFormat::Text(text) = &log.format else { bail!("an access log in JSON") };
    if log.filter.is_some() {
        bail!("an access log with a filter");
    }
    Ok(json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": options.access_log,
            "log_format": { "text_format_source": { "inline_string": text } },
        },
    }))
}
