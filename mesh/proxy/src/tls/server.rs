//! TLS that the proxy terminates.

use std::fmt;
use std::sync::Arc;

use meshlab_proxy_config::{CertificateSource, ClientCertificate, DownstreamTls};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::verify::{AcceptedIdentities, MeshClientVerifier, NamedClientVerifier};
use super::{Secrets, TlsError, load_certificate, load_roots, provider, versions};
use crate::identity::CurrentIdentity;

/// A chain's TLS, compiled.
pub(crate) struct ServerTls {
    offering: Arc<ServerConfig>,
    /// For clients whose protocols we do not know: BoringSSL goes on without ALPN, rustls would break the handshake off.
    plain: Arc<ServerConfig>,
    alpn: Vec<Vec<u8>>,
}

/// The workload's certificate, as it is at the time of each handshake.
pub(crate) struct WorkloadCertificate(pub(crate) CurrentIdentity);

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadCertificate")
    }
}

impl ResolvesServerCert for WorkloadCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|identity| identity.certified.clone())
    }
}

impl rustls::client::ResolvesClientCert for WorkloadCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|identity| identity.certified.clone())
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// A certificate that stays as it is.
#[derive(Debug)]
pub(crate) struct FixedCertificate(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl rustls::client::ResolvesClientCert for FixedCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerTls {
    pub(crate) fn new(config: &DownstreamTls, secrets: Secrets<'_>, identity: &CurrentIdentity) -> Result<Self, TlsError> {
        let resolver: Arc<dyn ResolvesServerCert> = match &config.certificate {
            CertificateSource::Workload => Arc::new(WorkloadCertificate(identity.clone())),
            source => Arc::new(FixedCertificate(load_certificate(source, secrets)?)),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions(config.min_version, config.max_version)?)?;
        let builder = match client_verifier(config, secrets, identity)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let plain = builder.with_cert_resolver(resolver);
        let alpn: Vec<Vec<u8>> = config.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut offering = plain.clone();
        offering.alpn_protocols.clone_from(&alpn);
        Ok(Self { offering: Arc::new(offering), plain: Arc::new(plain), alpn })
    }

    /// The configuration for a client that offers `alpn`.
    pub(crate) fn for_client<'a>(&self, mut offered: impl Iterator<Item = &'a [u8]>) -> Arc<ServerConfig> {
        let known = offered.any(|protocol| self.alpn.iter().any(|ours| ours == protocol));
        if known { self.offering.clone() } else { self.plain.clone() }
    }
}

fn client_verifier(
    config: &DownstreamTls,
    secrets: Secrets<'_>,
    identity: &CurrentIdentity,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let against_ca = |names: &[String], optional: bool| -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let roots = load_roots(&config.certificate, secrets)?.ok_or(TlsError::NoAuthority)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if optional { builder.allow_unauthenticated() } else { builder };
        let inner = builder.build().map_err(|error| TlsError::Verifier(error.to_string()))?;
        Ok(Some(Arc::new(NamedClientVerifier { inner, names: names.to_vec() })))
    };
    match &config.client_certificate {
        ClientCertificate::None => Ok(None),
        ClientCertificate::Mesh { trust_domains } => Ok(Some(Arc::new(MeshClientVerifier {
            identity: identity.clone(),
            accepted: AcceptedIdentities { names: Vec::new(), trust_domains: trust_domains.clone() },
        }))),
        ClientCertificate::Required { subject_alt_names } => against_ca(subject_alt_names, false),
        ClientCertificate::Optional => against_ca(&[], true),
    }
}
