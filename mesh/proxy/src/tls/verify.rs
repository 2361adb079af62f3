//! Verification of peers: by SPIFFE identity inside the mesh, by name outside of it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::peer::{PeerCertificate, trust_domain};
use crate::identity::CurrentIdentity;

/// Signature checks are the provider's, for every verifier here.
macro_rules! provider_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &super::provider().signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &super::provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            super::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

fn not_accepted() -> Error {
    Error::InvalidCertificate(CertificateError::NotValidForName)
}

/// Which mesh identities are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AcceptedIdentities {
    /// Whole SPIFFE identities; empty: all of the trust domains.
    pub(crate) names: Vec<String>,
    /// Trust domains; empty: all that the roots vouch for.
    pub(crate) trust_domains: Vec<String>,
}

impl AcceptedIdentities {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = PeerCertificate::parse(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let id = peer.spiffe_id.ok_or_else(not_accepted)?;
        let domain_fits = self.trust_domains.is_empty()
            || trust_domain(&id).is_some_and(|domain| self.trust_domains.iter().any(|accepted| accepted == domain));
        let name_fits = self.names.is_empty() || self.names.iter().any(|name| **name == *id);
        if domain_fits && name_fits { Ok(()) } else { Err(not_accepted()) }
    }
}

/// Verifies mesh clients with the roots of the current identity.
pub(crate) struct MeshClientVerifier {
    pub(crate) identity: CurrentIdentity,
    pub(crate) accepted: AcceptedIdentities,
}

impl fmt::Debug for MeshClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshClientVerifier").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for MeshClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let identity = self.identity.load_full().ok_or_else(|| Error::General("this workload has no identity yet".into()))?;
        let verified = identity.client_verifier.verify_client_cert(end_entity, intermediates, now)?;
        self.accepted.check(end_entity)?;
        Ok(verified)
    }

    provider_signatures!();
}

/// Verifies clients against a fixed CA, and that they have one of some names.
#[derive(Debug)]
pub(crate) struct NamedClientVerifier {
    pub(crate) inner: Arc<dyn ClientCertVerifier>,
    pub(crate) names: Vec<String>,
}

impl ClientCertVerifier for NamedClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if self.names.is_empty() || has_name(end_entity, &self.names) { Ok(verified) } else { Err(not_accepted()) }
    }

    provider_signatures!();
}

/// Verifies mesh servers with the roots of the current identity.
pub(crate) struct MeshServerVerifier {
    pub(crate) identity: CurrentIdentity,
    pub(crate) accepted: AcceptedIdentities,
}

impl fmt::Debug for MeshServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshServerVerifier").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let identity = self.identity.load_full().ok_or_else(|| Error::General("this workload has no identity yet".into()))?;
        verify_chain(end_entity, intermediates, &identity.roots, now)?;
        self.accepted.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    provider_signatures!();
}

/// Verifies servers outside of the mesh.
#[derive(Debug)]
pub(crate) struct NamedServerVerifier {
    /// `None`: nothing is verified (`insecureSkipVerify`).
    pub(crate) roots: Option<Arc<RootCertStore>>,
    /// Accepted subject alternative names; empty: the server name that was asked for.
    pub(crate) names: Vec<String>,
}

impl ServerCertVerifier for NamedServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let parsed = verify_chain(end_entity, intermediates, roots, now)?;
        if self.names.is_empty() {
            verify_server_name(&parsed, server_name)?;
        } else if !has_name(end_entity, &self.names) {
            return Err(not_accepted());
        }
        Ok(ServerCertVerified::assertion())
    }

    provider_signatures!();
}

fn verify_chain<'a>(
    end_entity: &'a CertificateDer<'a>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<ParsedCertificate<'a>, Error> {
    let parsed = ParsedCertificate::try_from(end_entity)?;
    let algorithms = super::provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
    Ok(parsed)
}

fn has_name(certificate: &CertificateDer<'_>, accepted: &[String]) -> bool {
    PeerCertificate::parse(certificate).is_some_and(|peer| {
        accepted
            .iter()
            .any(|name| peer.uri_names.contains(name) || peer.dns_names.iter().any(|dns| dns.eq_ignore_ascii_case(name)))
    })
}
