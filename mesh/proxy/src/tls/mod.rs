//! TLS with rustls and aws-lc-rs, chosen explicitly so that several proxies with different needs share a process.

pub(crate) mod client;
pub(crate) mod peer;
pub(crate) mod server;
pub(crate) mod verify;

use std::sync::{Arc, LazyLock};

use meshlab_proxy_config::{CertificateSource, Secret, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SupportedProtocolVersion};

use crate::identity::{IdentityError, certified_key, root_store};

/// The one cryptography provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// Why a TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("secret {0} is not known to this proxy; create it in the gateway's namespace")]
    MissingSecret(String),
    #[error("secret {name} cannot be used: {reason}")]
    BadSecret { name: String, reason: String },
    #[error("cannot read {path}: {reason}")]
    File { path: String, reason: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("rustls refuses the configuration: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("no certificate authority to verify client certificates with")]
    NoAuthority,
    #[error("cannot verify clients: {0}")]
    Verifier(String),
    #[error("the machine's trust store cannot be read: {0}")]
    TrustStore(String),
    #[error("{0:?} is not a valid TLS server name")]
    ServerName(String),
    #[error("lowest TLS version is above the highest")]
    Versions,
}

/// Where secrets are looked up when a TLS configuration is built.
pub(crate) type Secrets<'a> = &'a std::collections::BTreeMap<String, Arc<Secret>>;

/// The protocol versions from `min` to `max`.
pub(crate) fn versions(min: TlsVersion, max: TlsVersion) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let all = [(TlsVersion::V1_2, &rustls::version::TLS12), (TlsVersion::V1_3, &rustls::version::TLS13)];
    let chosen: Vec<_> =
        all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, version)| version).collect();
    if chosen.is_empty() { Err(TlsError::Versions) } else { Ok(chosen) }
}

/// The certificate and key that a fixed source names.
pub(crate) fn load_certificate(source: &CertificateSource, secrets: Secrets<'_>) -> Result<Arc<CertifiedKey>, TlsError> {
    match source {
        CertificateSource::Workload => Err(TlsError::MissingSecret("workload".to_owned())),
        CertificateSource::Secret(name) => {
            let secret = find_secret(name, secrets)?;
            certified_key(&secret.certificate_chain, &secret.private_key)
                .map_err(|error| TlsError::BadSecret { name: name.clone(), reason: error.to_string() })
        }
        CertificateSource::Files { certificate, private_key, .. } => Ok(certified_key(&read(certificate)?, &read(private_key)?)?),
    }
}

/// The CA bundle that a fixed source names, if it has one.
pub(crate) fn load_roots(source: &CertificateSource, secrets: Secrets<'_>) -> Result<Option<RootCertStore>, TlsError> {
    let (bundle, name) = match source {
        CertificateSource::Workload => return Ok(None),
        CertificateSource::Secret(name) => (find_secret(name, secrets)?.ca_certificates.clone(), name.clone()),
        CertificateSource::Files { ca: Some(path), .. } => (read(path)?, path.clone()),
        CertificateSource::Files { ca: None, .. } => return Ok(None),
    };
    if bundle.is_empty() {
        return Ok(None);
    }
    root_store(&bundle, "the CA bundle").map(Some).map_err(|error| TlsError::BadSecret { name, reason: error.to_string() })
}

/// The roots that the machine trusts, read once: there are some hundred and fifty of them.
pub(crate) fn machine_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: LazyLock<Result<Arc<RootCertStore>, String>> = LazyLock::new(|| {
        let loaded = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(loaded.certs);
        if store.is_empty() {
            let reasons: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
            return Err(format!("it is empty; {}", reasons.join("; ")));
        }
        Ok(Arc::new(store))
    });
    ROOTS.clone().map_err(TlsError::TrustStore)
}

fn find_secret<'a>(name: &str, secrets: Secrets<'a>) -> Result<&'a Secret, TlsError> {
    let secret = secrets.get(name).ok_or_else(|| TlsError::MissingSecret(name.to_owned()))?;
    match &secret.error {
        Some(reason) => Err(TlsError::BadSecret { name: name.to_owned(), reason: reason.clone() }),
        None => Ok(secret),
    }
}

fn read(path: &str) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(|error| TlsError::File { path: path.to_owned(), reason: error.to_string() })
}
