//! The workload's certificate: asked of the CA with a fresh key, and replaced long before it expires.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http_body_util::{BodyExt, Full, Limited};
use meshlab_net::{Net, WallDeadline};
use meshlab_proxy::WorkloadIdentity;
use meshlab_proxy_config::discovery::{CERTIFICATE_PATH, CertificateRequest, CertificateResponse, encode_message};
use meshlab_proxy_config::{Files, Log};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use thiserror::Error;
use x509_parser::pem::Pem;

use crate::backoff::Backoff;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::environment::Environment;

const MAX_RESPONSE_BYTES: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
/// A certificate that leaves no time is renewed no more often than this.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// No certificate was had.
#[derive(Debug, Error)]
pub(crate) enum CertificateError {
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    #[error("making a key or request failed: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the CA refused ({status}): {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the CA did not answer within {TIMEOUT:?}")]
    Timeout,
    #[error("the CA's answer cannot be used: {0}")]
    Answer(String),
}

/// A certificate and when it ends.
pub(crate) struct Issued {
    pub(crate) identity: WorkloadIdentity,
    pub(crate) expires: SystemTime,
}

/// Gets certificates for as long as the future lives and hands each to `install`.
pub(crate) async fn keep<N: Net, F: Files>(
    ca: ControlPlane<N, F>,
    environment: &Environment,
    log: Log,
    seed: u64,
    install: impl Fn(WorkloadIdentity) -> Result<(), String>,
) {
    let mut backoff = Backoff::new(seed);
    loop {
        let pause = match issue(&ca, environment).await {
            Ok(issued) => {
                let life = issued.expires.duration_since(SystemTime::now()).unwrap_or_default();
                match install(issued.identity) {
                    Ok(()) => {
                        backoff.reset();
                        let pause = renewal(life, environment.grace_ratio, seed);
                        log.info(
                            "cache",
                            format_args!("generated new workload certificate, ttl={life:.0?}, rotating in {pause:.0?}"),
                        );
                        pause
                    }
                    Err(error) => {
                        log.error("cache", format_args!("the issued certificate cannot be used: {error}"));
                        backoff.pause()
                    }
                }
            }
            Err(error) => {
                let pause = backoff.pause();
                log.warn("cache", format_args!("failed to get a workload certificate: {error}; trying again in {pause:.0?}"));
                pause
            }
        };
        WallDeadline::after(pause).wait().await;
    }
}

/// When to renew: a share of the life is left over, give or take a hundredth so that workloads started together do not renew together.
fn renewal(life: Duration, grace_ratio: f64, seed: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "at most 999")]
    let jitter = (seed % 1000) as f64 / 1000.0 * 0.02 - 0.01;
    life.mul_f64((1.0 - grace_ratio + jitter).clamp(0.0, 1.0)).max(SHORTEST_LIFE)
}

async fn issue<N: Net, F: Files>(ca: &ControlPlane<N, F>, environment: &Environment) -> Result<Issued, CertificateError> {
    tokio::time::timeout(TIMEOUT, issue_unbounded(ca, environment)).await.map_err(|_| CertificateError::Timeout)?
}

async fn issue_unbounded<N: Net, F: Files>(
    ca: &ControlPlane<N, F>,
    environment: &Environment,
) -> Result<Issued, CertificateError> {
    let spiffe_id = environment.spiffe_id();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(spiffe_id.as_str().try_into()?)];
    let csr = params.serialize_request(&key)?.pem()?;
    let asked = CertificateRequest { csr, validity_s: environment.certificate_ttl.as_secs() };
    let body = Full::from(encode_message(&asked)).boxed_unsync();

    let mut sender = ca.connect().await?;
    let response = sender.send_request(ca.request(CERTIFICATE_PATH, body)?).await.map_err(ControlPlaneError::Http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
    let body = body.map_err(|error| CertificateError::Answer(error.to_string()))?.to_bytes();
    if status != StatusCode::OK {
        return Err(CertificateError::Refused { status, message: String::from_utf8_lossy(&body).into_owned() });
    }
    let issued: CertificateResponse =
        serde_json::from_slice(&body).map_err(|error| CertificateError::Answer(error.to_string()))?;
    let expires = issued.chain.first().and_then(|leaf| expiry(leaf));
    let expires = expires.ok_or_else(|| CertificateError::Answer("it holds no certificate".into()))?;
    // The last one is the root, which peers know; they are sent the others.
    let (root, chain) = issued.chain.split_last().ok_or_else(|| CertificateError::Answer("it is empty".into()))?;
    let identity =
        WorkloadIdentity { certificate_chain: chain.concat(), private_key: key.serialize_pem(), roots: root.clone(), spiffe_id };
    Ok(Issued { identity, expires })
}

fn expiry(pem: &str) -> Option<SystemTime> {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_leaves_the_grace_period() {
        let day = Duration::from_secs(24 * 3600);
        for seed in [0, 1, 500, 999, u64::MAX] {
            let share = renewal(day, 0.5, seed).as_secs_f64() / day.as_secs_f64();
            assert!((0.49..=0.51).contains(&share), "{share}");
        }
        assert_eq!(renewal(Duration::ZERO, 0.5, 0), SHORTEST_LIFE);
    }
}
