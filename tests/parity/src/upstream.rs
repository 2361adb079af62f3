//! The servers behind the proxies: scripted, and remembering what they were asked.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authz;
use crate::case::{Failure, Reply};
use crate::certificates::Authority;
use crate::client::{Head, lines, read_body, read_head};

/// The header by which a request is known, and its case found.
pub const CASE_HEADER: &str = "x-case";

/// What connections that are not HTTP begin with.
pub const TCP_GREETING: &str = "tcp ";

/// A request as an upstream saw it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Name of the upstream.
    pub upstream: String,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
    /// `HTTP/1.1`, `HTTP/2` or `tcp`.
    pub version: &'static str,
    /// Over TLS: the server name, and whether there was a client certificate.
    pub tls: Option<String>,
}

/// What the upstreams do for one request, and what they saw of it.
#[derive(Default)]
struct Entry {
    script: Arc<[Reply]>,
    seen: Vec<Seen>,
    /// Attempts, without those at mirrors.
    attempts: usize,
}

/// All upstreams, and the memory that they share.
pub struct Upstreams {
    addresses: BTreeMap<String, SocketAddr>,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    changed: Arc<Notify>,
    /// Sockets of upstreams that refuse connections, or never take one: bound, so that nobody else is there.
    _silent: Vec<socket2::Socket>,
}

impl Upstreams {
    /// Starts one server for each name. Names that begin with `dead` refuse connections, those with `stuck` let them hang, those with
    /// `authz` answer questions of external authorization.
    ///
    /// # Errors
    /// No socket can be had.
    pub async fn start(names: impl Iterator<Item = String>, authority: &Authority) -> Result<Self> {
        let mut upstreams =
            Self { addresses: BTreeMap::new(), entries: Arc::default(), changed: Arc::default(), _silent: Vec::new() };
        for name in names {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            if name.starts_with("dead") || name.starts_with("stuck") {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                socket.bind(&any.into())?;
                let address = socket.local_addr()?.as_socket().context("no address")?;
                if name.starts_with("stuck") {
                    upstreams._silent.extend(fill(&socket, address)?);
                }
                upstreams.addresses.insert(name, address);
                upstreams._silent.push(socket);
                continue;
            }
            let listener = TcpListener::bind(any).await?;
            upstreams.addresses.insert(name.clone(), listener.local_addr()?);
            let tls = TlsAcceptor::from(authority.server(&name)?);
            let server = Server { name, tls, entries: upstreams.entries.clone(), changed: upstreams.changed.clone() };
            tokio::spawn(server.run(listener));
        }
        Ok(upstreams)
    }

    /// Where an upstream listens.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.addresses.get(name).copied()
    }

    /// Who listens at an address.
    pub fn name_of(&self, address: &str) -> Option<&str> {
        let address: SocketAddr = address.parse().ok()?;
        self.addresses.iter().find(|(_, known)| **known == address).map(|(name, _)| name.as_str())
    }

    /// What is to be done for a request.
    pub fn script(&self, id: &str, script: &[Reply]) {
        let entry = Entry { script: script.into(), ..Entry::default() };
        lock(&self.entries).insert(id.to_owned(), entry);
    }

    /// What was seen of a request.
    pub fn seen(&self, id: &str) -> Vec<Seen> {
        lock(&self.entries).get(id).map(|entry| entry.seen.clone()).unwrap_or_default()
    }

    /// Waits until a request was seen so many times.
    pub async fn wait_for(&self, id: &str, count: usize, limit: Duration) {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            if self.seen(id).len() >= count || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return;
            }
        }
    }
}

