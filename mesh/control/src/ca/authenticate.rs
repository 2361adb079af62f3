//! Who is asking: a service-account token or a certificate of this mesh.

use std::fmt;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use meshlab_proxy_config::discovery::TOKEN_AUDIENCE;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// A workload's identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// `cluster.local`.
    pub trust_domain: String,
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl Identity {
    /// Reads `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn parse(uri: &str) -> Option<Self> {
        let parts: Vec<_> = uri.strip_prefix("spiffe://")?.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts.as_slice() else { return None };
        let filled = [trust_domain, namespace, service_account].iter().all(|part| !part.is_empty());
        filled.then(|| Self {
            trust_domain: (*trust_domain).to_owned(),
            namespace: (*namespace).to_owned(),
            service_account: (*service_account).to_owned(),
        })
    }

    /// The identity in a client certificate that TLS has verified.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let uri = names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })?;
        Self::parse(uri)
    }
}

/// The caller could not be authenticated.
#[derive(Debug, Error)]
pub enum AuthenticateError {
    /// Neither token nor certificate.
    #[error("no credentials: send a service-account token with audience {TOKEN_AUDIENCE} or use a mesh certificate")]
    None,
    /// The API server does not accept the token.
    #[error("token is not authenticated: {0}")]
    Token(String),
    /// The token is not a service account's.
    #[error("{0:?} is not a service account")]
    NoServiceAccount(String),
    /// It could not be asked.
    #[error("token review failed: {0}")]
    Review(#[from] kube::Error),
}

/// Finds out who a caller is.
pub struct Authenticator {
    client: kube::Client,
    trust_domain: String,
}

impl Authenticator {
    /// Asks `client` about tokens, which get identities in `trust_domain`.
    pub fn new(client: kube::Client, trust_domain: &str) -> Self {
        Self { client, trust_domain: trust_domain.to_owned() }
    }

    /// A verified certificate says it all; otherwise the API server is asked about the token.
    ///
    /// # Errors
    /// See [`AuthenticateError`].
    pub async fn identify(&self, certificate: Option<&Identity>, token: Option<&str>) -> Result<Identity, AuthenticateError> {
        match (certificate, token) {
            (Some(identity), _) => Ok(identity.clone()),
            (None, Some(token)) => self.review(token).await,
            (None, None) => Err(AuthenticateError::None),
        }
    }

    async fn review(&self, token: &str) -> Result<Identity, AuthenticateError> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Err(AuthenticateError::Token(status.error.unwrap_or_else(|| "unknown token".into())));
        }
        let username = status.user.and_then(|user| user.username).unwrap_or_default();
        let account = username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let Some((namespace, service_account)) = account else { return Err(AuthenticateError::NoServiceAccount(username)) };
        Ok(Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_ids_are_read_strictly() {
        let id = "spiffe://cluster.local/ns/default/sa/sleep";
        assert_eq!(Identity::parse(id).unwrap().to_string(), id);
        for bad in
            ["spiffe://cluster.local/ns//sa/sleep", "spiffe://cluster.local/ns/default/sa/sleep/x", "https://a/ns/b/sa/c", ""]
        {
            assert_eq!(Identity::parse(bad), None, "{bad}");
        }
    }
}
