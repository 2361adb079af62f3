//! HTTP probes: a GET is answered with 2xx or 3xx. Lifecycle hooks use the same requests.

use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use meshlab_net::PodNet;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

/// As the kubelet of this Kubernetes version calls itself.
const USER_AGENT: &str = "kube-probe/1.33";

/// The URL that a probe asks for.
pub(super) fn url(pod_ip: &str, container: &Container, action: &HTTPGetAction) -> String {
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = host(pod_ip, action);
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    match super::port(&action.port, container) {
        Some(port) => format!("{scheme}://{host}:{port}{slash}{path}"),
        None => format!("{scheme}://{host}{slash}{path}"),
    }
}

fn host<'a>(pod_ip: &'a str, action: &'a HTTPGetAction) -> &'a str {
    action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip)
}

/// Sends the request and judges the answer.
///
/// # Errors
/// The kubelet's words for what went wrong.
pub(crate) async fn get(node: &PodNet, pod_ip: &str, container: &Container, action: &HTTPGetAction) -> Result<(), String> {
    let url = url(pod_ip, container, action);
    let failed = |why: String| format!("Get {url:?}: {why}");
    let port = super::port(&action.port, container).ok_or_else(|| format!("couldn't find port: {:?}", action.port))?;
    let host = host(pod_ip, action);
    let stream = super::dial(node, host, port).await.map_err(failed)?;
    let request = request(&url, host, port, action).map_err(failed)?;
    let status = if action.scheme.as_deref() == Some("HTTPS") {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(meshlab_tls::unverified_client());
        let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        send(stream, request).await
    } else {
        send(stream, request).await
    };
    let status = status.map_err(|error| failed(error.to_string()))?;
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

fn request(url: &str, host: &str, port: u16, action: &HTTPGetAction) -> Result<Request<Empty<bytes::Bytes>>, String> {
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::get(path).body(Empty::new()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    let text = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    headers.insert(http::header::HOST, text(&format!("{host}:{port}"))?);
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| error.to_string())?;
        headers.insert(name, text(&header.value)?);
    }
    Ok(request)
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<bytes::Bytes>>,
) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // The connection ends with this future: a probe keeps none open.
    let response = tokio::select! {
        response = &mut answer => response,
        // The answer may have come before the connection broke, as it does with servers that close without a TLS alert.
        Err(error) = connection => answer.await.map_err(|_| error),
    };
    response.map(|response| response.status())
}
