//! RequestAuthentication: tokens are looked for, verified, and their claims passed on (fact 40).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use meshlab_proxy_config::{JwtRule, Origin};
use serde_json::Value;

use super::AccessError;
use crate::http::local_reply::LocalReply;
use crate::matching::header_name;
use crate::route::action::cookie;
use crate::route::matcher::{Claims, query_parameter};

/// Envoy's tolerance for clocks that differ, in seconds.
const CLOCK_SKEW: u64 = 60;
/// A token longer than this is not looked into.
const MAXIMUM_TOKEN: usize = 16 * 1024;

/// The rules of a chain. Any one of them suffices.
pub(crate) struct Jwt {
    rules: Vec<Rule>,
}

struct Rule {
    origin: Origin,
    issuer: String,
    audiences: Vec<String>,
    /// `None`: the key set could not be had.
    keys: Option<Vec<Key>>,
    from_headers: Vec<(HeaderName, String)>,
    from_params: Vec<String>,
    from_cookies: Vec<String>,
    payload_header: Option<HeaderName>,
    claim_headers: Vec<(HeaderName, String)>,
    forward: bool,
}

struct Key {
    id: Option<String>,
    /// What the key set says it is for.
    named: Option<String>,
    /// What it can be used for.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Envoy's names of what is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JwtStatus {
    BadFormat,
    HeaderEncoding,
    HeaderJson,
    PayloadEncoding,
    PayloadJson,
    SignatureEncoding,
    Expired,
    NotYetValid,
    UnknownIssuer,
    AudienceNotAllowed,
    VerificationFails,
    NoMatchingKey,
    KeysMissing,
}

/// A token that does not pass.
pub(crate) struct JwtFailure {
    pub(crate) status: JwtStatus,
    pub(crate) origin: Origin,
}

impl JwtStatus {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::BadFormat => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Self::HeaderEncoding => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::PayloadEncoding => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::SignatureEncoding => "Jwt signature is an invalid Base64url encoded",
            Self::Expired => "Jwt is expired",
            Self::NotYetValid => "Jwt not yet valid",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::VerificationFails => "Jwt verification fails",
            Self::NoMatchingKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::KeysMissing => "Jwks remote fetch is failed",
        }
    }
}

impl JwtFailure {
    /// Envoy's 401 (403 for another audience), with what RFC 6750 wants.
    pub(crate) fn into_reply(self, scheme: &str, authority: &str, path: &str) -> LocalReply {
        let text = self.status.text();
        let status = if self.status == JwtStatus::AudienceNotAllowed { 403 } else { 401 };
        let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
        let reply = LocalReply::new(status, details).body(text);
        let challenge = format!("Bearer realm=\"{scheme}://{authority}{path}\", error=\"invalid_token\"");
        match HeaderValue::from_str(&challenge) {
            Ok(challenge) => reply.header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => reply,
        }
    }
}

/// A token and where it was.
struct Found {
    token: String,
    place: Place,
}

enum Place {
    Header(HeaderName),
    Parameter(String),
    Cookie,
}

