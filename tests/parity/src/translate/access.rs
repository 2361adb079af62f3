//! Tokens and policies, as Istio writes them for Envoy's `jwt_authn` and `rbac` filters.

use anyhow::{Result, bail, ensure};
use meshlab_proxy_config::{
    AllOf, Attribute, AttributeMatch, Condition, HttpAccess, JwtRule, Policy, PolicyRule, ProxyConfig, StringMatch,
};
use serde_json::{Map, Value, json};

use super::listener::filter;
use super::string_match;

/// The filters before the router, in order: who is asked, tokens, what is logged, what denies, what allows.
pub(super) fn filters(access: &HttpAccess, gateway: bool, config: &ProxyConfig) -> Result<Vec<Value>> {
    let mut out = super::authorizer::filters(&access.custom, config)?;
    if !access.jwt.is_empty() {
        out.push(jwt(&access.jwt, gateway)?);
    }
    for (action, policies) in [("LOG", &access.audit), ("DENY", &access.deny), ("ALLOW", &access.allow)] {
        if !policies.is_empty() {
            out.push(rbac(action, policies)?);
        }
    }
    Ok(out)
}

/// At gateways routes may look at claims, so Istio has them looked for again.
fn jwt(rules: &[JwtRule], gateway: bool) -> Result<Value> {
    let mut providers = Map::new();
    let mut each = Vec::new();
    let mut any = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let name = format!("origins-{index}");
        let headers: Vec<Value> =
            rule.from_headers.iter().map(|(name, prefix)| json!({ "name": name, "value_prefix": prefix })).collect();
        let claims: Vec<Value> =
            rule.claim_to_headers.iter().map(|(header, claim)| json!({ "header_name": header, "claim_name": claim })).collect();
        let Some(jwks) = &rule.jwks else { bail!("a token rule without keys") };
        let mut provider = json!({
            "issuer": rule.issuer,
            "audiences": rule.audiences,
            "forward": rule.forward_original_token,
            "payload_in_metadata": "payload",
            "normalize_payload_in_metadata": { "space_delimited_claims": ["permission", "scope"] },
            "claim_to_headers": claims,
            "from_headers": headers,
            "from_params": rule.from_params,
            "from_cookies": rule.from_cookies,
            "local_jwks": { "inline_string": jwks },
            "clear_route_cache": gateway,
        });
        if let Some(header) = &rule.output_payload_to_header {
            provider["forward_payload_header"] = json!(header);
        }
        providers.insert(name.clone(), provider);
        each.push(json!({ "requires_any": { "requirements": [{ "provider_name": name }, { "allow_missing": {} }] } }));
        any.push(json!({ "provider_name": name }));
    }
    let requires = if let [only] = each.as_slice() {
        only.clone()
    } else {
        any.push(json!({ "requires_all": { "requirements": each } }));
        json!({ "requires_any": { "requirements": any } })
    };
    let mut out = filter("envoy.filters.http.jwt_authn", "jwt_authn.v3.JwtAuthentication");
    let settings = &mut out["typed_config"];
    settings["providers"] = Value::Object(providers);
    settings["rules"] = json!([{ "match": { "prefix": "/" }, "requires": requires }]);
    settings["bypass_cors_preflight"] = json!(true);
    Ok(out)
}

fn rbac(action: &str, policies: &[Policy]) -> Result<Value> {
    let mut enforced = Map::new();
    let mut dry_run = Map::new();
    for policy in policies {
        let target = if policy.dry_run { &mut dry_run } else { &mut enforced };
        for rule in &policy.rules {
            let name = format!("ns[{}]-policy[{}]-rule[{}]", policy.origin.namespace, policy.origin.name, rule.index);
            target.insert(name, policy_rule(rule)?);
        }
        if policy.rules.is_empty() {
            // A policy without rules matches nothing; Istio says so with a rule that never holds.
            let name = format!("ns[{}]-policy[{}]-rule[0]", policy.origin.namespace, policy.origin.name);
            let never =
                json!({ "permissions": [{ "not_rule": { "any": true } }], "principals": [{ "not_id": { "any": true } }] });
            target.insert(name, never);
        }
    }
    let mut out = filter("envoy.filters.http.rbac", "rbac.v3.RBAC");
    let settings = &mut out["typed_config"];
    if policies.iter().any(|policy| !policy.dry_run) {
        settings["rules"] = json!({ "action": action, "policies": enforced });
    }
    if !dry_run.is_empty() {
        settings["shadow_rules"] = json!({ "action": action, "policies": dry_run });
        settings["shadow_rules_stat_prefix"] = json!("istio_dry_run_");
    }
    Ok(out)
}

