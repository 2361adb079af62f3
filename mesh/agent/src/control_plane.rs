//! A connection to the control plane: TLS verified with the mesh's root, HTTP/2 inside.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use meshlab_net::Net;
use meshlab_proxy_config::Files;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;

use crate::environment::{ROOT_CERTIFICATE, TOKEN};

/// A request body.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The control plane cannot be reached.
#[derive(Debug, Error)]
pub(crate) enum ControlPlaneError {
    #[error("{0:?} is no address of a control plane; want host:port")]
    Address(String),
    #[error("cannot read {path}: {error}")]
    File { path: &'static str, error: io::Error },
    #[error("{ROOT_CERTIFICATE} holds no usable certificate: {0}")]
    Root(String),
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("no connection to {0} within {CONNECT_TIMEOUT:?}")]
    Timeout(String),
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
}

/// Where the control plane is, and how it is told who asks.
#[derive(Clone)]
pub(crate) struct ControlPlane<N, F> {
    pub(crate) net: N,
    pub(crate) files: F,
    /// `host:port`
    pub(crate) address: String,
}

impl<N: Net, F: Files> ControlPlane<N, F> {
    /// Connects. The root certificate is read anew, so that a replaced one is taken up.
    pub(crate) async fn connect(&self) -> Result<http2::SendRequest<Body>, ControlPlaneError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_unbounded()).await;
        connecting.map_err(|_| ControlPlaneError::Timeout(self.address.clone()))?
    }

    async fn connect_unbounded(&self) -> Result<http2::SendRequest<Body>, ControlPlaneError> {
        let wrong = || ControlPlaneError::Address(self.address.clone());
        let (host, port) = self.address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        let failed = |error| ControlPlaneError::Connect { address: self.address.clone(), error };
        let tls = tokio_rustls::TlsConnector::from(Arc::new(self.tls()?));
        let connecting = async {
            let ip = *self.net.resolve(host).await?.first().ok_or(io::ErrorKind::NotFound)?;
            let stream = self.net.connect(SocketAddr::new(ip, port)).await?;
            tls.connect(name, stream).await
        };
        let stream = connecting.await.map_err(failed)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // A first configuration is large; a control plane that hangs is found by pings.
        builder.initial_stream_window_size(4 << 20).initial_connection_window_size(8 << 20);
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).keep_alive_while_idle(true);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // It ends when the sender and all streams are gone.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn tls(&self) -> Result<rustls::ClientConfig, ControlPlaneError> {
        let bundle = self.read(ROOT_CERTIFICATE)?;
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&bundle) {
            let root = root.map_err(|error| ControlPlaneError::Root(error.to_string()))?;
            roots.add(root).map_err(|error| ControlPlaneError::Root(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| ControlPlaneError::Root(error.to_string()))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// A `POST` with the workload's token, which is read anew: the kubelet replaces it.
    pub(crate) fn request(&self, path: &str, body: Body) -> Result<Request<Body>, ControlPlaneError> {
        let token = self.read(TOKEN)?;
        let token = format!("Bearer {}", String::from_utf8_lossy(&token).trim());
        let mut token = header::HeaderValue::from_str(&token)
            .map_err(|_| ControlPlaneError::File { path: TOKEN, error: io::ErrorKind::InvalidData.into() })?;
        token.set_sensitive(true);
        let uri = Uri::builder().scheme("https").authority(self.address.as_str()).path_and_query(path).build();
        let uri = uri.map_err(|_| ControlPlaneError::Address(self.address.clone()))?;
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::AUTHORIZATION, token);
        Ok(request)
    }

    pub(crate) fn read(&self, path: &'static str) -> Result<Vec<u8>, ControlPlaneError> {
        self.files.read(path).map_err(|error| ControlPlaneError::File { path, error })
    }
}
