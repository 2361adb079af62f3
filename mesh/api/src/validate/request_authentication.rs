//! RequestAuthentication.

use serde_json::Value;

use super::check::Check;
use crate::{JwtRule, Object, RequestAuthentication};

pub(super) fn check(object: &Object<RequestAuthentication>, check: &mut Check) {
    let spec = &object.spec;
    check.targets(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        jwt_rule(rule, &format!("spec.jwtRules[{index}]"), check);
    }
}

fn jwt_rule(rule: &JwtRule, path: &str, check: &mut Check) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        check.error(format!("{path}.issuer"), "one of issuer and jwksUri is needed");
    }
    check.at_most_one(path, &[("jwks", !rule.jwks.is_empty()), ("jwksUri", !rule.jwks_uri.is_empty())]);
    let uri = &rule.jwks_uri;
    if !uri.is_empty()
        && !uri
            .strip_prefix("https://")
            .or(uri.strip_prefix("http://"))
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    {
        check.error(format!("{path}.jwksUri"), format!("{uri:?} is not an http:// or https:// address"));
    }
    if !rule.jwks.is_empty() {
        jwks(&rule.jwks, &format!("{path}.jwks"), check);
    }
    for (field, list) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        for (index, _) in list.iter().enumerate().filter(|(_, value)| value.is_empty()) {
            check.error(format!("{path}.{field}[{index}]"), "a value cannot be empty");
        }
    }
    for (index, from) in rule.from_headers.iter().enumerate() {
        check.required(format!("{path}.fromHeaders[{index}].name"), &from.name);
    }
    for (index, to) in rule.output_claim_to_headers.iter().enumerate() {
        let place = format!("{path}.outputClaimToHeaders[{index}]");
        check.required(format!("{place}.claim"), &to.claim);
        check.required(format!("{place}.header"), &to.header);
        if !to.header.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            check.error(format!("{place}.header"), format!("{:?} is not a header name", to.header));
        }
    }
}

fn jwks(text: &str, path: &str, check: &mut Check) {
    let keys = match serde_json::from_str::<Value>(text) {
        Ok(set) => set.get("keys").and_then(Value::as_array).cloned(),
        Err(error) => {
            check.error(path, format!("is not JSON: {error}"));
            return;
        }
    };
    let Some(keys) = keys else {
        check.error(path, "has no list of keys, as in {\"keys\": [...]}");
        return;
    };
    for (index, key) in keys.iter().enumerate() {
        if key.get("kty").and_then(Value::as_str).is_none() {
            check.error(path, format!("key {index} has no type (kty)"));
        }
        if key.get("d").is_some() {
            check.warning(
                path,
                format!("key {index} has its private part in it, which everyone who can read this resource can read"),
            );
        }
    }
}