impl Jwt {
    pub(super) fn new(rules: &[JwtRule]) -> Result<Self, AccessError> {
        Ok(Self { rules: rules.iter().map(Rule::new).collect::<Result<_, _>>()? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Verifies the request's tokens, as Envoy does with what Istio asks of it: one rule must find tokens and take all of them, or
    /// every token that is found must be taken by some rule.
    pub(crate) fn verify(&self, headers: &mut HeaderMap, path: &mut String) -> Result<Option<Claims>, JwtFailure> {
        // What these headers say must come from a token.
        for rule in &self.rules {
            if let Some(name) = &rule.payload_header {
                headers.remove(name);
            }
            rule.claim_headers.iter().for_each(|(name, _)| drop(headers.remove(name)));
        }
        let judged: Vec<Judged<'_>> = self.rules.iter().flat_map(|rule| rule.judge(headers, path)).collect();
        let of_rule = |rule: &Rule| judged.iter().filter(move |judged| std::ptr::eq(judged.rule, rule)).collect::<Vec<_>>();
        let content =
            self.rules.iter().map(of_rule).find(|own| !own.is_empty() && own.iter().all(|judged| judged.claims.is_ok()));
        let taken: Vec<&Judged<'_>> = match content {
            Some(own) => own,
            None => {
                if let Some(failure) = failure(&judged) {
                    return Err(failure);
                }
                judged.iter().filter(|judged| judged.claims.is_ok()).collect()
            }
        };
        let mut accepted = None;
        for Judged { rule, found, claims } in taken {
            let Ok(claims) = claims else { continue };
            rule.pass_on(claims, &found.token, headers);
            if !rule.forward {
                remove(&found.place, headers, path);
            }
            accepted = Some(Claims::new(claims.clone()));
        }
        Ok(accepted)
    }
}

/// A token as one rule sees it.
struct Judged<'a> {
    rule: &'a Rule,
    found: Found,
    claims: Result<Value, JwtStatus>,
}

/// What is wrong with the first token that no rule takes. That it is another issuer's says less than what else is wrong with it.
fn failure(judged: &[Judged<'_>]) -> Option<JwtFailure> {
    let taken = |token: &str| judged.iter().any(|other| other.found.token == token && other.claims.is_ok());
    let failures = judged.iter().filter(|judged| !taken(&judged.found.token)).filter_map(|judged| {
        let status = *judged.claims.as_ref().err()?;
        Some(JwtFailure { status, origin: judged.rule.origin.clone() })
    });
    failures.min_by_key(|failure| failure.status == JwtStatus::UnknownIssuer)
}

impl Rule {
    fn new(config: &JwtRule) -> Result<Self, AccessError> {
        let failed = |reason: String| AccessError::Jwt {
            namespace: config.origin.namespace.clone(),
            name: config.origin.name.clone(),
            reason,
        };
        let name = |name: &str| header_name(name).map_err(|error| failed(error.to_string()));
        let keys = config.jwks.as_deref().map(parse_keys).transpose().map_err(failed)?;
        let mut from_headers = config
            .from_headers
            .iter()
            .map(|(header, prefix)| Ok((name(header)?, prefix.clone())))
            .collect::<Result<Vec<_>, AccessError>>()?;
        let mut from_params = config.from_params.clone();
        // Envoy's defaults where no place is named.
        if from_headers.is_empty() && from_params.is_empty() && config.from_cookies.is_empty() {
            from_headers.push((header::AUTHORIZATION, "Bearer ".to_owned()));
            from_params.push("access_token".to_owned());
        }
        Ok(Self {
            origin: config.origin.clone(),
            issuer: config.issuer.clone(),
            audiences: config.audiences.clone(),
            keys,
            from_headers,
            from_params,
            from_cookies: config.from_cookies.clone(),
            payload_header: config.output_payload_to_header.as_deref().map(name).transpose()?,
            claim_headers: config
                .claim_to_headers
                .iter()
                .map(|(header, claim)| Ok((name(header)?, claim.clone())))
                .collect::<Result<_, AccessError>>()?,
            forward: config.forward_original_token,
        })
    }

    /// Every token that is where this rule looks, verified.
    fn judge<'a>(&'a self, headers: &HeaderMap, path: &str) -> Vec<Judged<'a>> {
        let found = self.find(headers, path).into_iter();
        found.map(|found| Judged { claims: self.verify(&found.token), rule: self, found }).collect()
    }

