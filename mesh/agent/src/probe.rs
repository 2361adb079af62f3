//! The app's own probes, asked on behalf of the kubelet from inside the pod.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_net::Net;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// The redirection rules leave connections from this address alone, so that the app is reached and not the proxy.
pub(crate) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
/// Kubernetes' default of `timeoutSeconds`.
const TIMEOUT: Duration = Duration::from_secs(1);
/// So much of the app's answer is passed on, as the kubelet would look at (Istio's figure).
const MAX_BODY_BYTES: usize = 10 << 10;

/// One entry of `ISTIO_KUBE_APP_PROBERS`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prober {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    host: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Debug, Deserialize)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: Option<String>,
}

/// The app did not answer.
#[derive(Debug, Error)]
pub(crate) enum ProbeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the probe cannot be read: {0}")]
    Prober(String),
}

/// What the kubelet is answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    fn of(healthy: bool) -> Self {
        let status = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self { status, body: Bytes::new() }
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Asks the app at `pod`. `headers` are those of the kubelet's request.
pub(crate) async fn probe<N: Net>(net: &N, pod: IpAddr, prober: &Value, headers: &HeaderMap) -> Result<Answer, ProbeError> {
    let prober = Prober::deserialize(prober).map_err(|error| ProbeError::Prober(error.to_string()))?;
    let limit = prober.timeout_seconds.map_or(TIMEOUT, Duration::from_secs);
    let asked = async {
        match prober {
            Prober { http_get: Some(get), .. } => http(net, pod, get, headers).await,
            Prober { tcp_socket: Some(socket), .. } => {
                let connected = net.connect_from(SOURCE, SocketAddr::new(pod, socket.port)).await;
                Ok(Answer::of(connected.is_ok()))
            }
            Prober { grpc: Some(check), .. } => grpc(net, pod, check).await,
            _ => Err(ProbeError::Prober("it is neither httpGet, tcpSocket nor grpc".into())),
        }
    };
    tokio::time::timeout(limit, asked).await.map_err(|_| ProbeError::Timeout(limit))?
}

async fn http<N: Net>(net: &N, pod: IpAddr, get: HttpGet, headers: &HeaderMap) -> Result<Answer, ProbeError> {
    let path = if get.path.starts_with('/') { get.path } else { format!("/{}", get.path) };
    let uri: Uri = path.parse().map_err(|_| ProbeError::Prober(format!("{path:?} is no path")))?;
    let mut request = Request::new(Empty::<Bytes>::new().boxed_unsync());
    *request.uri_mut() = uri;
    // What the kubelet says of itself, then what the probe's author wants.
    for (name, value) in headers.iter().filter(|(name, _)| **name != header::HOST && **name != header::CONNECTION) {
        request.headers_mut().append(name, value.clone());
    }
    let host = get.host.unwrap_or_else(|| SocketAddr::new(pod, get.port).to_string());
    set(&mut request, "host", &host)?;
    for Header { name, value } in &get.http_headers {
        set(&mut request, name, value)?;
    }
    let stream = net.connect_from(SOURCE, SocketAddr::new(pod, get.port)).await?;
    if get.scheme.as_deref() == Some("HTTPS") {
        let name = ServerName::IpAddress(pod.into());
        // The kubelet would not verify the app's certificate either.
        let connector = tokio_rustls::TlsConnector::from(meshlab_tls::unverified_client());
        return send(connector.connect(name, stream).await?, request).await;
    }
    send(stream, request).await
}

fn set(request: &mut Request<Body>, name: &str, value: &str) -> Result<(), ProbeError> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
    let (name, value) = parsed.ok_or_else(|| ProbeError::Prober(format!("{name}: {value} is no header")))?;
    request.headers_mut().insert(name, value);
    Ok(())
}

/// Sends one HTTP/1.1 request and reads the answer.
async fn send<S>(stream: S, request: Request<Body>) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the exchange, or when this future is dropped at the time limit.
    let connection = tokio::spawn(connection);
    let _end = AbortOnDrop(connection.abort_handle());
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    // The kubelet judges by the status; a body that is too long or breaks off does not change it.
    Ok(Answer { status, body: body.map(http_body_util::Collected::to_bytes).unwrap_or_default() })
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `grpc.health.v1.Health/Check`. Its two messages have one field each, so they are written by hand.
async fn grpc<N: Net>(net: &N, pod: IpAddr, check: Grpc) -> Result<Answer, ProbeError> {
    let stream = net.connect_from(SOURCE, SocketAddr::new(pod, check.port)).await?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let _end = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let request = Request::post(format!("http://{}/grpc.health.v1.Health/Check", SocketAddr::new(pod, check.port)))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(health_request(&check.service.unwrap_or_default())).boxed_unsync())
        .map_err(|error| ProbeError::Prober(error.to_string()))?;
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    // SERVING is 1; the five bytes before are gRPC's frame head.
    Ok(Answer::of(body.get(5..) == Some(&[0x08, 0x01])))
}

/// `HealthCheckRequest{service}` in a gRPC frame.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let (Ok(length), false) = (u8::try_from(service.len()), service.is_empty()) {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let mut frame = vec![0; 5];
    frame[4] = u8::try_from(message.len()).unwrap_or_default();
    frame.extend(message);
    frame.into()
}
