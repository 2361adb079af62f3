//! Either world, for a program that must run in both.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Keepalive, Listener, Net, OsListener, OsNet, OsStream, PodNet, Stream, VirtualListener, VirtualStream};

/// The machine's network or a pod's. Code that is generic over [`Net`] is compiled once for each network it is used with; with this one
/// a program that serves both is half as large, for a comparison in each call.
#[derive(Clone)]
pub enum AnyNet {
    /// The operating system's sockets.
    Os(OsNet),
    /// A host of a virtual network.
    Pod(PodNet),
}

impl Net for AnyNet {
    type Stream = AnyStream;
    type Listener = AnyListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<AnyListener> {
        match self {
            Self::Os(net) => net.listen(address).await.map(AnyListener::Os),
            Self::Pod(net) => net.listen(address).await.map(AnyListener::Pod),
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<AnyStream> {
        match self {
            Self::Os(net) => net.connect(address).await.map(AnyStream::Os),
            Self::Pod(net) => net.connect(address).await.map(AnyStream::Pod),
        }
    }

    async fn connect_from(&self, source: IpAddr, address: SocketAddr) -> io::Result<AnyStream> {
        match self {
            Self::Os(net) => net.connect_from(source, address).await.map(AnyStream::Os),
            Self::Pod(net) => net.connect_from(source, address).await.map(AnyStream::Pod),
        }
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::Os(net) => net.resolve(host).await,
            Self::Pod(net) => net.resolve(host).await,
        }
    }
}

/// A listening socket of an [`AnyNet`].
pub enum AnyListener {
    /// Of the operating system.
    Os(OsListener),
    /// Of a virtual network.
    Pod(VirtualListener),
}

impl Listener for AnyListener {
    type Stream = AnyStream;

    async fn accept(&mut self) -> io::Result<AnyStream> {
        match self {
            Self::Os(listener) => listener.accept().await.map(AnyStream::Os),
            Self::Pod(listener) => listener.accept().await.map(AnyStream::Pod),
        }
    }

    fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Os(listener) => listener.local_addr(),
            Self::Pod(listener) => listener.local_addr(),
        }
    }
}

/// A connection of an [`AnyNet`].
pub enum AnyStream {
    /// Of the operating system.
    Os(OsStream),
    /// Of a virtual network.
    Pod(VirtualStream),
}

impl Stream for AnyStream {
    fn peer_addr(&self) -> SocketAddr {
        match self {
            Self::Os(stream) => stream.peer_addr(),
            Self::Pod(stream) => stream.peer_addr(),
        }
    }

    fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Os(stream) => stream.local_addr(),
            Self::Pod(stream) => stream.local_addr(),
        }
    }

    fn original_destination(&self) -> Option<SocketAddr> {
        match self {
            Self::Os(stream) => stream.original_destination(),
            Self::Pod(stream) => stream.original_destination(),
        }
    }

    fn set_keepalive(&self, settings: &Keepalive) -> io::Result<()> {
        match self {
            Self::Os(stream) => stream.set_keepalive(settings),
            Self::Pod(stream) => stream.set_keepalive(settings),
        }
    }
}

impl AsyncRead for AnyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Pod(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for AnyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Pod(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Pod(stream) => Pin::new(stream).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Os(stream) => stream.is_write_vectored(),
            Self::Pod(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_flush(cx),
            Self::Pod(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Pod(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
