//! External authorization, as Istio writes it: a policy that only says whether it matches, and a filter that asks where it does.

use anyhow::{Context, Result, bail, ensure};
use meshlab_proxy_config::{AuthorizerProtocol, CustomPolicy, Discovery, ExternalAuthorizer, ProxyConfig, StringMatch};
use serde_json::{Map, Value, json};

use super::listener::filter;
use super::{access, duration};

/// What Istio puts before the names of policies that ask.
const PREFIX: &str = "istio-ext-authz";

pub(super) fn filters(policies: &[CustomPolicy], config: &ProxyConfig) -> Result<Vec<Value>> {
    let Some(first) = policies.first() else { return Ok(Vec::new()) };
    ensure!(policies.iter().all(|policy| policy.provider == first.provider), "several authorizers");
    let mut rules = Map::new();
    for policy in policies.iter().map(|custom| &custom.policy) {
        ensure!(!policy.dry_run, "a policy that asks, tried out");
        for rule in &policy.rules {
            let name = format!("{PREFIX}-ns[{}]-policy[{}]-rule[{}]", policy.origin.namespace, policy.origin.name, rule.index);
            rules.insert(name, access::policy_rule(rule)?);
        }
    }
    let mut rbac = filter("envoy.filters.http.rbac", "rbac.v3.RBAC");
    rbac["typed_config"]["shadow_rules"] = json!({ "action": "DENY", "policies": rules });
    rbac["typed_config"]["shadow_rules_stat_prefix"] = json!("istio_ext_authz_");
    let mut ask = filter("envoy.filters.http.ext_authz", "ext_authz.v3.ExtAuthz");
    let settings = &mut ask["typed_config"];
    settings["filter_enabled_metadata"] = json!({
        "filter": "envoy.filters.http.rbac",
        "path": [{ "key": "istio_ext_authz_shadow_effective_policy_id" }],
        "value": { "string_match": { "prefix": PREFIX } },
    });
    let provider = &first.provider;
    settings["transport_api_version"] = json!("V3");
    settings["failure_mode_allow"] = json!(provider.fail_open);
    if provider.status_on_error > 0 {
        settings["status_on_error"] = json!({ "code": provider.status_on_error });
    }
    if provider.max_body_bytes > 0 {
        settings["with_request_body"] = json!({ "max_request_bytes": provider.max_body_bytes });
    }
    match provider.protocol {
        AuthorizerProtocol::Http => http(settings, provider, config)?,
        AuthorizerProtocol::Grpc => {
            let authority = &config.clusters.get(&provider.cluster).context("no cluster of the authorizer")?.service.host;
            settings["grpc_service"] = json!({
                "envoy_grpc": { "cluster_name": provider.cluster, "authority": authority },
                "timeout": duration(provider.timeout_ms),
            });
        }
    }
    Ok(vec![rbac, ask])
}

fn http(settings: &mut Value, provider: &ExternalAuthorizer, config: &ProxyConfig) -> Result<()> {
    // The address only names the host that is asked; the cluster has the endpoints.
    let cluster = config.clusters.get(&provider.cluster).with_context(|| format!("no cluster {}", provider.cluster))?;
    let Discovery::Static(_) = &cluster.discovery else { bail!("{}: discovery {:?}", cluster.name, cluster.discovery) };
    let port = provider.cluster.split('|').nth(1).unwrap_or("80");
    let mut service = json!({
        "server_uri": {
            "uri": format!("http://{}:{port}", cluster.service.host),
            "cluster": provider.cluster,
            "timeout": duration(provider.timeout_ms),
        },
        "path_prefix": provider.path_prefix,
    });
    // Istio names these in the service's settings; Envoy's later releases have the first in the filter's.
    if !provider.include_request_headers.is_empty() {
        settings["allowed_headers"] = patterns(&provider.include_request_headers)?;
    }
    let mut response = Map::new();
    if !provider.headers_to_upstream.is_empty() {
        response.insert("allowed_upstream_headers".into(), patterns(&provider.headers_to_upstream)?);
    }
    if !provider.headers_to_downstream.is_empty() {
        response.insert("allowed_client_headers".into(), patterns(&provider.headers_to_downstream)?);
    }
    service["authorization_response"] = Value::Object(response);
    settings["http_service"] = service;
    Ok(())
}

fn patterns(wanted: &[StringMatch]) -> Result<Value> {
    let each =
        wanted.iter().map(|wanted| super::string_match(wanted, !matches!(wanted, StringMatch::Regex(_) | StringMatch::Present)));
    Ok(json!({ "patterns": each.collect::<Result<Vec<_>>>()? }))
}
