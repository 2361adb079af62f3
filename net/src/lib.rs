//! Sockets as one small trait, [`Net`], with two worlds behind it:
//!
//! - [`OsNet`], the operating system's TCP sockets;
//! - [`VirtualNet`], a network inside the process, on which every pod of an embedded cluster has an address.
//!
//! Code that serves or opens connections (the proxy, the control plane, the sample applications) is written once,
//! generic over [`Net`], and never asks which world it lives in.

mod any;
mod os;
mod virtual_net;
mod wall_deadline;

pub use any::{AnyListener, AnyNet, AnyStream};
pub use os::{OsListener, OsNet, OsStream};
pub use virtual_net::{
    Capture, CaptureOptions, ConditionId, Egress, HostOptions, Link, LinkCondition, Lookup, PodNet, Published, Record, Redirect,
    RedirectParseError, Selection, ServicePort, VirtualListener, VirtualNet, VirtualNetOptions, VirtualStream,
};
pub use wall_deadline::WallDeadline;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// A host's view of a network: where it can listen, whom it can reach, how it resolves names.
///
/// Cloning is cheap and yields the same host.
pub trait Net: Clone + Send + Sync + 'static {
    /// A connected byte stream.
    type Stream: Stream;
    /// A bound, listening socket.
    type Listener: Listener<Stream = Self::Stream>;

    /// Binds and listens. Port 0 picks a free port; an unspecified address (`0.0.0.0`) takes every address of this host.
    ///
    /// # Errors
    /// `AddrInUse` when the port is taken, `AddrNotAvailable` when the address is not this host's.
    fn listen(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Opens a connection to `address`. Service addresses are balanced over their endpoints here.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens, `HostUnreachable` when nobody has the address, `TimedOut` when nobody answers.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Opens a connection with `source`, an address of this host, as its own end (a sidecar reaches its application from
    /// `127.0.0.6`, which the redirection rules know and leave alone).
    ///
    /// # Errors
    /// As [`Net::connect`], and `AddrNotAvailable` when `source` is not this host's.
    fn connect_from(&self, source: IpAddr, address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Resolves a host name (or a literal address) as this host would, search domains included.
    ///
    /// # Errors
    /// `NotFound` when the name does not exist.
    fn resolve(&self, host: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// A listening socket.
pub trait Listener: Send + 'static {
    /// What [`Listener::accept`] yields.
    type Stream: Stream;

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The listener is unusable; the host went away.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The address this socket is bound to, with its real port.
    fn local_addr(&self) -> SocketAddr;
}

/// A connected byte stream that knows both of its ends.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The address of the other end, as the network shows it (a pod's own address, never a NAT's).
    fn peer_addr(&self) -> SocketAddr;

    /// The address of this end.
    fn local_addr(&self) -> SocketAddr;

    /// Where the client wanted to go, if this connection was redirected to us (`SO_ORIGINAL_DST`).
    fn original_destination(&self) -> Option<SocketAddr>;

    /// Asks the other end now and then whether it is still there (`SO_KEEPALIVE`). A network that always knows does nothing.
    ///
    /// # Errors
    /// The operating system does not take the settings.
    fn set_keepalive(&self, settings: &Keepalive) -> io::Result<()> {
        let _ = settings;
        Ok(())
    }
}

/// TCP keep-alive; what is not set is as the operating system has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// How long nothing must have come before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes after which the connection is given up.
    pub probes: Option<u32>,
}
