//! Byte streams, with their type erased where they enter the proxy: everything inside is compiled once.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use meshlab_net::{Keepalive, Listener, Net, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the proxy reads from and writes to.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Io for T {}

/// An erased stream. tokio forwards vectored writes through the box, which rustls needs to batch its records (rustls#1640).
pub(crate) type BoxIo = Box<dyn Io>;

/// A connection as it was accepted.
pub(crate) struct Accepted {
    pub(crate) io: BoxIo,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) original_destination: Option<SocketAddr>,
}

/// A connection as it was opened.
pub(crate) struct Connected {
    pub(crate) io: BoxIo,
    pub(crate) local: SocketAddr,
}

/// A bound socket.
pub(crate) trait Socket: Send {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;
    fn local_addr(&self) -> SocketAddr;
}

/// [`Net`] without its type parameters.
pub(crate) trait Network: Send + Sync + 'static {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Socket>>>;
    fn connect(
        &self,
        source: Option<IpAddr>,
        address: SocketAddr,
        keepalive: Option<Keepalive>,
    ) -> BoxFuture<'_, io::Result<Connected>>;
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The adapter from [`Net`] to [`Network`].
pub(crate) struct Erased<N>(pub(crate) N);

struct ErasedListener<L>(L);

impl<L: Listener> Socket for ErasedListener<L> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async {
            let stream = self.0.accept().await?;
            Ok(Accepted {
                peer: stream.peer_addr(),
                local: stream.local_addr(),
                original_destination: stream.original_destination(),
                io: Box::new(stream),
            })
        }
        .boxed()
    }

    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }
}

impl<N: Net> Network for Erased<N> {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Socket>>> {
        async move { Ok(Box::new(ErasedListener(self.0.listen(address).await?)) as Box<dyn Socket>) }.boxed()
    }

    fn connect(
        &self,
        source: Option<IpAddr>,
        address: SocketAddr,
        keepalive: Option<Keepalive>,
    ) -> BoxFuture<'_, io::Result<Connected>> {
        async move {
            let stream = match source {
                Some(source) => self.0.connect_from(source, address).await?,
                None => self.0.connect(address).await?,
            };
            if let Some(keepalive) = &keepalive
                && let Err(error) = stream.set_keepalive(keepalive)
            {
                // The connection is as good as without it; Envoy too goes on and logs it.
                tracing::warn!(%address, %error, "keep-alive cannot be set");
            }
            Ok(Connected { local: stream.local_addr(), io: Box::new(stream) })
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.0.resolve(host).boxed()
    }
}

/// A stream whose first bytes were read already, to see what they are, and are read once more from here.
pub(crate) struct Rewind<S> {
    prefix: Bytes,
    inner: S,
}

impl<S> Rewind<S> {
    pub(crate) fn new(prefix: Bytes, inner: S) -> Self {
        Self { prefix, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..length]);
            self.prefix.advance(length);
            if self.prefix.is_empty() {
                // Gives the memory back, for the life of the connection.
                self.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
