//! Signing.

use std::time::{Duration, SystemTime};

use meshlab_proxy_config::discovery::CertificateResponse;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use thiserror::Error;
use x509_parser::pem::Pem;

/// Certificates are valid from a little before they are issued, so that a peer whose clock is late accepts them (Istio's figure).
const CLOCK_SKEW: Duration = Duration::from_secs(120);
/// Lifetime of a self-signed root (Istio's figure: ten years).
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lifetime of istiod's own serving certificate; it is made anew at every start.
const SERVING_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// A CA in PEM, as the Secrets `istio-ca-secret` and `cacerts` hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaPem {
    /// `ca-cert.pem`: the signing certificate.
    pub certificate: String,
    /// `ca-key.pem`: its key.
    pub key: String,
    /// `cert-chain.pem`: the signing certificate and the intermediates above it, without the root; empty for a self-signed root.
    pub chain: String,
    /// `root-cert.pem`: what workloads trust.
    pub root: String,
}

/// Why a certificate was not issued, or the CA not set up.
#[derive(Debug, Error)]
pub enum CaError {
    /// A PEM file of the CA cannot be read.
    #[error("the CA's {file} is unusable: {reason}; delete the Secret to have a new self-signed CA made")]
    BadCa {
        /// Which file.
        file: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The signing request cannot be read, or its signature is wrong.
    #[error("the certificate signing request is invalid: {0}")]
    BadRequest(rcgen::Error),
    /// More time was asked for than `MAX_WORKLOAD_CERT_TTL` allows.
    #[error("requested TTL {requested:?} is greater than the max allowed TTL {max:?}")]
    TtlTooLong {
        /// What was asked for.
        requested: Duration,
        /// What is allowed.
        max: Duration,
    },
    /// Signing failed.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
}

impl CaError {
    /// What kind of error it is, in Istio's words for its metric.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::BadCa { .. } => "CA_NOT_READY",
            Self::BadRequest(_) => "CSR_ERROR",
            Self::TtlTooLong { .. } => "TTL_ERROR",
            Self::Signing(_) => "CERT_GEN_ERROR",
        }
    }
}

/// A certificate of istiod's own.
pub struct ServingCertificate {
    /// PEM chain.
    pub chain: String,
    /// PEM key.
    pub key: String,
}

/// The certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<String>,
    root: String,
    expires: SystemTime,
    default_ttl: Duration,
    max_ttl: Duration,
}

impl Authority {
    /// Takes up an existing CA.
    ///
    /// # Errors
    /// [`CaError::BadCa`] names the file that cannot be used.
    pub fn new(ca: &CaPem, default_ttl: Duration, max_ttl: Duration) -> Result<Self, CaError> {
        let bad = |file| move |reason: String| CaError::BadCa { file, reason };
        let key = KeyPair::from_pem(&ca.key).map_err(|e| bad("ca-key.pem")(e.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate, key).map_err(|e| bad("ca-cert.pem")(e.to_string()))?;
        let expires = expiry(&ca.certificate).ok_or_else(|| bad("ca-cert.pem")("it is no X.509 certificate".into()))?;
        if expiry(&ca.root).is_none() {
            return Err(bad("root-cert.pem")("it holds no X.509 certificate".into()));
        }
        let chain = split_certificates(&ca.chain);
        Ok(Self { issuer, chain, root: ca.root.clone(), expires, default_ttl, max_ttl })
    }

    /// Makes a new self-signed root. Its key is ECDSA P-256: issuing has to be quick on the machine of a learner, and RSA, which
    /// Istio defaults to, takes a second to generate.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn self_signed(organization: &str) -> Result<CaPem, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ROOT_TTL).into();
        params.serial_number = Some(random_serial());
        let certificate = params.self_signed(&key)?.pem();
        Ok(CaPem { certificate: certificate.clone(), key: key.serialize_pem(), chain: String::new(), root: certificate })
    }

