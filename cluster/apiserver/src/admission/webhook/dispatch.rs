//! Calling a webhook: HTTPS to a URL, or to a Service on the cluster's network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::configuration::{Endpoint, Webhook};
use super::review::Review;
use crate::api::Api;
use crate::http::MAX_BODY;
use crate::store::{GroupResource, Key};

/// Why a webhook has no answer to give.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("failed to call webhook: {0}")]
    Target(String),
    #[error("failed to call webhook: Post {url:?}: {why}")]
    Call { url: String, why: String },
    #[error("failed to call webhook: the server responded with the status code {0}")]
    Status(StatusCode),
    #[error("received invalid webhook response: {0}")]
    Answer(String),
}

/// A byte stream to a webhook, wherever it is.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where to connect, and as what.
struct Target {
    url: String,
    /// For the certificate and the `Host` header.
    host: String,
    authority: String,
    path: String,
    place: Place,
}

enum Place {
    /// On the cluster's network.
    Cluster(SocketAddr),
    /// On the machine's.
    Machine { host: String, port: u16 },
}

/// Sends a review; returns the body of the answer.
pub(super) async fn call(api: &Api, webhook: &Webhook, review: &Review) -> Result<Bytes, CallError> {
    let target = locate(api, webhook)?;
    let url = format!("{}?timeout={}s", target.url, webhook.timeout.as_secs());
    let failed = |why: String| CallError::Call { url: url.clone(), why };
    match tokio::time::timeout(webhook.timeout, exchange(api, webhook, &target, review)).await {
        Ok(Ok((StatusCode::OK, body))) => Ok(body),
        Ok(Ok((status, _))) => Err(CallError::Status(status)),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("context deadline exceeded".into())),
    }
}

fn locate(api: &Api, webhook: &Webhook) -> Result<Target, CallError> {
    match &webhook.endpoint {
        Endpoint::Url(text) => {
            let url = url::Url::parse(text).map_err(|error| CallError::Target(format!("invalid url {text:?}: {error}")))?;
            let (Some(host), "https") = (url.host_str(), url.scheme()) else {
                return Err(CallError::Target(format!("the url {text:?} is not of the form https://host/path")));
            };
            let host = host.trim_matches(['[', ']']).to_owned();
            let port = url.port().unwrap_or(443);
            let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
            Ok(Target {
                url: text.clone(),
                authority: url.authority().to_owned(),
                path: format!("{}{query}", url.path()),
                place: Place::Machine { host: host.clone(), port },
                host,
            })
        }
        Endpoint::Service { namespace, name, port, path } => {
            let service = api.store.get(&GroupResource::new("", "services"), &Key::new(namespace, name));
            let service = service.ok_or_else(|| CallError::Target(format!("service {name:?} not found")))?;
            let address = service.value()["spec"]["clusterIP"].as_str().and_then(|address| address.parse::<IpAddr>().ok());
            let address = address.ok_or_else(|| CallError::Target(format!("service {name:?} has no cluster address")))?;
            let host = format!("{name}.{namespace}.svc");
            let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
            Ok(Target {
                url: format!("https://{host}:{port}{path}"),
                authority: format!("{host}:{port}"),
                host,
                path,
                place: Place::Cluster(SocketAddr::new(address, *port)),
            })
        }
    }
}

async fn connect(api: &Api, target: &Target) -> Result<Box<dyn Connection>, crate::http::BoxError> {
    Ok(match &target.place {
        Place::Cluster(address) => {
            let stream = api.network.host().connect(*address).await;
            Box::new(stream.map_err(|error| format!("dial tcp {address}: connect: {error}"))?)
        }
        Place::Machine { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            Box::new(stream.map_err(|error| format!("dial tcp {host}:{port}: connect: {error}"))?)
        }
    })
}

/// One request on a connection of its own: a webhook's pod may be replaced at any time.
async fn exchange(
    api: &Api,
    webhook: &Webhook,
    target: &Target,
    review: &Review,
) -> Result<(StatusCode, Bytes), crate::http::BoxError> {
    let name = ServerName::try_from(target.host.clone())?;
    let stream = TlsConnector::from(tls(&webhook.ca)?).connect(name, connect(api, target).await?).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(format!(
            "{}{}timeout={}s",
            target.path,
            if target.path.contains('?') { '&' } else { '?' },
            webhook.timeout.as_secs()
        ))
        .header(HOST, &target.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(review.body.to_string())))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes();
        Ok::<_, crate::http::BoxError>((status, body))
    };
    // The connection is driven here, so that a timeout ends it too.
    tokio::pin!(connection);
    tokio::pin!(exchange);
    let mut closed = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            ended = &mut connection, if !closed => {
                closed = true;
                ended?;
            }
        }
    }
}

/// Trust in the bundle of a configuration, and in nothing else.
fn tls(ca: &[u8]) -> Result<Arc<rustls::ClientConfig>, crate::http::BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err(
            "tls: failed to verify certificate: the webhook's caBundle is empty, and public authorities are not supported".into(),
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