pub(super) fn policy_rule(rule: &PolicyRule) -> Result<Value> {
    let (mut permissions, mut principals) = (Vec::new(), Vec::new());
    let (when_permissions, when_principals) = split(&rule.when)?;
    let any = vec![AllOf::new()];
    for to in if rule.to.is_empty() { &any } else { &rule.to } {
        let (mut own, others) = split(to)?;
        ensure!(others.is_empty(), "an operation that asks for its source");
        own.extend(when_permissions.iter().cloned());
        permissions.push(all("and_rules", "rules", own));
    }
    for from in if rule.from.is_empty() { &any } else { &rule.from } {
        let (others, mut own) = split(from)?;
        ensure!(others.is_empty(), "a source that asks for its operation");
        own.extend(when_principals.iter().cloned());
        principals.push(all("and_ids", "ids", own));
    }
    Ok(json!({ "permissions": permissions, "principals": principals }))
}

fn all(key: &str, list: &str, items: Vec<Value>) -> Value {
    if items.is_empty() { json!({ "any": true }) } else { json!({ key: { list: items } }) }
}

/// Conditions on the operation, and conditions on the source.
fn split(conditions: &[Condition]) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut permissions, mut principals) = (Vec::new(), Vec::new());
    for condition in conditions {
        let is_permission = matches!(
            condition.attribute,
            Attribute::Host
                | Attribute::Method
                | Attribute::Path
                | Attribute::DestinationPort
                | Attribute::DestinationIp
                | Attribute::Sni
        );
        let (target, or, list, not) = if is_permission {
            (&mut permissions, "or_rules", "rules", "not_rule")
        } else {
            (&mut principals, "or_ids", "ids", "not_id")
        };
        if !condition.values.is_empty() {
            target.push(json!({ or: { list: values(&condition.attribute, &condition.values)? } }));
        }
        if !condition.not_values.is_empty() {
            target.push(json!({ not: { or: { list: values(&condition.attribute, &condition.not_values)? } } }));
        }
    }
    Ok((permissions, principals))
}

fn values(attribute: &Attribute, wanted: &[AttributeMatch]) -> Result<Vec<Value>> {
    let metadata = |path: &[&str]| -> Result<Vec<Value>> {
        let matches = wanted.iter().map(text).collect::<Result<Vec<_>>>()?;
        Ok(vec![json!({ "metadata": {
            "filter": "envoy.filters.http.jwt_authn", "path": claim_path(path), "value": claim_value(&matches),
        } })])
    };
    match attribute {
        Attribute::Claim(path) => return metadata(&path.iter().map(String::as_str).collect::<Vec<_>>()),
        Attribute::Audience => return metadata(&["aud"]),
        Attribute::Presenter => return metadata(&["azp"]),
        _ => {}
    }
    wanted.iter().map(|value| one(attribute, value)).collect()
}

fn one(attribute: &Attribute, value: &AttributeMatch) -> Result<Value> {
    Ok(match (attribute, value) {
        (Attribute::Method, AttributeMatch::String(wanted)) => header(":method", wanted)?,
        (Attribute::Host, AttributeMatch::String(wanted)) => header(":authority", wanted)?,
        (Attribute::Header(name), AttributeMatch::String(wanted)) => header(name, wanted)?,
        (Attribute::Path, AttributeMatch::String(wanted)) => json!({ "url_path": { "path": string_match(wanted, false)? } }),
        (Attribute::Path, AttributeMatch::PathTemplate(template)) => json!({ "uri_template": {
            "name": "uri-template",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "path_template": template.replace("{**}", "**").replace("{*}", "*"),
            },
        } }),
        (Attribute::DestinationPort, AttributeMatch::Port(port)) => json!({ "destination_port": port }),
        (Attribute::DestinationIp, AttributeMatch::Ip(block)) => json!({ "destination_ip": cidr(block) }),
        (Attribute::Sni, AttributeMatch::String(wanted)) => json!({ "requested_server_name": string_match(wanted, false)? }),
        (Attribute::SourceIp, AttributeMatch::Ip(block)) => json!({ "direct_remote_ip": cidr(block) }),
        (Attribute::RemoteIp, AttributeMatch::Ip(block)) => json!({ "remote_ip": cidr(block) }),
        (Attribute::Principal, AttributeMatch::String(wanted)) => authenticated(&match wanted {
            StringMatch::Exact(name) => StringMatch::Exact(format!("spiffe://{name}")),
            StringMatch::Prefix(name) => StringMatch::Prefix(format!("spiffe://{name}")),
            StringMatch::Regex(name) => StringMatch::Regex(format!("spiffe://{name}")),
            StringMatch::Suffix(name) => StringMatch::Regex(format!("spiffe://.*{}", escape(name))),
            StringMatch::Present => StringMatch::Present,
        })?,
        (Attribute::Namespace, AttributeMatch::String(wanted)) => {
            let name = match wanted {
                StringMatch::Exact(name) => escape(name),
                StringMatch::Prefix(name) => format!("{}.*", escape(name)),
                StringMatch::Suffix(name) => format!(".*{}", escape(name)),
                StringMatch::Present => ".*".to_owned(),
                StringMatch::Regex(_) => bail!("a namespace by expression"),
            };
            authenticated(&StringMatch::Regex(format!(".*/ns/{name}/.*")))?
        }
        (Attribute::ServiceAccount, AttributeMatch::String(StringMatch::Exact(account))) => {
            let (namespace, name) = account.split_once('/').unwrap_or(("default", account));
            let wanted = format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", escape(namespace), escape(name));
            authenticated(&StringMatch::Regex(wanted))?
        }
        (Attribute::RequestPrincipal, AttributeMatch::String(wanted)) => request_principal(wanted)?,
        (attribute, value) => bail!("{attribute:?} with {value:?}"),
    })
}

