//! The operating system's sockets.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{Keepalive, Listener, Net, Stream};

/// As many connections may wait to be accepted; the usual `somaxconn` is 4096, and the kernel takes the smaller one.
const BACKLOG: u32 = 1024;

/// The network of the machine this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsNet;

impl Net for OsNet {
    type Stream = OsStream;
    type Listener = OsListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<OsListener> {
        let socket = socket_for(address)?;
        // Without it a restarted server waits for its predecessor's TIME_WAIT. On Windows the option means something else.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(OsListener { listener, address })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<OsStream> {
        OsStream::new(TcpStream::connect(address).await?)
    }

    async fn connect_from(&self, source: IpAddr, address: SocketAddr) -> io::Result<OsStream> {
        let socket = socket_for(address)?;
        socket.bind(SocketAddr::new(source, 0))?;
        OsStream::new(socket.connect(address).await?)
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in tokio::net::lookup_host((host, 0)).await? {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address for host {host:?}")));
        }
        Ok(addresses)
    }
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct OsListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener for OsListener {
    type Stream = OsStream;

    async fn accept(&mut self) -> io::Result<OsStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            // A client that is gone again before it was accepted is no fault of the listener's.
            if let Ok(stream) = OsStream::new(stream) {
                return Ok(stream);
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// A TCP connection, with Nagle's algorithm off.
#[derive(Debug)]
pub struct OsStream {
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    original_destination: Option<SocketAddr>,
}

impl OsStream {
    /// Wraps a connected socket.
    ///
    /// # Errors
    /// The socket is not connected any more.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        let original_destination = original_destination(&stream).filter(|original| *original != local);
        Ok(Self { stream, peer, local, original_destination })
    }
}

/// What netfilter's connection tracking remembers; nothing where it does not run or the connection was not redirected.
#[cfg(target_os = "linux")]
fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let original = if stream.local_addr().ok()?.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok()?.as_socket()
}

#[cfg(not(target_os = "linux"))]
fn original_destination(_: &TcpStream) -> Option<SocketAddr> {
    None
}

impl Stream for OsStream {
    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn original_destination(&self) -> Option<SocketAddr> {
        self.original_destination
    }

    fn set_keepalive(&self, settings: &Keepalive) -> io::Result<()> {
        let mut keepalive = socket2::TcpKeepalive::new();
        if let Some(time) = settings.time {
            keepalive = keepalive.with_time(time);
        }
        if let Some(interval) = settings.interval {
            keepalive = keepalive.with_interval(interval);
        }
        // Windows counts probes by itself.
        #[cfg(unix)]
        if let Some(probes) = settings.probes {
            keepalive = keepalive.with_retries(probes);
        }
        socket2::SockRef::from(&self.stream).set_tcp_keepalive(&keepalive)
    }
}

impl AsyncRead for OsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for OsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_knows_both_ends_and_was_not_redirected() {
        let mut listener = OsNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let mut client = OsNet.connect(address).await.unwrap();
        let mut server = listener.accept().await.unwrap();
        assert_eq!(client.peer_addr(), address);
        assert_eq!(server.peer_addr(), client.local_addr());
        assert_eq!(server.original_destination(), None);
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = String::new();
        server.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "hello");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_can_leave_from_another_loopback_address() {
        let mut listener = OsNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let _client = OsNet.connect_from("127.0.0.6".parse().unwrap(), listener.local_addr()).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().peer_addr().ip().to_string(), "127.0.0.6");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn keep_alive_is_what_was_asked_for() {
        let listener = OsNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let client = OsNet.connect(listener.local_addr()).await.unwrap();
        let seconds = std::time::Duration::from_secs;
        let settings = Keepalive { time: Some(seconds(50)), interval: Some(seconds(7)), probes: Some(3) };
        client.set_keepalive(&settings).unwrap();
        let socket = socket2::SockRef::from(&client.stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(50));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }

    #[tokio::test]
    async fn literal_addresses_need_no_name_server() {
        let addresses = OsNet.resolve("203.0.113.7").await.unwrap();
        assert_eq!(addresses, vec!["203.0.113.7".parse::<IpAddr>().unwrap()]);
    }
}
