//! Where the root lives: a Secret, unless the operator plugged in a CA of their own.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use meshlab_proxy_config::{Files, Log};
use thiserror::Error;

use super::{Authority, CaError, CaPem};

/// The Secret that keeps the self-signed CA.
pub const CA_SECRET: &str = "istio-ca-secret";
/// Where the Secret `cacerts`, an operator's own CA, is mounted.
pub const PLUGGED_IN_FOLDER: &str = "/etc/cacerts";
/// The type Istio gives [`CA_SECRET`].
const CA_SECRET_TYPE: &str = "istio.io/ca-root";

/// The CA could not be set up.
#[derive(Debug, Error)]
pub enum RootError {
    /// The API server refused.
    #[error("cannot read or write Secret {namespace}/{CA_SECRET}: {error}")]
    Kubernetes {
        /// istiod's namespace.
        namespace: String,
        /// What it said.
        error: kube::Error,
    },
    /// A part is missing.
    #[error("{place} has no {file}")]
    Missing {
        /// Secret or folder.
        place: String,
        /// Key or file name.
        file: &'static str,
    },
    /// Making a new one failed.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// Loads the CA: the plugged-in one if there is one, else that of [`CA_SECRET`], which is made where it is missing.
///
/// # Errors
/// See [`RootError`].
pub async fn load_or_create<F: Files>(
    client: &kube::Client,
    files: &F,
    namespace: &str,
    trust_domain: &str,
    log: &Log,
) -> Result<CaPem, RootError> {
    if let Some(plugged_in) = plugged_in(files)? {
        log.info("pkica", format_args!("Use plugged-in cert at {PLUGGED_IN_FOLDER}"));
        return Ok(plugged_in);
    }
    let failed = |error| RootError::Kubernetes { namespace: namespace.to_owned(), error };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if let Some(secret) = secrets.get_opt(CA_SECRET).await.map_err(failed)? {
        log.info("pkica", format_args!("Load signing key and cert from existing secret {namespace}/{CA_SECRET}"));
        return from_secret(&secret, namespace);
    }
    let ca = Authority::self_signed(trust_domain)?;
    match secrets.create(&PostParams::default(), &to_secret(&ca)).await {
        Ok(_) => {
            log.info("pkica", format_args!("Using self-generated public key; it is kept in secret {namespace}/{CA_SECRET}"));
            Ok(ca)
        }
        // Another replica was quicker; there is one root only.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            from_secret(&secrets.get(CA_SECRET).await.map_err(failed)?, namespace)
        }
        Err(error) => Err(failed(error)),
    }
}

fn plugged_in<F: Files>(files: &F) -> Result<Option<CaPem>, RootError> {
    let read = |file: &'static str| {
        let content = files.read(&format!("{PLUGGED_IN_FOLDER}/{file}")).ok()?;
        String::from_utf8(content).ok()
    };
    let Some(key) = read("ca-key.pem") else { return Ok(None) };
    let need = |file| read(file).ok_or_else(|| RootError::Missing { place: PLUGGED_IN_FOLDER.into(), file });
    let (certificate, root) = (need("ca-cert.pem")?, need("root-cert.pem")?);
    Ok(Some(CaPem { certificate, key, chain: need("cert-chain.pem")?, root }))
}

fn from_secret(secret: &Secret, namespace: &str) -> Result<CaPem, RootError> {
    let read = |file: &str| secret.data.as_ref()?.get(file).and_then(|value| String::from_utf8(value.0.clone()).ok());
    let need = |file| read(file).ok_or_else(|| RootError::Missing { place: format!("Secret {namespace}/{CA_SECRET}"), file });
    let certificate = need("ca-cert.pem")?;
    let root = read("root-cert.pem").filter(|pem| !pem.is_empty()).unwrap_or_else(|| certificate.clone());
    Ok(CaPem { key: need("ca-key.pem")?, chain: read("cert-chain.pem").unwrap_or_default(), certificate, root })
}

/// The Secret has Istio's keys, the unused ones empty.
fn to_secret(ca: &CaPem) -> Secret {
    let entries = [
        ("ca-cert.pem", ca.certificate.as_str()),
        ("ca-key.pem", ca.key.as_str()),
        ("cert-chain.pem", ca.chain.as_str()),
        ("key.pem", ""),
        ("root-cert.pem", ca.root.as_str()),
    ];
    let data: BTreeMap<_, _> = entries.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).into();
    let metadata = ObjectMeta { name: Some(CA_SECRET.into()), ..ObjectMeta::default() };
    Secret { metadata, data: Some(data), type_: Some(CA_SECRET_TYPE.into()), ..Secret::default() }
}
