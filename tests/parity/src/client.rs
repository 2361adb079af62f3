//! HTTP/1.1 as it is on the wire: nothing is cleaned, so that a case decides about every byte.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::case::Request;
use crate::upstream::{CASE_HEADER, TCP_GREETING, more};

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// The clients' address. From 127.0.0.1, Envoy would put its own machine's address into `x-forwarded-for` instead.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Nothing that is read here is longer.
const MAXIMUM_HEAD: usize = 256 * 1024;

/// A message's first line and headers.
#[derive(Debug)]
pub enum Head {
    /// A request's.
    Request {
        /// Method.
        method: String,
        /// Target.
        path: String,
        /// Lines, names in lower case.
        headers: Vec<(String, String)>,
    },
    /// A response's.
    Response {
        /// Code.
        status: u16,
        /// Lines, names in lower case.
        headers: Vec<(String, String)>,
    },
}

/// A body, and whether it ended as announced.
#[derive(Debug, Default)]
pub struct Body {
    bytes: Vec<u8>,
    /// It ended before its announced end.
    pub truncated: bool,
    /// Trailer lines.
    pub trailers: Vec<(String, String)>,
}

impl Body {
    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// What a client got.
#[derive(Debug, Default)]
pub struct Answer {
    /// 0: no response.
    pub status: u16,
    /// Lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Body,
    /// From the request's first byte to the response's last.
    pub took: Duration,
}

/// A connection to a proxy.
pub struct Connection {
    stream: Box<dyn Io>,
    buffer: Vec<u8>,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Connection {
    /// Connects, with TLS if it is given.
    ///
    /// # Errors
    /// Nobody listens, or the handshake fails.
    pub async fn open(address: SocketAddr, tls: Option<Tls>) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((CLIENT, 0)))?;
        let stream = socket.connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Io> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = rustls_pki_types::ServerName::try_from(tls.name)?;
                Box::new(TlsConnector::from(tls.config).connect(name, stream).await.context("TLS handshake")?)
            }
        };
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads the response. A connection that ends before a response is status 0.
    ///
    /// # Errors
    /// The response is not HTTP, or does not come in time.
    pub async fn exchange(&mut self, bytes: &[u8], head_only: bool) -> Result<Answer> {
        let started = Instant::now();
        // A proxy may answer and close before it has read all; the answer counts.
        let _ = self.stream.write_all(bytes).await;
        let answer = tokio::time::timeout(PATIENCE, self.read(head_only)).await.context("no answer in time")??;
        Ok(Answer { took: started.elapsed(), ..answer })
    }

    /// Sends a request over HTTP/2 and reads the response. A stream that is reset before a response is status 0.
    ///
    /// # Errors
    /// There is no HTTP/2, or no answer in time.
    pub async fn exchange_http2(self, request: http::Request<Full<Bytes>>) -> Result<Answer> {
        let started = Instant::now();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(self.stream)).await.context("HTTP/2")?;
        let connection = tokio::spawn(connection);
        let exchange = async {
            let Ok(response) = sender.send_request(request).await else { return Answer::default() };
            let (head, mut incoming) = response.into_parts();
            let mut body = Body::default();
            while let Some(frame) = incoming.frame().await {
                let Ok(frame) = frame else {
                    body.truncated = true;
                    break;
                };
                match frame.into_data() {
                    Ok(data) => body.bytes.extend_from_slice(&data),
                    Err(frame) => body.trailers = frame.trailers_ref().map(lines).unwrap_or_default(),
                }
            }
            Answer { status: head.status.as_u16(), headers: lines(&head.headers), body, took: Duration::ZERO }
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time");
        connection.abort();
        Ok(Answer { took: started.elapsed(), ..answer? })
    }

    /// Sends bytes, closes the sending side, and reads to the end.
    ///
    /// # Errors
    /// The end does not come in time.
    pub async fn exchange_tcp(mut self, bytes: &[u8]) -> Result<Answer> {
        let started = Instant::now();
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.shutdown().await;
        let mut body = Body::default();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut body.bytes)).await.context("no end in time")?;
        body.truncated = read.is_err();
        Ok(Answer { body, took: started.elapsed(), ..Answer::default() })
    }

    async fn read(&mut self, head_only: bool) -> Result<Answer> {
        loop {
            let head = match read_head(&mut self.stream, &mut self.buffer).await {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(Answer::default()),
                Err(error) if error.is::<std::io::Error>() => return Ok(Answer::default()),
                Err(error) => return Err(error),
            };
            let Head::Response { status, headers } = head else { bail!("a request came back") };
            if status == 100 {
                continue;
            }
            let none = head_only || status == 204 || status == 304 || status < 200;
            let body = if none { Body::default() } else { read_body(&mut self.stream, &mut self.buffer, &headers, true).await? };
            return Ok(Answer { status, headers, body, took: Duration::ZERO });
        }
    }
}

/// TLS of a connection.
pub struct Tls {
    /// The server's name.
    pub name: String,
    /// What is presented, and what is accepted.
    pub config: Arc<rustls::ClientConfig>,
}

/// What goes over the wire.
pub enum Message {
    /// HTTP/1.1, byte by byte.
    Http1 {
        /// The bytes.
        bytes: Vec<u8>,
        /// The response has no body.
        head_only: bool,
    },
    /// HTTP/2.
    Http2(Box<http::Request<Full<Bytes>>>),
    /// Bytes that are not HTTP.
    Tcp(Vec<u8>),
}

