//! A Kubernetes client as a pod has one (service-account token and CA from files, the API server from the environment), over
//! whichever network [`Net`] is.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use meshlab_net::Net;
use meshlab_proxy_config::Files;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tower::{BoxError, Service};

/// Where Kubernetes mounts a pod's credentials.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A token is read again after this; the kubelet replaces it long before it expires.
const TOKEN_REREAD: Duration = Duration::from_secs(10);

/// No client could be made.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not inside a cluster.
    #[error("{0} is not set or not valid: istiod has to run in a pod, or be given the variables that a pod has")]
    Environment(&'static str),
    /// A credential is missing.
    #[error("cannot read {path}: {error}; istiod needs a service account's token and CA certificate")]
    File {
        /// Its path.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The CA bundle is unusable.
    #[error("{SERVICE_ACCOUNT}/ca.crt holds no usable certificate: {0}")]
    Ca(String),
}

/// Makes the client.
///
/// # Errors
/// See [`ClientError`].
pub fn in_cluster<N: Net, F: Files>(net: N, files: F, env: &BTreeMap<String, String>) -> Result<kube::Client, ClientError> {
    let variable = |name: &'static str| env.get(name).filter(|value| !value.is_empty()).ok_or(ClientError::Environment(name));
    let host = variable("KUBERNETES_SERVICE_HOST")?.clone();
    let port: u16 =
        variable("KUBERNETES_SERVICE_PORT")?.parse().map_err(|_| ClientError::Environment("KUBERNETES_SERVICE_PORT"))?;
    let read = |name: &str| {
        let path = format!("{SERVICE_ACCOUNT}/{name}");
        files.read(&path).map_err(|error| ClientError::File { path, error })
    };
    let tls = tls_config(&read("ca.crt")?)?;
    let namespace = String::from_utf8_lossy(&read("namespace").unwrap_or_else(|_| b"istio-system".to_vec())).trim().to_owned();
    // The first token is read now, so that a missing one is said at the start.
    let token = Token::parse(&read("token")?).ok_or_else(|| ClientError::File {
        path: format!("{SERVICE_ACCOUNT}/token"),
        error: io::ErrorKind::InvalidData.into(),
    })?;
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority: Authority =
        format!("{bracketed}:{port}").parse().map_err(|_| ClientError::Environment("KUBERNETES_SERVICE_HOST"))?;

    let server_name = ServerName::try_from(host.clone()).map_err(|_| ClientError::Environment("KUBERNETES_SERVICE_HOST"))?;
    let connector = Connector { net, host, port, tls: TlsConnector::from(Arc::new(tls)), server_name };
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    // One connection carries every watch; small windows would make the first lists wait for each other.
    builder.http2_initial_stream_window_size(1 << 20).http2_initial_connection_window_size(16 << 20);
    builder.timer(TokioTimer::new()).http2_keep_alive_interval(Duration::from_secs(30)).http2_keep_alive_while_idle(true);
    let service = Authenticated { inner: builder.build(connector), authority, files, token };
    Ok(kube::Client::new(service, namespace))
}

fn tls_config(ca: &[u8]) -> Result<rustls::ClientConfig, ClientError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| ClientError::Ca(error.to_string()))?;
        roots.add(certificate).map_err(|error| ClientError::Ca(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(ClientError::Ca("the file is empty".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(|error| ClientError::Ca(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A bearer token and when it was read.
#[derive(Clone)]
struct Token {
    header: HeaderValue,
    read: Instant,
}

impl Token {
    fn parse(content: &[u8]) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", std::str::from_utf8(content).ok()?.trim())).ok()?;
        header.set_sensitive(true);
        Some(Self { header, read: Instant::now() })
    }
}

/// Directs requests to the API server, with the token.
#[derive(Clone)]
struct Authenticated<N: Net, F> {
    inner: hyper_util::client::legacy::Client<Connector<N>, Body>,
    authority: Authority,
    files: F,
    token: Token,
}

impl<N: Net, F: Files> Authenticated<N, F> {
    fn bearer(&mut self) -> HeaderValue {
        if self.token.read.elapsed() > TOKEN_REREAD {
            let fresh = self.files.read(&format!("{SERVICE_ACCOUNT}/token")).ok().and_then(|content| Token::parse(&content));
            // An unreadable file leaves the old token in use: the API server knows best when that one is too old.
            self.token = Token { read: Instant::now(), ..fresh.unwrap_or_else(|| self.token.clone()) };
        }
        self.token.header.clone()
    }
}

impl<N: Net, F: Files> Service<Request<Body>> for Authenticated<N, F> {
    type Response = Response<hyper::body::Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        request.headers_mut().insert(header::AUTHORIZATION, self.bearer());
        let inner = self.inner.clone();
        Box::pin(async move {
            *request.uri_mut() = Uri::from_parts(parts)?;
            Ok(inner.request(request).await?)
        })
    }
}

/// Connects to the API server, with TLS.
#[derive(Clone)]
struct Connector<N> {
    net: N,
    host: String,
    port: u16,
    tls: TlsConnector,
    server_name: ServerName<'static>,
}

impl<N: Net> Service<Uri> for Connector<N> {
    type Response = TokioIo<TlsStream<N::Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let addresses = this.net.resolve(&this.host).await?;
            let address = addresses.first().ok_or(io::ErrorKind::NotFound)?;
            let stream = this.net.connect(SocketAddr::new(*address, this.port)).await?;
            let stream = this.tls.connect(this.server_name, stream).await?;
            Ok(TokioIo::new(TlsStream(stream)))
        })
    }
}

/// A TLS connection that tells hyper which HTTP version was agreed on.
struct TlsStream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: Unpin> Connection for TlsStream<S>
where
    S: AsyncRead + AsyncWrite,
{
    fn connected(&self) -> Connected {
        let h2 = self.0.get_ref().1.alpn_protocol() == Some(b"h2");
        if h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