    fn find(&self, headers: &HeaderMap, path: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for (name, prefix) in &self.from_headers {
            for value in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
                // The prefix may stand anywhere: Envoy looks for it.
                let Some(at) = value.find(prefix.as_str()) else { continue };
                let token = value[at + prefix.len()..].trim_start();
                let token: String = token.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.=".contains(*c)).collect();
                found.push(Found { token, place: Place::Header(name.clone()) });
            }
        }
        for name in &self.from_params {
            if let Some(token) = query_parameter(path, name) {
                found.push(Found { token: token.to_owned(), place: Place::Parameter(name.clone()) });
            }
        }
        for name in &self.from_cookies {
            if let Some(token) = cookie(headers, name) {
                found.push(Found { token: token.to_owned(), place: Place::Cookie });
            }
        }
        found
    }

    fn verify(&self, token: &str) -> Result<Value, JwtStatus> {
        let sections: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = sections[..] else { return Err(JwtStatus::BadFormat) };
        if token.len() > MAXIMUM_TOKEN || sections.contains(&"") {
            return Err(JwtStatus::BadFormat);
        }
        let header = decode(header).ok_or(JwtStatus::HeaderEncoding)?;
        object(&header).ok_or(JwtStatus::HeaderJson)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtStatus::NoMatchingKey)?;
        let claims = decode(claims).ok_or(JwtStatus::PayloadEncoding)?;
        let claims = object(&claims).ok_or(JwtStatus::PayloadJson)?;
        decode(signature).ok_or(JwtStatus::SignatureEncoding)?;
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(JwtStatus::UnknownIssuer);
        }
        let now = jsonwebtoken::get_current_timestamp();
        let time = |name: &str| claims.get(name).and_then(Value::as_f64).map(|seconds| seconds as u64);
        if time("nbf").is_some_and(|begin| begin > now + CLOCK_SKEW) {
            return Err(JwtStatus::NotYetValid);
        }
        if time("exp").is_some_and(|end| end.saturating_add(CLOCK_SKEW) < now) {
            return Err(JwtStatus::Expired);
        }
        if !self.audiences.is_empty() {
            let theirs = claims.get("aud").map(crate::route::matcher::value_strings).unwrap_or_default();
            // A trailing slash, and the scheme, do not count.
            let plain = |audience: &str| {
                let audience = audience.trim_end_matches('/');
                audience.strip_prefix("https://").or(audience.strip_prefix("http://")).unwrap_or(audience).to_owned()
            };
            if !theirs.iter().any(|audience| self.audiences.iter().any(|wanted| plain(wanted) == plain(audience))) {
                return Err(JwtStatus::AudienceNotAllowed);
            }
        }
        let keys = self.keys.as_ref().ok_or(JwtStatus::KeysMissing)?;
        let mut validation = Validation::new(header.alg);
        // All claims were looked at above, in Envoy's order.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let candidates: Vec<&Key> = keys.iter().filter(|key| key.may_have_signed(&header)).collect();
        if candidates.is_empty() {
            return Err(JwtStatus::NoMatchingKey);
        }
        let verified = candidates
            .iter()
            .filter(|key| key.algorithms.contains(&header.alg))
            .any(|key| jsonwebtoken::decode::<Value>(token, &key.key, &validation).is_ok());
        if verified { Ok(claims) } else { Err(JwtStatus::VerificationFails) }
    }

    fn pass_on(&self, claims: &Value, token: &str, headers: &mut HeaderMap) {
        if let Some(name) = &self.payload_header
            && let Some(payload) = token.split('.').nth(1)
            && let Ok(value) = HeaderValue::from_str(payload)
        {
            headers.insert(name, value);
        }
        for (name, path) in &self.claim_headers {
            let claim = claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, key| value.get(key)));
            let text = match claim {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                Some(value @ (Value::Array(_) | Value::Object(_))) => encode(value.to_string().as_bytes()),
                Some(Value::Null) | None => continue,
            };
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
    }
}

fn remove(place: &Place, headers: &mut HeaderMap, path: &mut String) {
    match place {
        Place::Header(name) => drop(headers.remove(name)),
        // Envoy leaves cookies.
        Place::Cookie => {}
        Place::Parameter(name) => {
            let Some((start, query)) = path.split_once('?') else { return };
            let kept: Vec<&str> = query.split('&').filter(|pair| pair.split('=').next() != Some(name.as_str())).collect();
            *path = if kept.is_empty() { start.to_owned() } else { format!("{start}?{}", kept.join("&")) };
        }
    }
}

fn encode(text: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn decode(section: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(section).ok()
}

fn object(json: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(json).ok().filter(Value::is_object)
}

fn parse_keys(jwks: &str) -> Result<Vec<Key>, String> {
    let raw: Value = serde_json::from_str(jwks).map_err(|error| format!("the key set is not JSON: {error}"))?;
    let entries = raw.get("keys").and_then(Value::as_array).ok_or("the key set has no `keys`")?;
    // A key of a kind that is not known does not spoil the others.
    let keys: Vec<Key> = entries
        .iter()
        .filter_map(|entry| serde_json::from_value::<Jwk>(entry.clone()).ok())
        .filter(|jwk| !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)))
        .filter_map(|jwk| Key::new(&jwk))
        .collect();
    if keys.is_empty() { Err("the key set has no key that can be used".to_owned()) } else { Ok(keys) }
}

