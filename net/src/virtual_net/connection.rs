//! An open connection, and each end's stream.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio::time::Sleep;

use super::capture::{Flags, Tap};
use super::host::Host;
use super::link::{Conditions, LiveConditions};
use super::pipe::{End, Pipe, Read};

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What both ends share.
pub(super) struct Connection {
    /// The addresses on the wire: the client's, and the server's before its own pod redirects anything.
    addresses: [SocketAddr; 2],
    /// What each end writes.
    pipes: [Pipe; 2],
    conditions: LiveConditions,
    /// Each end's next TCP sequence number, counted from its initial one.
    sequence: [AtomicU64; 2],
    initial_sequence: [u32; 2],
    tapped: AtomicBool,
    taps: Mutex<Vec<Weak<Tap>>>,
    hosts: [Weak<Host>; 2],
}

impl Connection {
    pub(super) fn new(addresses: [SocketAddr; 2], hosts: [&Arc<Host>; 2], buffer: usize) -> Arc<Self> {
        let connection = Arc::new(Self {
            addresses,
            pipes: [Pipe::new(buffer), Pipe::new(buffer)],
            conditions: LiveConditions::default(),
            sequence: [AtomicU64::new(0), AtomicU64::new(0)],
            initial_sequence: [rand::random(), rand::random()],
            tapped: AtomicBool::new(false),
            taps: Mutex::default(),
            hosts: hosts.map(Arc::downgrade),
        });
        hosts[0].register(addresses[0], addresses[1], &connection);
        hosts[1].register(addresses[1], addresses[0], &connection);
        connection
    }

    pub(super) fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// Both ends are the same host, so that no link is involved.
    pub(super) fn is_local(&self) -> bool {
        Weak::ptr_eq(&self.hosts[0], &self.hosts[1])
    }

    /// Adapts to changed conditions of the link.
    pub(super) fn impair(&self, conditions: &Conditions) {
        let was_cut = self.conditions.is_cut();
        self.conditions.set(conditions);
        if conditions.reset {
            self.kill(Side::Server);
        } else if was_cut && !self.conditions.is_cut() {
            for pipe in &self.pipes {
                pipe.wake_reader();
            }
        }
    }

    /// Resets both ends; `by` is the one that sends the packet.
    pub(super) fn kill(&self, by: Side) {
        let was_open = self.pipes.each_ref().map(|pipe| pipe.end(End::Reset, Duration::ZERO));
        if was_open != [false, false] {
            self.record(by, Flags::RST | Flags::ACK, &[], 0);
        }
    }

    /// Begins to record. A connection that is new is recorded from its handshake.
    pub(super) fn tap(&self, tap: &Arc<Tap>) {
        let tap = Arc::downgrade(tap);
        let mut taps = self.taps.lock();
        if !taps.iter().any(|known| Weak::ptr_eq(known, &tap)) {
            taps.push(tap);
        }
        self.tapped.store(true, Ordering::Release);
    }

    /// Records the three packets that open a connection.
    pub(super) fn record_handshake(&self) {
        if !self.tapped.load(Ordering::Acquire) {
            self.sequence.iter().for_each(|next| next.store(1, Ordering::Relaxed));
            return;
        }
        self.record(Side::Client, Flags::SYN, &[], 1);
        self.record(Side::Server, Flags::SYN | Flags::ACK, &[], 1);
        self.record(Side::Client, Flags::ACK, &[], 0);
    }