impl Message {
    /// See [`encode`].
    ///
    /// # Errors
    /// HTTP/2 cannot say this.
    pub fn new(
        request: &Request,
        default_host: &str,
        id: &str,
        number: usize,
        tokens: &BTreeMap<String, String>,
    ) -> Result<Self> {
        if let Some(text) = &request.tcp {
            return Ok(Self::Tcp(format!("{TCP_GREETING}{id} {text}").into_bytes()));
        }
        if !request.http2 && request.grpc.is_none() {
            let bytes = encode(request, default_host, id, number, tokens);
            return Ok(Self::Http1 { bytes, head_only: request.method == "HEAD" });
        }
        let fill = |text: &str| fill(text, number, tokens);
        let scheme = if request.sni.is_some() || request.identity.is_some() { "https" } else { "http" };
        let host = fill(request.host.as_deref().unwrap_or(default_host));
        let mut builder = http::Request::builder()
            .method(if request.grpc.is_some() { "POST" } else { request.method.as_str() })
            .uri(format!("{scheme}://{host}{}", fill(&request.path)))
            .header(CASE_HEADER, id);
        if request.grpc.is_some() {
            builder = builder.header("content-type", "application/grpc").header("te", "trailers");
        }
        for (name, lines) in &request.headers {
            for line in lines.all() {
                builder = builder.header(name, fill(line));
            }
        }
        let body = match &request.grpc {
            Some(message) => [&[0][..], &u32::try_from(message.len())?.to_be_bytes(), message.as_bytes()].concat(),
            None => request.body.clone().unwrap_or_default().into_bytes(),
        };
        Ok(Self::Http2(Box::new(builder.body(Full::new(Bytes::from(body)))?)))
    }
}

/// Header lines, names in lower case.
pub fn lines(headers: &http::HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

fn fill(text: &str, number: usize, tokens: &BTreeMap<String, String>) -> String {
    let mut text = text.replace("$n", &number.to_string());
    for (name, token) in tokens {
        text = text.replace(&format!("$token({name})"), token);
    }
    text
}

/// The bytes of a request. `id` is put into [`CASE_HEADER`].
pub fn encode(request: &Request, default_host: &str, id: &str, number: usize, tokens: &BTreeMap<String, String>) -> Vec<u8> {
    let fill = |text: &str| fill(text, number, tokens);
    if let Some(raw) = &request.raw {
        return fill(raw).replace("$id", id).into_bytes();
    }
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, fill(&request.path));
    let host = request.host.as_deref().unwrap_or(default_host);
    text.push_str(&format!("host: {}\r\n{CASE_HEADER}: {id}\r\n", fill(host)));
    for (name, lines) in &request.headers {
        for line in lines.all() {
            text.push_str(&format!("{name}: {}\r\n", fill(line)));
        }
    }
    match &request.body {
        Some(body) if request.chunked => {
            text.push_str("transfer-encoding: chunked\r\n\r\n");
            if !body.is_empty() {
                text.push_str(&format!("{:x}\r\n{body}\r\n", body.len()));
            }
            text.push_str("0\r\n\r\n");
        }
        Some(body) => text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len())),
        None => text.push_str("\r\n"),
    }
    text.into_bytes()
}

/// Reads a head. `None`: the stream ended before it.
///
/// # Errors
/// It is not HTTP, or the connection broke.
pub async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Result<Option<Head>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return parse(&head).map(Some);
        }
        if buffer.len() > MAXIMUM_HEAD {
            bail!("a head without end");
        }
        if !more(stream, buffer).await? {
            return Ok(None);
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Head> {
    let mut space = [httparse::EMPTY_HEADER; 256];
    let lines = |headers: &[httparse::Header<'_>]| -> Vec<(String, String)> {
        let line = |header: &httparse::Header<'_>| {
            (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
        };
        headers.iter().map(line).collect()
    };
    if bytes.starts_with(b"HTTP/") {
        let mut response = httparse::Response::new(&mut space);
        response.parse(bytes)?;
        return Ok(Head::Response { status: response.code.unwrap_or(0), headers: lines(response.headers) });
    }
    let mut request = httparse::Request::new(&mut space);
    request.parse(bytes)?;
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    Ok(Head::Request { method: text(request.method), path: text(request.path), headers: lines(request.headers) })
}

/// Reads a body as its headers announce it; without an announcement a response goes on to the end of the stream.
///
/// # Errors
/// The chunks are malformed.
pub async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    headers: &[(String, String)],
    response: bool,
) -> Result<Body> {
    let header: BTreeMap<&str, &str> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut body = Body::default();
    if header.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        read_chunks(stream, buffer, &mut body).await?;
    } else if let Some(length) = header.get("content-length") {
        let length: usize = length.parse().context("content-length")?;
        while buffer.len() < length {
            if !more(stream, buffer).await.unwrap_or(false) {
                body.truncated = true;
                break;
            }
        }
        body.bytes = buffer.drain(..length.min(buffer.len())).collect();
    } else if response {
        while more(stream, buffer).await.unwrap_or(false) {}
        body.bytes = std::mem::take(buffer);
    }
    Ok(body)
}

async fn read_chunks<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>, body: &mut Body) -> Result<()> {
    loop {
        let Some(line) = read_line(stream, buffer).await? else {
            body.truncated = true;
            return Ok(());
        };
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).context("chunk size")?;
        if size == 0 {
            while let Some(line) = read_line(stream, buffer).await? {
                let Some((name, value)) = line.split_once(':') else { break };
                body.trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            return Ok(());
        }
        while buffer.len() < size + 2 {
            if !more(stream, buffer).await.unwrap_or(false) {
                body.truncated = true;
                body.bytes.extend(buffer.drain(..size.min(buffer.len())));
                return Ok(());
            }
        }
        body.bytes.extend(buffer.drain(..size));
        buffer.drain(..2);
    }
}

async fn read_line<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Result<Option<String>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
        }
        if !more(stream, buffer).await.unwrap_or(false) {
            return Ok(None);
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