impl Key {
    fn new(jwk: &Jwk) -> Option<Self> {
        use jsonwebtoken::jwk::{AlgorithmParameters as P, EllipticCurve};
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let possible: &[Algorithm] = match &jwk.algorithm {
            P::RSA(_) => {
                &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]
            }
            P::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => &[Algorithm::ES384],
            P::EllipticCurve(_) => &[Algorithm::ES256],
            P::OctetKey(_) => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            P::OctetKeyPair(_) => &[Algorithm::EdDSA],
            _ => return None,
        };
        let named = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let algorithms = possible
            .iter()
            .filter(|algorithm| named.as_ref().is_none_or(|named| *named == format!("{algorithm:?}")))
            .copied()
            .collect();
        Some(Self { id: jwk.common.key_id.clone(), named, algorithms, key })
    }

    /// Neither its id nor its algorithm speaks against it.
    fn may_have_signed(&self, header: &jsonwebtoken::Header) -> bool {
        let id = self.id.is_none() || header.kid.is_none() || self.id == header.kid;
        id && self.named.as_ref().is_none_or(|named| *named == format!("{:?}", header.alg))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HS256_TOKEN: &str = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIn0.eA";

    fn rule() -> JwtRule {
        JwtRule {
            origin: Origin { kind: "RequestAuthentication".into(), namespace: "n".into(), name: "n".into(), path: String::new() },
            issuer: "i".into(),
            audiences: Vec::new(),
            jwks: Some(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#.into()),
            from_headers: Vec::new(),
            from_params: Vec::new(),
            from_cookies: Vec::new(),
            output_payload_to_header: None,
            claim_to_headers: Vec::new(),
            forward_original_token: false,
            timeout_ms: 0,
        }
    }

    #[test]
    fn a_key_set_that_could_not_be_had_lets_no_token_pass() {
        let jwt = Jwt::new(&[JwtRule { jwks: None, ..rule() }]).unwrap();
        let mut headers = HeaderMap::new();
        assert!(jwt.verify(&mut headers, &mut "/".to_owned()).is_ok(), "without a token");
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(HS256_TOKEN));
        let failure = jwt.verify(&mut headers, &mut "/".to_owned()).err().unwrap();
        assert_eq!(failure.status, JwtStatus::KeysMissing);
    }

    #[test]
    fn a_token_cannot_choose_an_algorithm_that_the_key_is_not_for() {
        for (named, status) in [("\"alg\":\"RS256\",", JwtStatus::NoMatchingKey), ("", JwtStatus::VerificationFails)] {
            let rsa = format!("{{\"keys\":[{{\"kty\":\"RSA\",{named}\"n\":\"AQAB\",\"e\":\"AQAB\"}}]}}");
            let jwt = Jwt::new(&[JwtRule { jwks: Some(rsa), ..rule() }]).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(HS256_TOKEN));
            let failure = jwt.verify(&mut headers, &mut "/".to_owned()).err().unwrap();
            assert_eq!(failure.status, status);
        }
    }

    #[test]
    fn a_token_may_be_good_for_longer_than_time_can_be_counted() {
        let jwt = Jwt::new(&[rule()]).unwrap();
        let mut headers = HeaderMap::new();
        // exp is 1e30.
        let token = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIiwiZXhwIjoxZTMwfQ.eA";
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(token));
        let failure = jwt.verify(&mut headers, &mut "/".to_owned()).err().unwrap();
        assert_eq!(failure.status, JwtStatus::VerificationFails);
    }

    proptest! {
        #[test]
        fn any_token_is_survived(token in "[ -~]{0,60}", query in "[ -~]{0,60}") {
            let jwt = Jwt::new(&[rule()]).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
            let _ = jwt.verify(&mut headers, &mut format!("/?access_token={query}"));
        }
    }
}