    /// Counts `advance` sequence numbers as sent by `side`, and shows the packets to whoever is recording.
    fn record(&self, side: Side, flags: Flags, data: &[IoSlice<'_>], advance: usize) {
        let advance = advance as u64;
        if !self.tapped.load(Ordering::Acquire) {
            self.sequence[side as usize].fetch_add(advance, Ordering::Relaxed);
            return;
        }
        let mut taps = self.taps.lock();
        taps.retain(|tap| tap.strong_count() > 0);
        self.tapped.store(!taps.is_empty(), Ordering::Release);
        let other = side.other();
        let before = self.sequence[side as usize].fetch_add(advance, Ordering::Relaxed);
        let number = |side: Side, offset: u64| self.initial_sequence[side as usize].wrapping_add(offset as u32);
        let (from, to) = (self.addresses[side as usize], self.addresses[other as usize]);
        let (sequence, acknowledged) =
            (number(side, before), number(other, self.sequence[other as usize].load(Ordering::Relaxed)));
        let answered = data.iter().any(|slice| !slice.is_empty()) || flags.contains(Flags::FIN);
        for tap in taps.iter().filter_map(Weak::upgrade) {
            tap.packets(from, to, sequence, acknowledged, flags, data, advance as usize);
            if answered {
                let after = sequence.wrapping_add(advance as u32);
                tap.packets(to, from, acknowledged, after, Flags::ACK, &[], 0);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let [client, server] = self.addresses;
        if let Some(host) = self.hosts[0].upgrade() {
            host.unregister(client, server);
        }
        if let Some(host) = self.hosts[1].upgrade() {
            host.unregister(server, client);
        }
    }
}

/// A connected byte stream on a [`VirtualNet`](crate::VirtualNet).
pub struct VirtualStream {
    inner: Inner,
    local: SocketAddr,
    peer: SocketAddr,
    original_destination: Option<SocketAddr>,
}

enum Inner {
    Virtual(Endpoint),
    /// A connection that left for the Internet.
    Os(TcpStream),
}

/// One end of a virtual connection.
struct Endpoint {
    connection: Arc<Connection>,
    side: Side,
    timer: Option<Pin<Box<Sleep>>>,
}

impl VirtualStream {
    /// Both ends of `connection`: the client's and the server's. `dialled` is whom the client believes to be talking to,
    /// `accepted_at` the address of the socket that accepts.
    pub(super) fn pair(
        connection: &Arc<Connection>,
        dialled: SocketAddr,
        accepted_at: SocketAddr,
        original_destination: Option<SocketAddr>,
    ) -> (Self, Self) {
        let end = |side| Inner::Virtual(Endpoint { connection: connection.clone(), side, timer: None });
        let client = connection.addresses[0];
        (
            Self { inner: end(Side::Client), local: client, peer: dialled, original_destination: None },
            Self { inner: end(Side::Server), local: accepted_at, peer: client, original_destination },
        )
    }

    pub(super) fn os(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { inner: Inner::Os(stream), local, peer, original_destination: None })
    }

    /// Ends the connection as a crash would: the peer sees `ConnectionReset`.
    pub fn reset(self) {
        match &self.inner {
            Inner::Virtual(end) => end.connection.kill(end.side),
            // Zero linger makes the close that follows a reset.
            Inner::Os(stream) => drop(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))),
        }
    }
}

impl std::fmt::Debug for VirtualStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtualStream").field("local", &self.local).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl crate::Stream for VirtualStream {
    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn original_destination(&self) -> Option<SocketAddr> {
        self.original_destination
    }
}

impl Endpoint {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Both ends often run on one thread; without a budget, a busy pair would starve every other task on it.
        let budget = ready!(coop::poll_proceed(cx));
        let incoming = &self.connection.pipes[self.side.other() as usize];
        loop {
            match incoming.read(cx, buffer, self.connection.conditions.is_cut()) {
                Read::Done(result) => {
                    budget.made_progress();
                    return Poll::Ready(result);
                }
                Read::Wait => return Poll::Pending,
                Read::Until(when) => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(when)));
                    if timer.deadline() != when {
                        timer.as_mut().reset(when);
                    }
                    ready!(timer.as_mut().poll(cx));
                    self.timer = None;
                }
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        let outgoing = &self.connection.pipes[self.side as usize];
        let delay = self.connection.conditions.one_way();
        let sent = |count| self.connection.record(self.side, Flags::PSH | Flags::ACK, data, count);
        let result = ready!(outgoing.write(cx, data, delay, sent));
        budget.made_progress();
        Poll::Ready(result)
    }

    fn finish(&self, end: End) {
        if self.connection.pipes[self.side as usize].end(end, self.connection.conditions.one_way()) {
            match end {
                End::Finished => self.connection.record(self.side, Flags::FIN | Flags::ACK, &[], 1),
                End::Aborted | End::Reset => self.connection.record(self.side, Flags::RST | Flags::ACK, &[], 0),
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let unread = self.connection.pipes[self.side.other() as usize].close_reader();
        self.finish(if unread { End::Aborted } else { End::Finished });
    }
}

impl AsyncRead for VirtualStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Virtual(end) => end.poll_read(cx, buffer),
            Inner::Os(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for VirtualStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Virtual(end) => end.poll_write(cx, &[IoSlice::new(data)]),
            Inner::Os(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Virtual(end) => end.poll_write(cx, data),
            Inner::Os(stream) => Pin::new(stream).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Virtual(_) => Poll::Ready(Ok(())),
            Inner::Os(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Virtual(end) => {
                end.finish(End::Finished);
                Poll::Ready(Ok(()))
            }
            Inner::Os(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
