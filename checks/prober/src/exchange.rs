//! One request: resolve, connect, shake hands, ask, and tell at which of these it failed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use meshlab_probe_protocol::{Failure, FailureKind, HttpRequest, MAX_BODY, Outcome};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Sends requests over one network. Every request gets a connection of its own, so that each is routed afresh.
pub struct Sender<N> {
    net: N,
    tls: TlsConnector,
}

impl<N: Net> Sender<N> {
    /// A sender that trusts every server certificate: a check looks at what it was shown, it does not rely on it.
    pub fn new(net: N) -> Self {
        Self { net, tls: TlsConnector::from(meshlab_tls::unverified_client()) }
    }

    /// Sends one request and says what became of it.
    pub async fn send(&self, request: &HttpRequest) -> Outcome {
        let started = Instant::now();
        let limit = Duration::from_millis(request.timeout_ms);
        let result = match tokio::time::timeout(limit, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(failure(FailureKind::Timeout, format!("no answer within {} ms", request.timeout_ms))),
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(outcome) => Outcome { duration_ms, ..outcome },
            Err(error) => Outcome {
                status: None,
                headers: BTreeMap::new(),
                body: String::new(),
                duration_ms,
                error: Some(error),
                peer_names: Vec::new(),
            },
        }
    }

    async fn exchange(&self, request: &HttpRequest) -> Result<Outcome, Failure> {
        let uri: Uri =
            request.url.parse().map_err(|error| failure(FailureKind::Protocol, format!("{}: {error}", request.url)))?;
        let host = uri.host().ok_or_else(|| failure(FailureKind::Protocol, format!("{}: no host", request.url)))?;
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = self.connect(request.connect_to.as_deref(), host, port).await?;
        if !tls {
            return converse(stream, request, &uri, Vec::new()).await;
        }
        let name = request.headers.get("host").map_or(host, |host| host.split(':').next().unwrap_or(host));
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failure(FailureKind::Tls, error))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failure(FailureKind::Tls, error))?;
        let peer_names = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(names_of).unwrap_or_default();
        converse(stream, request, &uri, peer_names).await
    }

    async fn connect(&self, elsewhere: Option<&str>, host: &str, port: u16) -> Result<N::Stream, Failure> {
        let (host, port) = match elsewhere.and_then(|place| place.rsplit_once(':')) {
            Some((host, port)) => {
                (host, port.parse().map_err(|error| failure(FailureKind::Protocol, format!("connectTo: {error}")))?)
            }
            None => (host, port),
        };
        let addresses = self.net.resolve(host).await.map_err(|error| failure(FailureKind::Dns, format!("{host}: {error}")))?;
        let address = addresses.first().ok_or_else(|| failure(FailureKind::Dns, format!("{host}: no address")))?;
        self.net.connect(SocketAddr::new(*address, port)).await.map_err(|error| {
            let kind = if error.kind() == io::ErrorKind::ConnectionRefused { FailureKind::Refused } else { FailureKind::Connect };
            failure(kind, error)
        })
    }
}

async fn converse<S>(stream: S, request: &HttpRequest, uri: &Uri, peer_names: Vec<String>) -> Result<Outcome, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(of_hyper)?;
    let connection = tokio::spawn(connection);
    let outgoing = build(request, uri)?;
    let result = async {
        let response = client.send_request(outgoing).await.map_err(of_hyper)?;
        let (parts, body) = response.into_parts();
        let body = read_capped(body).await?;
        Ok(Outcome {
            status: Some(parts.status.as_u16()),
            headers: joined(&parts.headers),
            body: String::from_utf8_lossy(&body).into_owned(),
            duration_ms: 0,
            error: None,
            peer_names,
        })
    };
    let result = result.await;
    connection.abort();
    result
}

fn build(request: &HttpRequest, uri: &Uri) -> Result<Request<Full<Bytes>>, Failure> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut builder = Request::builder().method(request.method.as_str()).uri(path);
    if !request.headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
        builder = builder.header("host", uri.authority().map_or("", |authority| authority.as_str()));
    }
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::from(request.body.clone())).map_err(|error| failure(FailureKind::Protocol, error))
}

/// Reads a body to its end, and keeps its first [`MAX_BODY`] bytes.
async fn read_capped(mut body: hyper::body::Incoming) -> Result<Vec<u8>, Failure> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(of_hyper)?.into_data() {
            let room = MAX_BODY.saturating_sub(kept.len()).min(data.len());
            kept.extend_from_slice(&data[..room]);
        }
    }
    Ok(kept)
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str().to_owned())
            .and_modify(|joined| *joined = format!("{joined}, {value}"))
            .or_insert(value.into_owned());
    }
    all
}

fn of_hyper(error: hyper::Error) -> Failure {
    let kind = if error.is_parse() { FailureKind::Protocol } else { FailureKind::Reset };
    // hyper's own words are terse; what lies beneath tells the learner more.
    let message = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    Failure { kind, message }
}

fn failure(kind: FailureKind, message: impl std::fmt::Display) -> Failure {
    Failure { kind, message: message.to_string() }
}

/// Subject alternative names, URIs (SPIFFE) and DNS names alike.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}