    /// What workloads trust, PEM.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Signs a workload's key for an identity; what the request itself says about identity does not count.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn sign(&self, csr: &str, spiffe_id: &str, ttl: Option<Duration>) -> Result<CertificateResponse, CaError> {
        let request = CertificateSigningRequestParams::from_pem(csr).map_err(CaError::BadRequest)?;
        let ttl = ttl.unwrap_or(self.default_ttl);
        if ttl > self.max_ttl {
            return Err(CaError::TtlTooLong { requested: ttl, max: self.max_ttl });
        }
        let san = SanType::URI(spiffe_id.try_into().map_err(CaError::BadRequest)?);
        let own = self.issue(&request.public_key, vec![san], ttl)?;
        let roots = split_certificates(&self.root);
        Ok(CertificateResponse { chain: [own].into_iter().chain(self.chain.iter().cloned()).chain(roots).collect() })
    }

    /// Issues a certificate that istiod serves with.
    ///
    /// # Errors
    /// A name is not a DNS name, or the cryptographic library failed.
    pub fn serving(&self, names: &[String]) -> Result<ServingCertificate, CaError> {
        let key = KeyPair::generate()?;
        let names = names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        let own = self.issue(&key, names.collect::<Result<_, rcgen::Error>>()?, SERVING_TTL)?;
        Ok(ServingCertificate { chain: [own].into_iter().chain(self.chain.iter().cloned()).collect(), key: key.serialize_pem() })
    }

    fn issue(&self, key: &impl PublicKeyData, names: Vec<SanType>, ttl: Duration) -> Result<String, rcgen::Error> {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        // The subject stays empty, as in Istio: the identity is the (then critical) subject alternative name.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ttl).min(self.expires).into();
        params.serial_number = Some(random_serial());
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// The end of the first certificate's validity.
fn expiry(pem: &str) -> Option<SystemTime> {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// The certificates of a PEM bundle, one string each.
fn split_certificates(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = bundle.split_inclusive(END).filter_map(|block| block.find("-----BEGIN CERTIFICATE-----").map(|at| &block[at..]));
    blocks.filter(|block| block.ends_with(END)).map(|block| format!("{block}\n")).collect()
}

fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system's randomness is a precondition of all TLS");
    // A serial number is positive (RFC 5280, 4.1.2.2).
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use x509_parser::extensions::GeneralName;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const ID: &str = "spiffe://cluster.local/ns/default/sa/sleep";

    fn authority() -> Authority {
        Authority::new(&Authority::self_signed("cluster.local").unwrap(), DAY, 90 * DAY).unwrap()
    }

    fn request(claimed: &str) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(claimed.try_into().unwrap())];
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn parse<T>(pem: &str, look: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T) -> T {
        let pem = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
        look(&pem.parse_x509().unwrap())
    }

    #[test]
    fn a_workload_gets_the_identity_of_its_caller_not_the_one_it_claims() {
        let authority = authority();
        let chain = authority.sign(&request("spiffe://cluster.local/ns/kube-system/sa/admin"), ID, None).unwrap().chain;
        assert_eq!(chain.len(), 2, "the workload's certificate and the root");
        parse(&chain[0], |certificate| {
            let san = certificate.subject_alternative_name().unwrap().unwrap();
            assert!(san.critical, "without a subject the alternative name is critical (RFC 5280, 4.2.1.6)");
            assert_eq!(san.value.general_names, [GeneralName::URI(ID)]);
            assert!(!certificate.is_ca());
            let validity = certificate.validity();
            let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
            assert_eq!(seconds, i64::try_from((DAY + CLOCK_SKEW).as_secs()).unwrap());
            parse(authority.root(), |root| certificate.verify_signature(Some(root.public_key())).unwrap());
        });
    }

    #[test]
    fn the_ca_survives_being_stored() {
        let stored = Authority::self_signed("cluster.local").unwrap();
        let (first, second) = (Authority::new(&stored, DAY, DAY).unwrap(), Authority::new(&stored, DAY, DAY).unwrap());
        let leaf = second.sign(&request(ID), ID, None).unwrap().chain.remove(0);
        parse(first.root(), |root| parse(&leaf, |leaf| leaf.verify_signature(Some(root.public_key())).unwrap()));
    }

    #[test]
    fn a_certificate_never_outlives_its_ca() {
        let mut authority = authority();
        authority.expires = SystemTime::now() + Duration::from_secs(60);
        let leaf = authority.sign(&request(ID), ID, None).unwrap().chain.remove(0);
        let limit = authority.expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(parse(&leaf, |leaf| leaf.validity().not_after.timestamp()), i64::try_from(limit).unwrap());
    }

    #[test]
    fn bad_requests_are_refused_in_words() {
        let authority = authority();
        let refused = |csr: &str, ttl| authority.sign(csr, ID, ttl).unwrap_err().to_string();
        insta::assert_snapshot!(refused("junk", None), @"the certificate signing request is invalid: Could not parse certificate signing request");
        insta::assert_snapshot!(refused(&request(ID), Some(91 * DAY)), @"requested TTL 7862400s is greater than the max allowed TTL 7776000s");
    }

    #[test]
    fn an_unusable_ca_names_the_file() {
        let good = Authority::self_signed("cluster.local").unwrap();
        let bad = CaPem { key: "x".into(), ..good.clone() };
        let error = Authority::new(&bad, DAY, DAY).err().unwrap();
        assert!(matches!(error, CaError::BadCa { file: "ca-key.pem", .. }), "{error}");
        let bad = CaPem { root: String::new(), ..good };
        let error = Authority::new(&bad, DAY, DAY).err().unwrap();
        assert!(matches!(error, CaError::BadCa { file: "root-cert.pem", .. }), "{error}");
    }

    #[test]
    fn istiod_serves_under_its_dns_names() {
        let serving = authority().serving(&["istiod.istio-system.svc".into()]).unwrap();
        parse(&serving.chain, |certificate| {
            let san = certificate.subject_alternative_name().unwrap().unwrap();
            assert_eq!(san.value.general_names, [GeneralName::DNSName("istiod.istio-system.svc")]);
        });
        assert!(serving.key.contains("PRIVATE KEY"));
    }

    #[test]
    fn bundles_are_split() {
        let one = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----";
        assert_eq!(split_certificates(&format!("# comment\n{one}\n\n{one}\n-----BEGIN CERTIFICATE-----\ncut")).len(), 2);
    }
}
