//! Route tables.

use anyhow::{Result, bail, ensure};
use meshlab_proxy_config::{
    AbortStatus, Cors, Destination, Fault, Forward, HashPolicy, HeaderOperations, PathMatch, PathRewrite, Redirect, RetryOn,
    RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, StringMatch, ValueMatch, VirtualHost,
};
use serde_json::{Map, Value, json};

use super::{duration, fraction, string_match};

/// `RouteConfiguration`. Istio counts attempts in a request header on the client's side only.
pub(super) fn table(table: &RouteConfiguration, client_side: bool) -> Result<Value> {
    let hosts = table.virtual_hosts.iter().map(|host| virtual_host(host, client_side)).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "name": table.name,
        "virtual_hosts": hosts,
        "validate_clusters": false,
        "ignore_port_in_host_matching": table.ignore_port_in_host,
        "max_direct_response_body_size_bytes": 1_048_576,
    }))
}

fn virtual_host(host: &VirtualHost, client_side: bool) -> Result<Value> {
    let routes = host.routes.iter().map(route).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "name": host.name,
        "domains": host.domains,
        "routes": routes,
        "include_request_attempt_count": client_side,
        "require_tls": if host.require_tls { "ALL" } else { "NONE" },
    }))
}

fn route(route: &Route) -> Result<Value> {
    let mut out = Map::new();
    out.insert("name".into(), json!(route.name));
    out.insert("match".into(), route_match(&route.matches)?);
    let mut request = vec![&route.request_headers];
    let mut response = vec![&route.response_headers];
    match &route.action {
        RouteAction::Forward(forward) => {
            // Istio appends the changes of an only destination to the route's.
            if let [only] = forward.destinations.as_slice() {
                request.push(&only.request_headers);
                response.push(&only.response_headers);
            }
            out.insert("route".into(), action(forward, &route.matches)?);
        }
        RouteAction::Redirect(wanted) => drop(out.insert("redirect".into(), redirect(wanted)?)),
        RouteAction::DirectResponse { status, body } => {
            let mut response = json!({ "status": status });
            if !body.is_empty() {
                response["body"] = json!({ "inline_string": body });
            }
            out.insert("direct_response".into(), response);
        }
    }
    headers(&mut out, "request", &request);
    headers(&mut out, "response", &response);
    let mut filters = Map::new();
    if let Some(wanted) = &route.fault {
        filters.insert("envoy.filters.http.fault".into(), fault(wanted));
    }
    if let Some(wanted) = &route.cors {
        filters.insert("envoy.filters.http.cors".into(), cors(wanted)?);
    }
    out.insert("typed_per_filter_config".into(), Value::Object(filters));
    Ok(Value::Object(out))
}

fn headers(out: &mut Map<String, Value>, side: &str, operations: &[&HeaderOperations]) {
    let entry = |(name, value): (&String, &String), action: &str| json!({ "header": { "key": name, "value": value }, "append_action": action });
    let added: Vec<Value> = operations
        .iter()
        .flat_map(|operations| {
            let set = operations.set.iter().map(|pair| entry(pair, "OVERWRITE_IF_EXISTS_OR_ADD"));
            set.chain(operations.add.iter().map(|pair| entry(pair, "APPEND_IF_EXISTS_OR_ADD"))).collect::<Vec<_>>()
        })
        .collect();
    let removed: Vec<&String> = operations.iter().flat_map(|operations| &operations.remove).collect();
    out.insert(format!("{side}_headers_to_add"), json!(added));
    out.insert(format!("{side}_headers_to_remove"), json!(removed));
}

fn route_match(matches: &RouteMatch) -> Result<Value> {
    let mut out = match &matches.path {
        PathMatch::Prefix(prefix) => json!({ "prefix": prefix }),
        PathMatch::SegmentPrefix(prefix) => json!({ "path_separated_prefix": prefix }),
        PathMatch::Exact(path) => json!({ "path": path }),
        PathMatch::Regex(regex) => json!({ "safe_regex": { "regex": regex } }),
    };
    out["case_sensitive"] = json!(!matches.ignore_path_case);
    out["headers"] = matches.headers.iter().map(header_match).collect::<Result<Vec<_>>>()?.into();
    out["query_parameters"] = matches.query.iter().map(query_match).collect::<Result<Vec<_>>>()?.into();
    out["dynamic_metadata"] = matches.claims.iter().map(claim_match).collect::<Result<Vec<_>>>()?.into();
    Ok(out)
}

