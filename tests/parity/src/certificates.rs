//! A certificate authority of the mesh, and clients with identities.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use base64::Engine;
use meshlab_proxy::WorkloadIdentity;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::ConfigBuilder;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::{Value, json};

/// The mesh's certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Certificates that clients have: the same one for both proxies, which tell its hash.
    clients: Mutex<BTreeMap<String, WorkloadIdentity>>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, clients: Mutex::default() })
    }

    /// The identity of a principal (`cluster.local/ns/default/sa/server`).
    ///
    /// # Errors
    /// It is no URI.
    pub fn identity(&self, principal: &str) -> Result<WorkloadIdentity> {
        let spiffe_id = format!("spiffe://{principal}");
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(WorkloadIdentity {
            certificate_chain: certificate.pem(),
            private_key: key.serialize_pem(),
            roots: self.issuer.pem(),
            spiffe_id,
        })
    }

    /// A client that presents a principal's certificate, as a sidecar does.
    ///
    /// # Errors
    /// It is no URI.
    pub fn client(&self, principal: &str, http2: bool) -> Result<Arc<rustls::ClientConfig>> {
        let identity = {
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            match clients.get(principal) {
                Some(known) => known.clone(),
                None => clients.entry(principal.to_owned()).or_insert(self.identity(principal)?).clone(),
            }
        };
        let mut config = trusting()?.with_client_auth_cert(chain(&identity.certificate_chain)?, key(&identity.private_key)?)?;
        let offered = if http2 { ["istio-h2", "istio", "h2"] } else { ["istio-http/1.1", "istio", "http/1.1"] };
        config.alpn_protocols = offered.map(|name| name.as_bytes().to_vec()).to_vec();
        Ok(Arc::new(config))
    }

    /// A client that presents nothing.
    ///
    /// # Errors
    /// rustls is not fit to work.
    pub fn anonymous(&self, http2: bool) -> Result<Arc<rustls::ClientConfig>> {
        let mut config = trusting()?.with_no_client_auth();
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Ok(Arc::new(config))
    }

    /// A certificate for DNS names, and its key, as PEM.
    fn issue(&self, names: &[&str]) -> Result<(String, String)> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// The Secrets of the world: `trusted` knows the upstreams' authority and has a certificate of it, `stranger` is another's.
    ///
    /// # Errors
    /// No key can be made.
    pub fn secrets(&self) -> Result<Vec<Value>> {
        let secret = |name: &str, authority: &Self| -> Result<Value> {
            let (certificate, key) = authority.issue(&["gateway.example", "*.gateway.example"])?;
            let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
            Ok(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "istio-system" },
                "data": { "tls.crt": encode(&certificate), "tls.key": encode(&key), "ca.crt": encode(&authority.issuer.pem()) },
            }))
        };
        Ok(vec![secret("trusted", self)?, secret("stranger", &Self::new()?)?])
    }

    /// TLS of an upstream: for names of the mesh it has its identity, for others a certificate for [`SERVER_NAMES`]. Clients may
    /// present a certificate.
    ///
    /// # Errors
    /// No key can be made.
    pub fn server(&self, upstream: &str) -> Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certified = |certificates: &str, private: &str| -> Result<Arc<CertifiedKey>> {
            Ok(Arc::new(CertifiedKey::new(chain(certificates)?, provider.key_provider.load_private_key(key(private)?)?)))
        };
        let identity = self.identity(&format!("cluster.local/ns/default/sa/{upstream}"))?;
        let (certificate, private) = self.issue(&SERVER_NAMES)?;
        let names = ByName {
            mesh: certified(&identity.certificate_chain, &identity.private_key)?,
            other: certified(&certificate, &private)?,
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.issuer.pem().as_bytes())?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).allow_unauthenticated().build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("protocol versions")?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(names));
        config.alpn_protocols =
            ["istio-h2", "h2", "istio-http/1.1", "http/1.1", "istio"].map(|name| name.as_bytes().to_vec()).to_vec();
        Ok(Arc::new(config))
    }
}

/// Names of the upstreams' certificates, besides the mesh's.
pub const SERVER_NAMES: [&str; 2] = ["secure.example", "*.secure.example"];

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_slice(pem.as_bytes())?)
}

fn trusting() -> Result<ConfigBuilder<rustls::ClientConfig, WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))))
}

#[derive(Debug)]
struct ByName {
    mesh: Arc<CertifiedKey>,
    other: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let of_mesh = hello.server_name().is_some_and(|name| name.starts_with("outbound_"));
        Some(if of_mesh { self.mesh.clone() } else { self.other.clone() })
    }
}

/// The server is known: it was started here. What is tested is what it makes of its client.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
