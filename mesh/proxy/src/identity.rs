//! The workload's own certificate, which is replaced while connections go on.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What the mesh's CA issued to this workload.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkloadIdentity {
    /// PEM certificate chain, leaf first.
    pub certificate_chain: String,
    /// PEM private key.
    pub private_key: String,
    /// PEM bundle of the mesh's roots.
    pub roots: String,
    /// `spiffe://cluster.local/ns/default/sa/reviews`.
    pub spiffe_id: String,
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The PEM text does not parse.
    #[error("{what} is not valid PEM: {reason}")]
    Pem {
        /// Which of the fields.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// There is no certificate in the PEM text.
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    /// The key and the certificate do not belong together, or the key type is not supported.
    #[error("the private key cannot be used with the certificate: {0}")]
    Key(#[source] rustls::Error),
    /// A root cannot be used.
    #[error("a root certificate cannot be used: {0}")]
    Root(String),
}

/// A certificate, its key and the mesh's roots, ready for use.
pub(crate) struct LoadedIdentity {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) client_verifier: Arc<dyn ClientCertVerifier>,
    pub(crate) spiffe_id: Arc<str>,
    pub(crate) source: WorkloadIdentity,
}

/// The current identity, shared by every TLS configuration that uses it.
pub(crate) type CurrentIdentity = Arc<ArcSwapOption<LoadedIdentity>>;

impl LoadedIdentity {
    pub(crate) fn load(identity: WorkloadIdentity) -> Result<Self, IdentityError> {
        let certified = certified_key(&identity.certificate_chain, &identity.private_key)?;
        let roots = Arc::new(root_store(&identity.roots, "roots")?);
        let client_verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), crate::tls::provider())
            .build()
            .map_err(|error| IdentityError::Root(error.to_string()))?;
        let spiffe_id = identity.spiffe_id.as_str().into();
        Ok(Self { certified, roots, client_verifier, spiffe_id, source: identity })
    }
}

/// Parses a PEM chain and its key.
pub(crate) fn certified_key(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, IdentityError> {
    let chain = certificates(chain, "the certificate chain")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| IdentityError::Pem { what: "the private key", reason: error.to_string() })?;
    CertifiedKey::from_der(chain, key, &crate::tls::provider()).map(Arc::new).map_err(IdentityError::Key)
}

/// Parses a PEM bundle of trusted roots.
pub(crate) fn root_store(bundle: &str, what: &'static str) -> Result<RootCertStore, IdentityError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(bundle, what)? {
        store.add(certificate).map_err(|error| IdentityError::Root(error.to_string()))?;
    }
    Ok(store)
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::Pem { what, reason: error.to_string() })?;
    if certificates.is_empty() { Err(IdentityError::Empty(what)) } else { Ok(certificates) }
}
