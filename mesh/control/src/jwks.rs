//! Key sets of token issuers: `jwksUri` is fetched here, so that proxies need not reach the issuer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use meshlab_proxy_config::{Files, Log};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::inventory::Inventory;

/// Keys are fetched again after this (Istio's figure).
const REFRESH: Duration = Duration::from_secs(20 * 60);
/// An issuer that could not be reached is asked again after this.
const RETRY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1 << 20;
/// Where Linux distributions keep the machine's trust store.
const TRUST_STORES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

#[derive(Debug, Error)]
enum FetchError {
    #[error("{0:?} is no http or https address")]
    Address(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer is longer than {MAX_BYTES} bytes or broke off")]
    Body,
    #[error("the answer is no JSON web key set")]
    NotKeys,
    #[error("no trust store to verify {0} with: none of {TRUST_STORES:?} is there")]
    NoTrustStore(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Keeps the key sets that RequestAuthentications refer to among the sources.
pub(crate) async fn keep<N: Net, F: Files>(net: N, files: F, inventory: &Inventory, log: Log) {
    let mut changes = inventory.changes();
    let mut due: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let wanted = wanted(inventory);
        due.retain(|uri, _| wanted.contains(uri));
        for uri in wanted {
            due.entry(uri).or_insert_with(Instant::now);
        }
        let now = Instant::now();
        let ready: Vec<_> = due.iter().filter(|(_, at)| **at <= now).map(|(uri, _)| uri.clone()).collect();
        let fetches = ready.into_iter().map(|uri| {
            let (net, files) = (net.clone(), files.clone());
            async move { (fetch(&net, &files, &uri).await, uri) }
        });
        for (fetched, uri) in futures::future::join_all(fetches).await {
            match fetched {
                Ok(keys) => {
                    due.insert(uri.clone(), Instant::now() + REFRESH);
                    store(inventory, uri, keys);
                }
                Err(error) => {
                    log.warn(
                        "model",
                        format_args!("Failed to fetch public key from {uri:?}: {error}; trying again in {RETRY:?}"),
                    );
                    due.insert(uri, Instant::now() + RETRY);
                }
            }
        }
        let next = due.values().min().copied();
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
        }
    }
}

async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

fn store(inventory: &Inventory, uri: String, keys: Arc<str>) {
    if inventory.sources().jwks.get(&uri) != Some(&keys) {
        inventory.edit(|sources| drop(sources.jwks.insert(uri, keys)));
    }
}

fn wanted(inventory: &Inventory) -> BTreeSet<String> {
    let policies = inventory.sources().request_authentications;
    let rules = policies.values().flat_map(|policy| &policy.spec.jwt_rules);
    rules.filter(|rule| rule.jwks.is_empty() && !rule.jwks_uri.is_empty()).map(|rule| rule.jwks_uri.clone()).collect()
}

async fn fetch<N: Net, F: Files>(net: &N, files: &F, uri: &str) -> Result<Arc<str>, FetchError> {
    tokio::time::timeout(TIMEOUT, fetch_unbounded(net, files, uri)).await.map_err(|_| FetchError::Timeout)?
}

async fn fetch_unbounded<N: Net, F: Files>(net: &N, files: &F, uri: &str) -> Result<Arc<str>, FetchError> {
    let parsed: Uri = uri.parse().map_err(|_| FetchError::Address(uri.to_owned()))?;
    let (Some(host), Some(scheme)) = (parsed.host(), parsed.scheme_str()) else {
        return Err(FetchError::Address(uri.to_owned()));
    };
    let https = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(FetchError::Address(uri.to_owned())),
    };
    let port = parsed.port_u16().unwrap_or(if https { 443 } else { 80 });
    let address = *net.resolve(host).await?.first().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let stream = net.connect(SocketAddr::new(address, port)).await?;
    if !https {
        return get(stream, &parsed).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Address(uri.to_owned()))?;
    let tls = tokio_rustls::TlsConnector::from(Arc::new(trust(files, host)?));
    get(tls.connect(name, stream).await?, &parsed).await
}

fn trust<F: Files>(files: &F, host: &str) -> Result<rustls::ClientConfig, FetchError> {
    let bundle = TRUST_STORES.iter().find_map(|path| files.read(path).ok());
    let bundle = bundle.ok_or_else(|| FetchError::NoTrustStore(host.to_owned()))?;
    let mut roots = rustls::RootCertStore::empty();
    // A trust store may hold certificates that rustls does not take; the others serve.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn get<S>(stream: S, uri: &Uri) -> Result<Arc<str>, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = uri.authority().map_or("", http::uri::Authority::as_str);
    let request = Request::get(path).header(header::HOST, host).header(header::ACCEPT, "application/json");
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| FetchError::Address(uri.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|_| FetchError::Body)?.to_bytes();
        let keys: serde_json::Value = serde_json::from_slice(&body).map_err(|_| FetchError::NotKeys)?;
        if !keys["keys"].is_array() {
            return Err(FetchError::NotKeys);
        }
        Ok(Arc::from(String::from_utf8_lossy(&body)))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => { ended?; answer.await }
    }
}