fn header_match(wanted: &ValueMatch) -> Result<Value> {
    let mut out = json!({
        "name": wanted.name,
        "invert_match": wanted.invert,
        "treat_missing_header_as_empty": wanted.missing_as_empty,
    });
    match &wanted.value {
        None => out["present_match"] = json!(true),
        Some(value) => out["string_match"] = string_match(value, wanted.ignore_case)?,
    }
    Ok(out)
}

fn query_match(wanted: &ValueMatch) -> Result<Value> {
    ensure!(!wanted.invert, "an inverted query parameter");
    Ok(match &wanted.value {
        None => json!({ "name": wanted.name, "present_match": true }),
        Some(value) => json!({ "name": wanted.name, "string_match": string_match(value, wanted.ignore_case)? }),
    })
}

fn claim_match(wanted: &ValueMatch) -> Result<Value> {
    let value = wanted.value.clone().unwrap_or(StringMatch::Present);
    let path: Vec<&str> = wanted.name.split('.').collect();
    Ok(json!({
        "filter": "envoy.filters.http.jwt_authn",
        "path": super::access::claim_path(&path),
        "value": super::access::claim_value(&[string_match(&value, wanted.ignore_case)?]),
        "invert": wanted.invert,
    }))
}

fn action(forward: &Forward, matches: &RouteMatch) -> Result<Value> {
    let mut out = json!({
        "timeout": duration(forward.timeout_ms),
        "max_grpc_timeout": duration(forward.timeout_ms),
    });
    match forward.destinations.as_slice() {
        [only] => out["cluster"] = json!(only.cluster),
        several => out["weighted_clusters"] = json!({ "clusters": several.iter().map(weighted).collect::<Vec<_>>() }),
    }
    if let Some(authority) = &forward.authority_rewrite {
        out["host_rewrite_literal"] = json!(authority);
    } else if let [Destination { authority_rewrite: Some(authority), .. }] = forward.destinations.as_slice() {
        out["host_rewrite_literal"] = json!(authority);
    }
    match &forward.rewrite {
        None => {}
        Some(PathRewrite::Matched(replacement)) => out["prefix_rewrite"] = json!(replacement),
        Some(PathRewrite::Regex { pattern, substitution }) => {
            out["regex_rewrite"] = json!({ "pattern": { "regex": pattern }, "substitution": substitution });
        }
        Some(PathRewrite::Full(_)) => bail!("a rewrite of the whole path, matched by {:?}", matches.path),
    }
    if let Some(retry) = &forward.retry {
        out["retry_policy"] = retry_policy(retry);
    }
    out["request_mirror_policies"] = forward
        .mirrors
        .iter()
        .map(|mirror| {
            json!({
                "cluster": mirror.cluster,
                "runtime_fraction": { "default_value": fraction(mirror.fraction) },
                "trace_sampled": false,
                "disable_shadow_host_suffix_append": true,
            })
        })
        .collect::<Vec<_>>()
        .into();
    out["hash_policy"] = forward.hash_policy.iter().map(hash_policy).collect::<Vec<_>>().into();
    Ok(out)
}

fn weighted(destination: &Destination) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), json!(destination.cluster));
    out.insert("weight".into(), json!(destination.weight));
    headers(&mut out, "request", &[&destination.request_headers]);
    headers(&mut out, "response", &[&destination.response_headers]);
    if let Some(authority) = &destination.authority_rewrite {
        out.insert("host_rewrite_literal".into(), json!(authority));
    }
    Value::Object(out)
}

