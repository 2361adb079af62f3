//! Service-account tokens: JSON web tokens, signed by the cluster, bound to the objects they were issued for.

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::UserInfo;
use crate::store::{GroupResource, Key, Store};

/// Issuer and default audience.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// What a projected token gets if nothing is said.
const DEFAULT_SECONDS: i64 = 3600;
/// Kubernetes' lower and upper limits.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// What a token is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Audiences; none for the API server itself.
    pub audiences: Vec<String>,
    /// Lifetime in seconds; an hour if it is not given.
    pub expiration_seconds: Option<i64>,
    /// The object whose end is the token's end.
    pub bound_to: Option<BoundObject>,
}

/// An object that a token is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoundObject {
    /// `Pod`, `Secret` or `Node`.
    pub kind: String,
    /// Its name, in the namespace of the service account.
    pub name: String,
    /// Its UID; the current one if it is empty.
    pub uid: String,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// What goes behind `Bearer `.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a token cannot be issued or is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Signature, lifetime, issuer or audience.
    #[error("the token is not valid: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// The account or what the token was bound to.
    #[error("{kind} {name:?} does not exist or is another one by now")]
    Gone {
        /// Kind of the object.
        kind: &'static str,
        /// `namespace/name`
        name: String,
    },
    /// Only these can be bound to.
    #[error("cannot bind a token to a {0}: only Pod, Node and Secret")]
    UnknownBinding(String),
    /// Shorter than ten minutes.
    #[error("may not specify a duration less than 10 minutes")]
    TooShort,
    /// The signing key.
    #[error("the signing key is not usable: {0}")]
    Key(#[from] rcgen::Error),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    jti: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Serialize, Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
}

#[derive(Serialize, Deserialize, Clone)]
struct Reference {
    name: String,
    uid: String,
}

/// What a token says.
pub(crate) struct Binding {
    pub(crate) user: UserInfo,
    pub(crate) audiences: Vec<String>,
}

/// Issues and verifies.
pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    header: Header,
}

fn object(store: &Store, resource: &'static str, namespace: &str, name: &str) -> Option<Reference> {
    let found = store.get(&GroupResource::new("", resource), &Key::new(namespace, name))?;
    Some(Reference { name: name.to_owned(), uid: found.uid().to_owned() })
}

impl Tokens {
    /// # Errors
    /// The key is no EC key in PEM.
    pub(crate) fn new(key: &str) -> Result<Self, TokenError> {
        let pair = KeyPair::from_pem(key)?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("meshlab".into());
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(key.as_bytes())?,
            decoding: DecodingKey::from_ec_der(pair.public_key_raw()),
            header,
        })
    }

    /// Issues a token for a service account.
    pub(crate) fn issue(
        &self,
        store: &Store,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<IssuedToken, TokenError> {
        let seconds = request.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        if seconds < SHORTEST {
            return Err(TokenError::TooShort);
        }
        let now = Timestamp::now().as_second();
        let exp = now + seconds.min(LONGEST);
        let gone = |kind, name: &str| TokenError::Gone { kind, name: format!("{namespace}/{name}") };
        let serviceaccount =
            object(store, "serviceaccounts", namespace, account).ok_or_else(|| gone("ServiceAccount", account))?;
        let mut kubernetes =
            KubernetesClaims { namespace: namespace.to_owned(), serviceaccount, pod: None, secret: None, node: None };
        if let Some(bound) = &request.bound_to {
            let find = |kind, resource, namespace: &str| {
                let found = object(store, resource, namespace, &bound.name).ok_or_else(|| gone(kind, &bound.name))?;
                let same = bound.uid.is_empty() || bound.uid == found.uid;
                if same { Ok(found) } else { Err(gone(kind, &bound.name)) }
            };
            match bound.kind.as_str() {
                "Pod" => {
                    kubernetes.pod = Some(find("Pod", "pods", namespace)?);
                    let pod = store.get(&GroupResource::new("", "pods"), &Key::new(namespace, &bound.name));
                    let node = pod.and_then(|pod| pod.value()["spec"]["nodeName"].as_str().map(str::to_owned));
                    kubernetes.node = node.and_then(|node| object(store, "nodes", "", &node));
                }
                "Secret" => kubernetes.secret = Some(find("Secret", "secrets", namespace)?),
                "Node" => kubernetes.node = Some(find("Node", "nodes", "")?),
                other => return Err(TokenError::UnknownBinding(other.to_owned())),
            }
        }
        let aud = if request.audiences.is_empty() { vec![ISSUER.to_owned()] } else { request.audiences.clone() };
        let sub = format!("system:serviceaccount:{namespace}:{account}");
        let jti = crate::rest::meta::new_uid();
        let claims = Claims { aud, exp, iat: now, nbf: now, iss: ISSUER.to_owned(), jti, sub, kubernetes };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.encoding)?;
        Ok(IssuedToken { token, expires: Timestamp::from_second(exp).unwrap_or(Timestamp::MAX) })
    }

    /// Verifies a token for any of the audiences; none means the API server.
    pub(crate) fn verify(&self, token: &str, audiences: &[String], store: &Store) -> Result<Binding, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.validate_nbf = true;
        if audiences.is_empty() {
            validation.set_audience(&[ISSUER]);
        } else {
            validation.set_audience(audiences);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)?.claims;
        let kubernetes = &claims.kubernetes;
        let check = |kind, resource, namespace: &str, reference: &Reference| {
            let found = object(store, resource, namespace, &reference.name);
            let alive = found.is_some_and(|found| found.uid == reference.uid);
            if alive { Ok(()) } else { Err(TokenError::Gone { kind, name: format!("{namespace}/{}", reference.name) }) }
        };
        let namespace = &kubernetes.namespace;
        check("ServiceAccount", "serviceaccounts", namespace, &kubernetes.serviceaccount)?;
        if let Some(pod) = &kubernetes.pod {
            check("Pod", "pods", namespace, pod)?;
        }
        if let Some(secret) = &kubernetes.secret {
            check("Secret", "secrets", namespace, secret)?;
        }
        let mut user = UserInfo::service_account(namespace, &kubernetes.serviceaccount.name);
        user.uid.clone_from(&kubernetes.serviceaccount.uid);
        let mut extra = |name: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]);
        };
        extra("credential-id", &format!("JTI={}", claims.jti));
        for (kind, reference) in [("pod", &kubernetes.pod), ("node", &kubernetes.node)] {
            if let Some(reference) = reference {
                extra(&format!("{kind}-name"), &reference.name);
                extra(&format!("{kind}-uid"), &reference.uid);
            }
        }
        let wanted = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences.to_vec() };
        let audiences = wanted.into_iter().filter(|audience| claims.aud.contains(audience)).collect();
        Ok(Binding { user, audiences })
    }
}
