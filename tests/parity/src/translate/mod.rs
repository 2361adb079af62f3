//! From our configuration to Envoy's static bootstrap, with the settings that Istio gives to Envoy.
//!
//! What has no translation here is an error that names it: nothing is left out silently.

mod access;
mod authorizer;
mod cluster;
mod listener;
mod route;
mod tls;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, bail};
use meshlab_proxy::WorkloadIdentity;
use meshlab_proxy_config::{Fraction, ProxyConfig, StringMatch};
use serde_json::{Value, json};

/// What Envoy needs besides the configuration.
pub struct Bootstrap<'a> {
    /// Where the administration interface listens.
    pub admin: SocketAddr,
    /// The access log's file.
    pub access_log: &'a Path,
    /// The workload's certificate.
    pub identity: &'a WorkloadIdentity,
}

/// Envoy's bootstrap configuration.
///
/// # Errors
/// Something has no translation.
pub fn bootstrap(config: &ProxyConfig, options: &Bootstrap<'_>) -> Result<Value> {
    let clusters = config.clusters.values().map(|item| cluster::cluster(item, config, options)).collect::<Result<Vec<_>>>()?;
    let listeners =
        config.listeners.values().map(|item| listener::listener(item, config, options)).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "admin": { "address": address(options.admin) },
        "static_resources": { "listeners": listeners, "clusters": clusters },
        "layered_runtime": { "layers": [{ "name": "istio", "static_layer": runtime() }] },
    }))
}

/// What Istio's bootstrap sets (`pkg/bootstrap/config.go`).
fn runtime() -> Value {
    json!({
        "re2.max_program_size.error_level": "32768",
        "envoy.reloadable_features.http_reject_path_with_fragment": false,
        "envoy.reloadable_features.fixed_heap_use_allocated": true,
        "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": false,
    })
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// A duration in protobuf's JSON form.
fn duration(milliseconds: u64) -> Value {
    json!(format!("{}.{:03}s", milliseconds / 1000, milliseconds % 1000))
}

fn fraction(fraction: Fraction) -> Value {
    json!({ "numerator": fraction.0, "denominator": "MILLION" })
}

/// `envoy.type.matcher.v3.StringMatcher`
fn string_match(wanted: &StringMatch, ignore_case: bool) -> Result<Value> {
    Ok(match wanted {
        StringMatch::Regex(_) | StringMatch::Present if ignore_case => bail!("an expression without regard to case"),
        StringMatch::Exact(text) => json!({ "exact": text, "ignore_case": ignore_case }),
        StringMatch::Prefix(text) => json!({ "prefix": text, "ignore_case": ignore_case }),
        StringMatch::Suffix(text) => json!({ "suffix": text, "ignore_case": ignore_case }),
        StringMatch::Regex(text) => json!({ "safe_regex": { "regex": text } }),
        StringMatch::Present => json!({ "safe_regex": { "regex": ".+" } }),
    })
}