fn retry_policy(retry: &RetryPolicy) -> Value {
    let conditions: Vec<String> = retry.on.iter().map(|condition| condition_name(*condition)).collect();
    let mut out = json!({
        "retry_on": conditions.join(","),
        "num_retries": retry.attempts,
        "retriable_status_codes": retry.status_codes,
        "retry_back_off": { "base_interval": duration(retry.backoff_base_ms) },
    });
    if retry.per_try_timeout_ms > 0 {
        out["per_try_timeout"] = duration(retry.per_try_timeout_ms);
    }
    if retry.prefer_other_hosts {
        out["retry_host_predicate"] = json!([{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }]);
        out["host_selection_retry_max_attempts"] = json!(5);
    }
    out
}

fn condition_name(condition: RetryOn) -> String {
    serde_json::to_value(condition).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn hash_policy(policy: &HashPolicy) -> Value {
    match policy {
        HashPolicy::Header(name) => json!({ "header": { "header_name": name } }),
        HashPolicy::Query(name) => json!({ "query_parameter": { "name": name } }),
        HashPolicy::SourceIp => json!({ "connection_properties": { "source_ip": true } }),
        HashPolicy::Cookie { name, path, ttl_s } => {
            let mut cookie = json!({ "name": name, "path": path });
            if let Some(ttl) = ttl_s {
                cookie["ttl"] = duration(ttl * 1000);
            }
            json!({ "cookie": cookie })
        }
    }
}

fn redirect(redirect: &Redirect) -> Result<Value> {
    use meshlab_proxy_config::RedirectPort;
    let code = match redirect.status {
        301 => "MOVED_PERMANENTLY",
        302 => "FOUND",
        303 => "SEE_OTHER",
        307 => "TEMPORARY_REDIRECT",
        308 => "PERMANENT_REDIRECT",
        other => bail!("redirect code {other}"),
    };
    let mut out = json!({ "response_code": code });
    if let Some(scheme) = &redirect.scheme {
        out["scheme_redirect"] = json!(scheme);
    }
    if let Some(authority) = &redirect.authority {
        out["host_redirect"] = json!(authority);
    }
    match redirect.port {
        // What Envoy does by itself.
        None | Some(RedirectPort::FromProtocol) => {}
        Some(RedirectPort::Number(port)) => out["port_redirect"] = json!(port),
        Some(RedirectPort::FromRequest) => bail!("a redirect to the request's port"),
    }
    match &redirect.path {
        None => {}
        Some(PathRewrite::Matched(prefix)) => out["prefix_rewrite"] = json!(prefix),
        Some(PathRewrite::Full(path)) => out["path_redirect"] = json!(path),
        Some(PathRewrite::Regex { .. }) => bail!("a redirect by expression"),
    }
    Ok(out)
}

fn fault(wanted: &Fault) -> Value {
    let mut out = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault" });
    if let Some(delay) = &wanted.delay {
        out["delay"] = json!({ "fixed_delay": duration(delay.delay_ms), "percentage": fraction(delay.fraction) });
    }
    if let Some(abort) = &wanted.abort {
        out["abort"] = json!({ "percentage": fraction(abort.fraction) });
        match abort.status {
            AbortStatus::Http(status) => out["abort"]["http_status"] = json!(status),
            AbortStatus::Grpc(status) => out["abort"]["grpc_status"] = json!(status),
        }
    }
    out
}

fn cors(wanted: &Cors) -> Result<Value> {
    let origins = wanted.allow_origins.iter().map(|origin| string_match(origin, false)).collect::<Result<Vec<_>>>()?;
    let mut out = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": origins,
        "allow_methods": wanted.allow_methods.join(","),
        "allow_headers": wanted.allow_headers.join(","),
        "expose_headers": wanted.expose_headers.join(","),
        "forward_not_matching_preflights": wanted.forward_unmatched_preflights,
        "filter_enabled": { "default_value": { "numerator": 100, "denominator": "HUNDRED" } },
    });
    if let Some(age) = wanted.max_age_s {
        out["max_age"] = json!(age.to_string());
    }
    if let Some(allowed) = wanted.allow_credentials {
        out["allow_credentials"] = json!(allowed);
    }
    Ok(out)
}
