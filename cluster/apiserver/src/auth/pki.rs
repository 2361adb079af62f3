//! The cluster's certificate authority, what it signs, and the keys that outlive a restart.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::user::UserInfo;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// Generating or parsing.
    #[error("cannot make the cluster's certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Reading or writing.
    #[error("cannot use {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The keys of a cluster.
pub(crate) struct Pki {
    /// PEM.
    pub(crate) ca_certificate: String,
    pub(crate) server: Identity,
    pub(crate) admin: Identity,
    /// Signs service-account tokens; PEM.
    pub(crate) token_key: String,
}

/// The address of the Service `kubernetes`.
pub(crate) const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

impl Pki {
    /// Fresh keys, or those that `directory` holds. EC keys take well under a millisecond each to make.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, PkiError> {
        let ca = match directory {
            None => CertificateAuthority::generate()?,
            Some(directory) => CertificateAuthority::open(&directory.join("pki"))?,
        };
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
        let server = issue(&issuer, server_params()?)?;
        let admin = issue(&issuer, client_params(&UserInfo::admin())?)?;
        Ok(Self { ca_certificate: ca.certificate, server, admin, token_key: ca.token_key })
    }
}

/// What has to be the same after a restart, so that kubeconfigs and tokens stay good.
struct CertificateAuthority {
    certificate: String,
    key: String,
    token_key: String,
}

impl CertificateAuthority {
    fn generate() -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem(), token_key: KeyPair::generate()?.serialize_pem() })
    }

    fn open(directory: &Path) -> Result<Self, PkiError> {
        let [certificate, key, token_key] = ["ca.crt", "ca.key", "sa.key"].map(|name| directory.join(name));
        // The last one to be written tells that all are there.
        if token_key.exists() {
            return Ok(Self { certificate: read(&certificate)?, key: read(&key)?, token_key: read(&token_key)? });
        }
        let new = Self::generate()?;
        fs::create_dir_all(directory).map_err(|source| PkiError::Io { path: directory.to_owned(), source })?;
        write_private(&certificate, &new.certificate)?;
        write_private(&key, &new.key)?;
        write_private(&token_key, &new.token_key)?;
        Ok(new)
    }
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::Io { path: path.to_owned(), source })
}

/// Writes a file that only its owner can read, in one step.
fn write_private(path: &Path, content: &str) -> Result<(), PkiError> {
    let write = || {
        let unfinished = path.with_extension("unfinished");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        io::Write::write_all(&mut options.open(&unfinished)?, content.as_bytes())?;
        fs::rename(unfinished, path)
    };
    write().map_err(|source| PkiError::Io { path: path.to_owned(), source })
}

fn issue(issuer: &Issuer<'_, KeyPair>, params: CertificateParams) -> Result<Identity, PkiError> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?.pem();
    Ok(Identity { certificate, key: key.serialize_pem() })
}

fn server_params() -> Result<CertificateParams, PkiError> {
    let names =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    let mut params = CertificateParams::new(names.map(str::to_owned).to_vec())?;
    for address in [Ipv4Addr::LOCALHOST, SERVICE_ADDRESS] {
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(address)));
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn client_params(user: &UserInfo) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user.name.as_str());
    for group in user.groups.iter().filter(|group| *group != "system:authenticated") {
        params.distinguished_name.push(DnType::OrganizationName, group.as_str());
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