fn header(name: &str, wanted: &StringMatch) -> Result<Value> {
    Ok(match wanted {
        StringMatch::Present => json!({ "header": { "name": name, "present_match": true } }),
        other => json!({ "header": { "name": name, "string_match": string_match(other, false)? } }),
    })
}

fn authenticated(wanted: &StringMatch) -> Result<Value> {
    Ok(json!({ "authenticated": { "principal_name": string_match(wanted, false)? } }))
}

/// `issuer/subject`, cut at its last slash.
fn request_principal(wanted: &StringMatch) -> Result<Value> {
    let any = || StringMatch::Present;
    let cut = |text: &str| text.rsplit_once('/').map(|(issuer, subject)| (issuer.to_owned(), subject.to_owned()));
    let (issuer, subject) = match wanted {
        StringMatch::Present => (any(), any()),
        StringMatch::Exact(text) => {
            let (issuer, subject) = cut(text).unwrap_or((text.clone(), String::new()));
            (StringMatch::Exact(issuer), StringMatch::Exact(subject))
        }
        StringMatch::Prefix(text) => match cut(text) {
            Some((issuer, subject)) if subject.is_empty() => (StringMatch::Exact(issuer), any()),
            Some((issuer, subject)) => (StringMatch::Exact(issuer), StringMatch::Prefix(subject)),
            None => (StringMatch::Prefix(text.clone()), any()),
        },
        StringMatch::Suffix(text) => match cut(text) {
            Some((issuer, subject)) if issuer.is_empty() => (any(), StringMatch::Exact(subject)),
            Some((issuer, subject)) => (StringMatch::Suffix(issuer), StringMatch::Exact(subject)),
            None => (any(), StringMatch::Suffix(text.clone())),
        },
        StringMatch::Regex(_) => bail!("a request principal by expression"),
    };
    let claim = |name: &str, wanted: &StringMatch| -> Result<Value> {
        Ok(json!({ "metadata": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": claim_path(&[name]),
            "value": { "string_match": string_match(wanted, false)? },
        } }))
    };
    Ok(json!({ "and_ids": { "ids": [claim("iss", &issuer)?, claim("sub", &subject)?] } }))
}

/// Where a claim is in the filter's metadata.
pub(super) fn claim_path(path: &[&str]) -> Value {
    std::iter::once("payload").chain(path.iter().copied()).map(|key| json!({ "key": key })).collect()
}

/// A claim that is one of these, or a list with one of these.
pub(super) fn claim_value(matches: &[Value]) -> Value {
    let alternatives = |matches: &[Value]| -> Value {
        match matches {
            [only] => json!({ "string_match": only }),
            several => {
                let each: Vec<Value> = several.iter().map(|wanted| json!({ "string_match": wanted })).collect();
                json!({ "or_match": { "value_matchers": each } })
            }
        }
    };
    let value = alternatives(matches);
    json!({ "or_match": { "value_matchers": [value, { "list_match": { "one_of": value } }] } })
}

fn text(value: &AttributeMatch) -> Result<Value> {
    match value {
        AttributeMatch::String(wanted) => string_match(wanted, false),
        other => bail!("a claim with {other:?}"),
    }
}

fn cidr(block: &impl std::fmt::Display) -> Value {
    let text = block.to_string();
    let (address, length) = text.split_once('/').unwrap_or((&text, "32"));
    json!({ "address_prefix": address, "prefix_len": length.parse::<u32>().unwrap_or(32) })
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if !character.is_ascii_alphanumeric() && !"_-/".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
