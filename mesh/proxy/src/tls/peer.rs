//! What a TLS peer's certificate says.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A verified peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerCertificate {
    /// Its SPIFFE identity, whole.
    pub(crate) spiffe_id: Option<Arc<str>>,
    pub(crate) uri_names: Vec<String>,
    pub(crate) dns_names: Vec<String>,
    /// As RFC 2253 writes it (`x-forwarded-client-cert: Subject=`).
    pub(crate) subject: String,
    /// SHA-256 of the certificate, in hexadecimal (`x-forwarded-client-cert: Hash=`).
    pub(crate) hash: String,
}

impl PeerCertificate {
    /// `None` when the certificate does not parse.
    pub(crate) fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut peer = Self { hash: sha256_hex(certificate), ..Self::default() };
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(uri) => peer.uri_names.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => peer.dns_names.push((*dns).to_owned()),
                    _ => {}
                }
            }
        }
        peer.spiffe_id = peer.uri_names.iter().find(|uri| uri.starts_with("spiffe://")).map(|uri| uri.as_str().into());
        peer.subject = parsed.subject().to_string();
        Some(peer)
    }
}

/// `cluster.local/ns/default/sa/sleep`, as policies write it.
pub(crate) fn principal(spiffe_id: &str) -> &str {
    spiffe_id.strip_prefix("spiffe://").unwrap_or(spiffe_id)
}

/// The trust domain of a SPIFFE identity.
pub(crate) fn trust_domain(spiffe_id: &str) -> Option<&str> {
    spiffe_id.strip_prefix("spiffe://")?.split('/').next()
}

/// Namespace and service account of `spiffe://<trust domain>/ns/<namespace>/sa/<account>` (fact 41).
pub(crate) fn namespace_and_account(spiffe_id: &str) -> Option<(&str, &str)> {
    let mut parts = spiffe_id.strip_prefix("spiffe://")?.split('/');
    let (_, ns, namespace, sa, account, end) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next());
    (ns == "ns" && sa == "sa" && end.is_none()).then_some((namespace, account))
}

fn sha256_hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_41_a_spiffe_identity_names_trust_domain_namespace_and_account() {
        let id = "spiffe://cluster.local/ns/default/sa/sleep";
        assert_eq!(principal(id), "cluster.local/ns/default/sa/sleep");
        assert_eq!(trust_domain(id), Some("cluster.local"));
        assert_eq!(namespace_and_account(id), Some(("default", "sleep")));
        assert_eq!(namespace_and_account("spiffe://cluster.local/ns/default/sa/sleep/more"), None);
        assert_eq!(namespace_and_account("https://cluster.local/ns/default/sa/sleep"), None);
    }
}
