//! TLS for clients (`curl`, `wget`, `openssl s_client`): what the server showed is kept, whether it is trusted or not.

use std::io;
use std::sync::Arc;

use meshlab_net::Stream;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a client trusts and shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsOptions {
    /// PEM with the authorities that are trusted.
    pub(crate) authorities: Vec<u8>,
    /// Goes on although the server's certificate is not trusted.
    pub(crate) insecure: bool,
    /// PEM with the client's own certificate chain, and with its key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Protocols offered by ALPN.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// No version below this one.
    pub(crate) only_tls13: bool,
    /// No version above TLS 1.2.
    pub(crate) only_tls12: bool,
}

/// What the server showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// Its chain, its own certificate first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Why it is not trusted.
    pub(crate) untrusted: Option<Untrusted>,
}

/// Why a certificate is not trusted, in OpenSSL's number and words (`X509_V_ERR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Untrusted {
    pub(crate) number: u32,
    pub(crate) words: &'static str,
}

impl Untrusted {
    /// The certificate is for another host.
    pub(crate) const WRONG_NAME: Self = Self { number: 62, words: "hostname mismatch" };

    fn new(error: &rustls::Error, chain: &[CertificateDer<'_>]) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else {
            return Self { number: 1, words: "unspecified certificate verification error" };
        };
        let (number, words) = match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (10, "certificate has expired"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (9, "certificate is not yet valid"),
            CertificateError::UnknownIssuer => match (chain.last().is_some_and(is_self_signed), chain.len()) {
                (true, 1) => (18, "self-signed certificate"),
                (true, _) => (19, "self-signed certificate in certificate chain"),
                (false, _) => (20, "unable to get local issuer certificate"),
            },
            CertificateError::BadSignature => (7, "certificate signature failure"),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => return Self::WRONG_NAME,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                (26, "unsuitable certificate purpose")
            }
            _ => (1, "unspecified certificate verification error"),
        };
        Self { number, words }
    }
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("no certificate of an authority in the file")]
    NoAuthorities,
    #[error("the client's certificate or key cannot be used: {0}")]
    Identity(String),
    #[error("{0} is not a name that can stand in a certificate")]
    Name(String),
    #[error("{}", .0.words)]
    Untrusted(Untrusted),
    #[error("{0}")]
    Handshake(io::Error),
}

/// A connection that was made secure.
pub(crate) struct Secured<S> {
    pub(crate) stream: TlsStream<S>,
    pub(crate) shown: Shown,
}

#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    /// None where no authority is known at all.
    inner: Option<Arc<WebPkiServerVerifier>>,
    insecure: bool,
    shown: Mutex<Shown>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = match &self.inner {
            Some(inner) => inner.verify_server_cert(own, others, name, ocsp, now).map(drop),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let chain: Vec<_> = std::iter::once(own).chain(others).map(|certificate| certificate.clone().into_owned()).collect();
        let untrusted = result.as_ref().err().map(|err| Untrusted::new(err, &chain));
        *self.shown.lock() = Shown { chain, untrusted };
        if self.insecure { Ok(ServerCertVerified::assertion()) } else { result.map(|()| ServerCertVerified::assertion()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes a connection secure. `name` is the host, or its address.
pub(crate) async fn connect<S: Stream>(stream: S, name: &str, options: &TlsOptions) -> Result<Secured<S>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&options.authorities).flatten() {
        // One broken certificate among many does not make the others useless.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() && !options.authorities.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    let inner = match roots.is_empty() {
        true => None,
        false => {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            Some(builder.build().map_err(|_| TlsError::NoAuthorities)?)
        }
    };
    let recorder = Recorder { provider: provider.clone(), inner, insecure: options.insecure, shown: Mutex::default() };
    let recorder = Arc::new(recorder);
    let versions: &[_] = match (options.only_tls12, options.only_tls13) {
        (true, _) => &[&rustls::version::TLS12],
        (_, true) => &[&rustls::version::TLS13],
        _ => rustls::ALL_VERSIONS,
    };
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.map_err(|err| TlsError::Handshake(io::Error::other(err)))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(recorder.clone());
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let identity = |err: &dyn std::fmt::Display| TlsError::Identity(err.to_string());
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|err| identity(&err))?;
            builder.with_client_auth_cert(chain.map_err(|err| identity(&err))?, key).map_err(|err| identity(&err))?
        }
    };
    config.alpn_protocols.clone_from(&options.alpn);
    let server = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
    match TlsConnector::from(Arc::new(config)).connect(server, stream).await {
        Ok(stream) => Ok(Secured { stream, shown: recorder.shown.lock().clone() }),
        Err(err) => match recorder.shown.lock().untrusted.filter(|_| !options.insecure) {
            Some(untrusted) => Err(TlsError::Untrusted(untrusted)),
            None => Err(TlsError::Handshake(err)),
        },
    }
}

/// `TLSv1.3`, as OpenSSL writes it.
pub(crate) fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    }
}

/// A cipher suite's name, as OpenSSL writes those of TLS 1.3.
pub(crate) fn cipher_name(suite: Option<rustls::SupportedCipherSuite>) -> String {
    let name = suite.map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    name.replace("TLS13_", "TLS_")
}
