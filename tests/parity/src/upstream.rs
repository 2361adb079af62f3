//! The servers behind the proxies: scripted, and remembering what they were asked.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::case::{Failure, Reply};
use crate::client::{Head, read_body, read_head};

/// The header by which a request is known, and its case found.
pub const CASE_HEADER: &str = "x-case";

/// A request as an upstream saw it.
#[derive(Debug, Clone)]
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
    /// Starts one server for each name. Names that begin with `dead` refuse connections, those with `stuck` let them hang.
    ///
    /// # Errors
    /// No socket can be had.
    pub async fn start(names: impl Iterator<Item = String>) -> Result<Self> {
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
            let server = Server { name, entries: upstreams.entries.clone(), changed: upstreams.changed.clone() };
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
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    changed: Arc<Notify>,
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

    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::new();
        while let Some(head) = read_head(&mut stream, &mut buffer).await? {
            let Head::Request { method, path, headers } = head else { bail!("not a request") };
            let body = read_body(&mut stream, &mut buffer, &headers, false).await?;
            let id = headers.iter().find(|(name, _)| name == CASE_HEADER).map(|(_, value)| value.clone()).unwrap_or_default();
            let head_only = method == "HEAD";
            let seen = Seen { upstream: self.name.clone(), method, path, headers, body: body.text() };
            let reply = self.record(&id, seen);
            tokio::time::sleep(Duration::from_millis(reply.delay_ms)).await;
            self.answer(&mut stream, &reply, head_only).await?;
        }
        Ok(())
    }

    fn record(&self, id: &str, seen: Seen) -> Reply {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(id) else { return Reply::default() };
        let mirror = self.name.starts_with("mirror");
        let reply = match (&*entry.script, mirror) {
            ([], _) | (_, true) => Reply::default(),
            (script, false) => script[entry.attempts.min(script.len() - 1)].clone(),
        };
        entry.attempts += usize::from(!mirror);
        entry.seen.push(seen);
        drop(entries);
        self.changed.notify_waiters();
        reply
    }

    async fn answer(&self, stream: &mut TcpStream, reply: &Reply, head_only: bool) -> Result<()> {
        match reply.fail {
            Some(Failure::Close) => bail!("closed"),
            Some(Failure::Reset) => {
                // With linger at zero, closing sends RST.
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                bail!("reset");
            }
            Some(Failure::Garbage) => {
                stream.write_all(b"this is not HTTP\r\n\r\n").await?;
                bail!("garbage");
            }
            Some(Failure::Truncate) | None => {}
        }
        let truncated = reply.fail == Some(Failure::Truncate);
        let body = reply.body.clone().unwrap_or_else(|| self.name.clone());
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

/// Reads more bytes; false at the end of the stream.
pub(crate) async fn more<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = [0; 8192];
    let read = stream.read(&mut chunk).await?;
    buffer.extend_from_slice(&chunk[..read]);
    Ok(read > 0)
}
