//! One request to another service.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use tokio_util::task::AbortOnDropHandle;

use super::Body;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0}: only http:// URLs can be called from here")]
    Url(String),
    #[error("cannot resolve {0}: {1}")]
    Resolve(String, io::Error),
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Body(String),
}

/// A response, and the connection that must live until its body is read.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    _connection: AbortOnDropHandle<()>,
}

impl Answer {
    /// Reads the whole body, up to `limit` bytes.
    pub(crate) async fn body(self, limit: usize) -> Result<Bytes, ClientError> {
        let collected = Limited::new(self.response.into_body(), limit).collect().await;
        collected.map(|body| body.to_bytes()).map_err(|err| ClientError::Body(err.to_string()))
    }

    /// The response as a whole whose body keeps the connection.
    pub(crate) fn into_response(self) -> Response<Body> {
        let connection = self._connection;
        self.response.map(|body| {
            body.map_frame(move |frame| {
                let _ = &connection;
                frame
            })
            .map_err(io::Error::other)
            .boxed_unsync()
        })
    }
}

/// Sends a request with an absolute URL over a new connection. A `host` header that is set already is kept.
pub(crate) async fn send<N: Net>(net: &N, request: Request<Body>) -> Result<Answer, ClientError> {
    let uri = request.uri().clone();
    let address = address(net, &uri).await?;
    send_to(net, address, request).await
}

/// Sends a request to an address, whatever its URL says.
pub(crate) async fn send_to<N: Net>(net: &N, address: SocketAddr, mut request: Request<Body>) -> Result<Answer, ClientError> {
    let stream = net.connect(address).await.map_err(|err| ClientError::Connect(address, err))?;
    let uri = request.uri().clone();
    if !request.headers().contains_key(header::HOST)
        && let Some(authority) = uri.authority()
        && let Ok(host) = authority.as_str().parse()
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| ClientError::Url(uri.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    Ok(Answer { response: sender.send_request(request).await?, _connection: connection })
}

/// Where an `http` URL leads.
pub(crate) async fn address<N: Net>(net: &N, uri: &Uri) -> Result<SocketAddr, ClientError> {
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(ClientError::Url(uri.to_string())) };
    let addresses = resolve(net, host).await.map_err(|err| ClientError::Resolve(host.to_owned(), err))?;
    let ip = addresses.first().ok_or_else(|| ClientError::Resolve(host.to_owned(), io::ErrorKind::NotFound.into()))?;
    Ok(SocketAddr::new(*ip, uri.port_u16().unwrap_or(80)))
}

/// Resolves a host as it stands in a URL, where an IPv6 address is in brackets.
pub(crate) async fn resolve<N: Net>(net: &N, host: &str) -> io::Result<Vec<IpAddr>> {
    net.resolve(host.trim_start_matches('[').trim_end_matches(']')).await
}
