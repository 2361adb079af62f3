//! TLS that the proxy starts towards upstreams.

use std::sync::Arc;

use meshlab_proxy_config::{CertificateSource, MeshTls, TlsVersion, UpstreamTls};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::ServerName;

use super::server::{FixedCertificate, WorkloadCertificate};
use super::verify::{AcceptedIdentities, MeshServerVerifier, NamedServerVerifier};
use super::{Secrets, TlsError, load_certificate, load_roots, machine_roots, provider, versions};
use crate::identity::CurrentIdentity;

/// Tickets kept for one server name; rustls counts eight to a name.
const SESSIONS: usize = 8;

/// What will be spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Inner {
    Http1,
    Http2,
    Tcp,
}

/// A cluster's TLS, compiled: one rustls configuration for each protocol spoken inside, since ALPN differs.
pub(crate) struct ClientTls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    tcp: Arc<ClientConfig>,
    pub(crate) server_name: ServerName<'static>,
    /// Mesh mutual TLS, as opposed to TLS of one's own.
    pub(crate) mesh: bool,
}

impl ClientTls {
    /// Mutual TLS inside the mesh.
    pub(crate) fn mesh(config: &MeshTls, identity: &CurrentIdentity) -> Result<Self, TlsError> {
        let verifier = Arc::new(MeshServerVerifier {
            identity: identity.clone(),
            accepted: AcceptedIdentities { names: config.subject_alt_names.clone(), trust_domains: Vec::new() },
        });
        let base = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions(TlsVersion::V1_2, TlsVersion::V1_3)?)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(WorkloadCertificate(identity.clone())));
        Self::with_alpn(base, &config.sni, |inner| mesh_alpn(&config.alpn, inner), true)
    }

    /// TLS to a server outside of the mesh. `fallback_name` is verified and sent when no server name is configured.
    pub(crate) fn custom(
        config: &UpstreamTls,
        fallback_name: &str,
        secrets: Secrets<'_>,
        identity: &CurrentIdentity,
    ) -> Result<Option<Self>, TlsError> {
        let UpstreamTls::Custom { sni, client_certificate, ca, subject_alt_names, skip_verification, min_version } = config
        else {
            return Ok(None);
        };
        let roots = match (skip_verification, ca) {
            (true, _) => None,
            (false, Some(source)) => Some(Arc::new(load_roots(source, secrets)?.ok_or(TlsError::NoAuthority)?)),
            (false, None) => Some(machine_roots()?),
        };
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(NamedServerVerifier { roots, names: subject_alt_names.clone() });
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions(*min_version, TlsVersion::newest())?)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let base = match client_certificate {
            None => builder.with_no_client_auth(),
            Some(CertificateSource::Workload) => {
                builder.with_client_cert_resolver(Arc::new(WorkloadCertificate(identity.clone())))
            }
            Some(source) => {
                let certified = load_certificate(source, secrets)?;
                builder.with_client_cert_resolver(Arc::new(FixedCertificate(certified)))
            }
        };
        let name = sni.as_deref().unwrap_or(fallback_name);
        Self::with_alpn(base, name, custom_alpn, false).map(Some)
    }

    fn with_alpn(mut base: ClientConfig, name: &str, alpn: impl Fn(Inner) -> Vec<Vec<u8>>, mesh: bool) -> Result<Self, TlsError> {
        let server_name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
        // A cluster asks for one server name. rustls makes room for 32 of them at once, which a hundred clusters in each of a dozen
        // proxies pay with 8 MB.
        base.resumption = Resumption::in_memory_sessions(SESSIONS);
        let with = |inner| {
            let mut config = base.clone();
            config.alpn_protocols = alpn(inner);
            Arc::new(config)
        };
        Ok(Self { http1: with(Inner::Http1), http2: with(Inner::Http2), tcp: with(Inner::Tcp), server_name, mesh })
    }

    pub(crate) fn config(&self, inner: Inner) -> Arc<ClientConfig> {
        match inner {
            Inner::Http1 => self.http1.clone(),
            Inner::Http2 => self.http2.clone(),
            Inner::Tcp => self.tcp.clone(),
        }
    }
}

/// Istio's ALPN filter: what is offered tells the server's proxy what is spoken inside.
fn mesh_alpn(configured: &[String], inner: Inner) -> Vec<Vec<u8>> {
    let fits = |name: &str| match inner {
        Inner::Http1 => !matches!(name, "istio-h2" | "h2" | "istio-peer-exchange"),
        Inner::Http2 => !matches!(name, "istio-http/1.1" | "http/1.1" | "istio-http/1.0" | "istio-peer-exchange"),
        Inner::Tcp => !matches!(name, "istio-http/1.1" | "http/1.1" | "istio-http/1.0" | "istio-h2" | "h2"),
    };
    let mut offered: Vec<Vec<u8>> = match inner {
        Inner::Http1 => vec![b"istio-http/1.1".to_vec()],
        Inner::Http2 => vec![b"istio-h2".to_vec()],
        Inner::Tcp => Vec::new(),
    };
    for name in configured.iter().filter(|name| fits(name)) {
        if !offered.iter().any(|have| have == name.as_bytes()) {
            offered.push(name.as_bytes().to_vec());
        }
    }
    offered
}

fn custom_alpn(inner: Inner) -> Vec<Vec<u8>> {
    match inner {
        Inner::Http1 => vec![b"http/1.1".to_vec()],
        Inner::Http2 => vec![b"h2".to_vec()],
        Inner::Tcp => Vec::new(),
    }
}
