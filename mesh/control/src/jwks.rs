//! Key sets of token issuers: they are fetched here, so that proxies need not reach the issuer. Where a rule has no `jwksUri`, the
//! issuer's OpenID configuration says where its keys are.

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
use serde_json::Value;
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

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// At this address.
    Keys(String),
    /// Where the OpenID configuration of this issuer says.
    Issuer(String),
}

impl Source {
    /// The name by which the compiler asks for it.
    fn address(&self) -> &str {
        match self {
            Self::Keys(address) | Self::Issuer(address) => address,
        }
    }
}

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
    #[error("the answer is no JSON")]
    NotJson,
    #[error("the answer is no JSON web key set")]
    NotKeys,
    #[error("the issuer's OpenID configuration has no jwks_uri")]
    NoKeysInConfiguration,
    #[error("no trust store to verify {0} with: none of {TRUST_STORES:?} is there")]
    NoTrustStore(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Keeps the key sets that RequestAuthentications refer to among the sources.
pub(crate) async fn keep<N: Net, F: Files>(net: N, files: F, inventory: &Inventory, log: Log) {
    let mut changes = inventory.changes();
    let mut due: BTreeMap<Source, Instant> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let wanted = wanted(inventory);
        due.retain(|source, _| wanted.contains(source));
        for source in wanted {
            due.entry(source).or_insert_with(Instant::now);
        }
        let now = Instant::now();
        let ready: Vec<_> = due.iter().filter(|(_, at)| **at <= now).map(|(source, _)| source.clone()).collect();
        let fetches = ready.into_iter().map(|source| {
            let (net, files) = (net.clone(), files.clone());
            async move { (fetch(&net, &files, &source).await, source) }
        });
        for (fetched, source) in futures::future::join_all(fetches).await {
            let again = match fetched {
                Ok(keys) => {
                    store(inventory, source.address(), keys);
                    REFRESH
                }
                Err(error) => {
                    let address = source.address();
                    log.warn("model", format_args!("Failed to fetch public key from {address:?}: {error}; again in {RETRY:?}"));
                    RETRY
                }
            };
            due.insert(source, Instant::now() + again);
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

fn store(inventory: &Inventory, address: &str, keys: Arc<str>) {
    if inventory.sources().jwks.get(address) != Some(&keys) {
        inventory.edit(|sources| drop(sources.jwks.insert(address.to_owned(), keys)));
    }
}

fn wanted(inventory: &Inventory) -> BTreeSet<Source> {
    let policies = inventory.sources().request_authentications;
    let rules = policies.values().flat_map(|policy| &policy.spec.jwt_rules).filter(|rule| rule.jwks.is_empty());
    let source = |rule: &meshlab_istio_api::JwtRule| {
        if rule.jwks_uri.is_empty() { Source::Issuer(rule.issuer.clone()) } else { Source::Keys(rule.jwks_uri.clone()) }
    };
    rules.map(source).collect()
}

async fn fetch<N: Net, F: Files>(net: &N, files: &F, source: &Source) -> Result<Arc<str>, FetchError> {
    let fetching = async {
        let address = match source {
            Source::Keys(address) => address.clone(),
            Source::Issuer(issuer) => {
                let page = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
                let (_, configuration) = fetch_json(net, files, &page).await?;
                configuration["jwks_uri"].as_str().ok_or(FetchError::NoKeysInConfiguration)?.to_owned()
            }
        };
        let (text, keys) = fetch_json(net, files, &address).await?;
        if keys["keys"].is_array() { Ok(Arc::from(text)) } else { Err(FetchError::NotKeys) }
    };
    tokio::time::timeout(TIMEOUT, fetching).await.map_err(|_| FetchError::Timeout)?
}

async fn fetch_json<N: Net, F: Files>(net: &N, files: &F, uri: &str) -> Result<(String, Value), FetchError> {
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

async fn get<S>(stream: S, uri: &Uri) -> Result<(String, Value), FetchError>
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
        let json = serde_json::from_slice(&body).map_err(|_| FetchError::NotJson)?;
        Ok((String::from_utf8_lossy(&body).into_owned(), json))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => { ended?; answer.await }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use meshlab_net::{HostOptions, Listener, PodNet, VirtualNet, VirtualNetOptions};
    use meshlab_proxy_config::OsFiles;

    use super::*;

    /// An issuer at 10.244.0.3:8080, and the network of somebody who asks it.
    async fn issuer() -> PodNet {
        let net = VirtualNet::new(VirtualNetOptions::default());
        let pod = |last| net.attach([10, 244, 0, last].into(), HostOptions::pod("pod", "default", "cluster.local")).unwrap();
        let mut listener = pod(3).listen(SocketAddr::from(([0, 0, 0, 0], 8080))).await.unwrap();
        tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let page = match request.uri().path() {
                        "/keys" => r#"{"keys":[{"kid":"k1"}]}"#,
                        "/.well-known/openid-configuration" => r#"{"jwks_uri":"http://10.244.0.3:8080/keys"}"#,
                        "/text" => "hello",
                        _ => "{}",
                    };
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(page))))
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        pod(4)
    }

    #[tokio::test]
    async fn keys_are_found_at_their_address_or_by_their_issuer() {
        let net = issuer().await;
        let fetch = async |source: Source| fetch(&net, &OsFiles, &source).await.map_err(|error| error.to_string());
        let keys: Arc<str> = r#"{"keys":[{"kid":"k1"}]}"#.into();
        assert_eq!(fetch(Source::Keys("http://10.244.0.3:8080/keys".into())).await, Ok(keys.clone()));
        assert_eq!(fetch(Source::Issuer("http://10.244.0.3:8080/".into())).await, Ok(keys));
        insta::assert_snapshot!(fetch(Source::Keys("http://10.244.0.3:8080/text".into())).await.unwrap_err(), @"the answer is no JSON");
        insta::assert_snapshot!(fetch(Source::Keys("http://10.244.0.3:8080/other".into())).await.unwrap_err(), @"the answer is no JSON web key set");
        insta::assert_snapshot!(fetch(Source::Issuer("testing@secure.istio.io".into())).await.unwrap_err(), @r#""testing@secure.istio.io/.well-known/openid-configuration" is no http or https address"#);
    }

    #[tokio::test]
    async fn keys_that_a_policy_needs_get_among_the_sources() {
        let net = issuer().await;
        let inventory = Arc::new(Inventory::new(Arc::default(), Log::new(|_| {})));
        let policy = serde_json::json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": { "name": "jwt", "namespace": "default" },
            "spec": { "jwtRules": [{ "issuer": "me", "jwksUri": "http://10.244.0.3:8080/keys" }] },
        });
        inventory.edit(|sources| sources.apply(&policy).unwrap());
        let keeper = inventory.clone();
        tokio::spawn(async move { keep(net, OsFiles, &keeper, Log::new(|_| {})).await });
        let mut changes = inventory.changes();
        while inventory.sources().jwks.is_empty() {
            changes.changed().await.unwrap();
        }
        assert!(inventory.sources().jwks["http://10.244.0.3:8080/keys"].contains("k1"));
    }
}