/// Fills a socket's queue of connections, so that Linux drops whoever else knocks.
fn fill(socket: &socket2::Socket, address: SocketAddr) -> Result<Vec<socket2::Socket>> {
    const KNOCKS: usize = 4;
    socket.listen(0)?;
    let mut waiting = Vec::new();
    for _ in 0..KNOCKS {
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        // It is under way, or hangs already.
        let _ = client.connect(&address.into());
        waiting.push(client);
    }
    Ok(waiting)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Server {
    name: String,
    tls: TlsAcceptor,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    changed: Arc<Notify>,
}

/// A connection that can be broken off.
trait Breakable: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Breakable for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Breakable for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Server {
    async fn run(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let server = self.clone();
            tokio::spawn(async move {
                // A connection that breaks is part of many cases.
                let _ = server.serve(stream).await;
            });
        }
    }

    /// Whatever the proxy speaks, told by its first bytes.
    async fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        const HANDSHAKE: u8 = 0x16;
        let mut first = [0; 1];
        stream.peek(&mut first).await?;
        if first[0] != HANDSHAKE {
            return self.serve_plain(stream, None).await;
        }
        let stream = self.tls.accept(stream).await?;
        let session = stream.get_ref().1;
        let certificate = if session.peer_certificates().is_some() { "a certificate" } else { "no certificate" };
        let facts = format!("{}, {certificate}", session.server_name().unwrap_or("no name"));
        self.serve_plain(stream, Some(facts)).await
    }

    async fn serve_plain<S: Breakable>(&self, mut stream: S, tls: Option<String>) -> Result<()> {
        let mut buffer = Vec::new();
        // All that is spoken here is longer than that.
        while buffer.len() < TCP_GREETING.len() {
            if !more(&mut stream, &mut buffer).await? {
                return Ok(());
            }
        }
        if buffer.starts_with(b"PRI ") {
            self.serve_http2(Rewound { read: buffer.into(), stream }, tls).await
        } else if buffer.starts_with(TCP_GREETING.as_bytes()) {
            self.serve_tcp(stream, buffer, tls).await
        } else {
            self.serve_http1(stream, buffer, tls).await
        }
    }

    /// Reads to the end and answers with the name in front.
    async fn serve_tcp<S: Breakable>(&self, mut stream: S, mut buffer: Vec<u8>, tls: Option<String>) -> Result<()> {
        while more(&mut stream, &mut buffer).await? {}
        let text = String::from_utf8_lossy(&buffer).into_owned();
        let (id, said) = text.trim_start_matches(TCP_GREETING).split_once(' ').unwrap_or_default();
        let seen = Seen { method: "tcp".into(), body: said.to_owned(), tls, ..self.nothing_seen("tcp") };
        self.record(id, seen);
        stream.write_all(format!("{} heard {said}", self.name).as_bytes()).await?;
        Ok(stream.shutdown().await?)
    }

    async fn serve_http1<S: Breakable>(&self, mut stream: S, mut buffer: Vec<u8>, tls: Option<String>) -> Result<()> {
        while let Some(head) = read_head(&mut stream, &mut buffer).await? {
            let Head::Request { method, path, headers } = head else { bail!("not a request") };
            let body = read_body(&mut stream, &mut buffer, &headers, false).await?;
            let id = value(&headers, CASE_HEADER);
            let head_only = method == "HEAD";
            let tls = tls.clone();
            let seen = Seen { method, path, headers, body: body.text(), tls, ..self.nothing_seen("HTTP/1.1") };
            let reply = self.record(&id, seen);
            tokio::time::sleep(Duration::from_millis(reply.delay_ms)).await;
            self.answer(&mut stream, &reply, head_only).await?;
        }
        Ok(())
    }

    async fn serve_http2<S: Breakable>(&self, stream: Rewound<S>, tls: Option<String>) -> Result<()> {
        let closed = Arc::new(Notify::new());
        let service = service_fn(|request: http::Request<Incoming>| {
            let (server, tls, closed) = (self.clone(), tls.clone(), closed.clone());
            async move {
                let (head, body) = request.into_parts();
                let mut headers = lines(&head.headers);
                headers.extend(head.uri.authority().map(|host| ("host".to_owned(), host.to_string())));
                let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
                let body = body.collect().await?.to_bytes();
                let asked = authz::question(&path, &body);
                let id = asked.as_ref().map_or_else(|| value(&headers, CASE_HEADER), |question| question.id.clone());
                let body = if asked.is_some() { String::new() } else { String::from_utf8_lossy(&body).into_owned() };
                let seen = Seen { method: head.method.to_string(), path, headers, body, tls, ..server.nothing_seen("HTTP/2") };
                let mut reply = server.record(&id, seen);
                if let Some(question) = asked {
                    reply = question.reply();
                }
                tokio::time::sleep(Duration::from_millis(reply.delay_ms)).await;
                if let Some(failure) = reply.fail {
                    if failure != Failure::Reset {
                        closed.notify_one();
                        std::future::pending::<()>().await;
                    }
                    bail!("{failure:?}");
                }
                server.http2_response(&reply, head.method == http::Method::HEAD)
            }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::select! {
            served = builder.serve_connection(TokioIo::new(stream), service) => Ok(served?),
            () = closed.notified() => bail!("closed"),
        }
    }

    fn http2_response(&self, reply: &Reply, head_only: bool) -> Result<http::Response<BoxBody<Bytes, std::io::Error>>> {
        let mut response = http::Response::builder().status(reply.status);
        for (name, lines) in &reply.headers {
            for line in lines.all() {
                response = response.header(name, line);
            }
        }
        let body = Bytes::from(reply.bytes.clone().unwrap_or_else(|| self.body(reply).into_bytes()));
        let mut frames = Vec::new();
        let no_body = head_only || reply.status == 204 || reply.status == 304;
        if !body.is_empty() && !no_body {
            frames.push(Frame::data(body));
        }
        if !reply.trailers.is_empty() {
            let mut trailers = http::HeaderMap::new();
            for (name, value) in &reply.trailers {
                trailers.insert(http::HeaderName::try_from(name)?, value.parse()?);
            }
            frames.push(Frame::trailers(trailers));
        }
        // Without frames the headers end the stream, as gRPC's answers without a message do.
        let body = if frames.is_empty() {
            Empty::new().map_err(|never| match never {}).boxed()
        } else {
            StreamBody::new(futures::stream::iter(frames.into_iter().map(Ok))).boxed()
        };
        Ok(response.body(body)?)
    }

    fn nothing_seen(&self, version: &'static str) -> Seen {
        Seen { upstream: self.name.clone(), version, ..Seen::default() }
    }

    fn body(&self, reply: &Reply) -> String {
        reply.body.clone().unwrap_or_else(|| self.name.clone())
    }

    fn record(&self, id: &str, seen: Seen) -> Reply {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(id) else { return Reply::default() };
        let aside = self.name.starts_with("mirror") || self.name.starts_with("authz");
        let reply = match (&*entry.script, aside) {
            _ if self.name.starts_with("authz") => authz::reply(&seen.headers),
            ([], _) | (_, true) => Reply::default(),
            (script, false) => script[entry.attempts.min(script.len() - 1)].clone(),
        };
        entry.attempts += usize::from(!aside);
        entry.seen.push(seen);
        drop(entries);
        self.changed.notify_waiters();
        reply
    }

    async fn answer<S: Breakable>(&self, stream: &mut S, reply: &Reply, head_only: bool) -> Result<()> {
        match reply.fail {
            Some(Failure::Close) => bail!("closed"),
            Some(Failure::Reset) => {
                // With linger at zero, closing sends RST.
                socket2::SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO))?;
                bail!("reset");
            }
            Some(Failure::Garbage) => {
                stream.write_all(b"this is not HTTP\r\n\r\n").await?;
                bail!("garbage");
            }
            Some(Failure::Truncate) | None => {}
        }
        let truncated = reply.fail == Some(Failure::Truncate);
        let body = self.body(reply);
        let mut text = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
        for (name, lines) in &reply.headers {
            for line in lines.all() {
                text.push_str(&format!("{name}: {line}\r\n"));
            }
        }
        let no_body = reply.status == 204 || reply.status == 304;
        if !no_body {
            text.push_str(&format!("content-length: {}\r\n", body.len() + if truncated { 100 } else { 0 }));
        }
        text.push_str("\r\n");
        if !no_body && !head_only {
            text.push_str(&body);
        }
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
        if truncated {
            bail!("truncated");
        }
        Ok(())
    }
}

fn value(headers: &[(String, String)], name: &str) -> String {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

/// A stream of which something was read already.
struct Rewound<S> {
    read: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Reads more bytes; false at the end of the stream.
pub(crate) async fn more<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = [0; 8192];
    let read = stream.read(&mut chunk).await?;
    buffer.extend_from_slice(&chunk[..read]);
    Ok(read > 0)
}
