//! RequestAuthentication: which tokens a workload takes.

use meshlab_istio_api::{Duration, JwtRule as ApiRule};
use meshlab_proxy_config::{JwtRule, Origin};

use super::selection::select;
use crate::Problem;
use crate::proxy::ProxyIdentity;
use crate::registry::origin;
use crate::snapshot::Snapshot;
use crate::sources::Sources;

/// Istio's limit for fetching keys.
const FETCH_TIMEOUT: Duration = Duration::from_millis(5_000);

/// The token rules that hold for a proxy, in order of issuer.
pub(crate) fn jwt_rules(snapshot: &Snapshot, proxy: &ProxyIdentity, problems: &mut Vec<Problem>) -> Vec<JwtRule> {
    let sources = snapshot.sources();
    let mut out = Vec::new();
    for object in select(&sources.request_authentications, proxy, &sources.mesh.root_namespace) {
        for (index, rule) in object.spec.jwt_rules.iter().enumerate() {
            let place =
                origin("RequestAuthentication", &object.meta.namespace, &object.meta.name, &format!("spec.jwtRules[{index}]"));
            out.push(jwt_rule(rule, place, sources, problems));
        }
    }
    out.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    out
}

fn jwt_rule(rule: &ApiRule, place: Origin, sources: &Sources, problems: &mut Vec<Problem>) -> JwtRule {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    // Without either, the issuer's OpenID configuration tells where the keys are.
    let fetched = if rule.jwks_uri.is_empty() { &rule.issuer } else { &rule.jwks_uri };
    let jwks = text(&rule.jwks).or_else(|| sources.jwks.get(fetched).map(ToString::to_string));
    if jwks.is_none() {
        problems
            .push(Problem::new(place.clone(), format!("the keys at {fetched} could not be fetched, so every token is refused")));
    }
    let mut from_headers: Vec<_> =
        rule.from_headers.iter().map(|from| (from.name.to_ascii_lowercase(), from.prefix.clone())).collect();
    let mut from_params = rule.from_params.clone();
    if from_headers.is_empty() && from_params.is_empty() && rule.from_cookies.is_empty() {
        from_headers.push(("authorization".into(), "Bearer ".into()));
        from_params.push("access_token".into());
    }
    JwtRule {
        origin: place,
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        jwks,
        from_headers,
        from_params,
        from_cookies: rule.from_cookies.clone(),
        output_payload_to_header: text(&rule.output_payload_to_header),
        claim_to_headers: rule
            .output_claim_to_headers
            .iter()
            .map(|to| (to.header.to_ascii_lowercase(), to.claim.clone()))
            .collect(),
        forward_original_token: rule.forward_original_token,
        timeout_ms: rule.timeout.unwrap_or(FETCH_TIMEOUT).millis(),
    }
}

/// The addresses of the key sets that RequestAuthentications need: `jwksUri`, or the issuer where its OpenID configuration has to
/// be asked.
pub fn needed_key_sets(sources: &Sources) -> std::collections::BTreeSet<String> {
    sources
        .request_authentications
        .values()
        .flat_map(|object| &object.spec.jwt_rules)
        .filter(|rule| rule.jwks.is_empty())
        .map(|rule| if rule.jwks_uri.is_empty() { rule.issuer.clone() } else { rule.jwks_uri.clone() })
        .collect()
}
