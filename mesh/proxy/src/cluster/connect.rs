//! Opening a connection to an endpoint: TCP, PROXY protocol, TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshlab_net::Keepalive;
use meshlab_proxy_config::{ProxyProtocol, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Cluster;
use super::host::Host;
use crate::io::{BoxIo, Connected};
use crate::options::milliseconds;
use crate::tcp::peer_exchange;
use crate::tls::client::Inner;
use crate::tls::peer::PeerCertificate;

/// An open connection.
pub(crate) struct Transport {
    pub(crate) io: BoxIo,
    pub(crate) local: SocketAddr,
    /// Of the upstream, if TLS is spoken.
    pub(crate) peer_certificate: Option<Arc<PeerCertificate>>,
    /// Mesh mutual TLS is spoken.
    pub(crate) mesh: bool,
    /// Metadata is exchanged before the application's bytes.
    pub(crate) peer_exchange: bool,
}

/// Why there is no connection, in the words Envoy's logs use.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connection timeout")]
    Timeout,
    #[error("delayed connect error: {0}")]
    Tcp(String),
    #[error("TLS_error:|{0}:TLS_error_end")]
    Tls(String),
}

/// Who is at both ends of the client's connection, for the PROXY protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddresses {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// Opens a connection that will carry `inner`.
pub(crate) async fn open(
    cluster: &Cluster,
    host: &Host,
    inner: Inner,
    client: Option<ClientAddresses>,
) -> Result<Transport, ConnectError> {
    let limit = milliseconds(cluster.config.connect_timeout_ms.max(1));
    cluster.stats.upstream_cx_total.increment();
    host.stats.cx_total.increment();
    let opened = match timeout(limit, open_untimed(cluster, host, inner, client)).await {
        Ok(opened) => opened,
        Err(_) => Err(ConnectError::Timeout),
    };
    if let Err(error) = &opened {
        host.stats.cx_connect_fail.increment();
        cluster.stats.upstream_cx_connect_fail.increment();
        match error {
            ConnectError::Timeout => cluster.stats.upstream_cx_connect_timeout.increment(),
            ConnectError::Tls(_) => cluster.stats.ssl_connection_error.increment(),
            ConnectError::Tcp(_) => {}
        }
    }
    opened
}

async fn open_untimed(
    cluster: &Cluster,
    host: &Host,
    inner: Inner,
    client: Option<ClientAddresses>,
) -> Result<Transport, ConnectError> {
    let source = source(&cluster.config.name, host.address);
    let keepalive = cluster.config.tcp_keepalive.as_ref().map(keepalive);
    let connecting = cluster.shared.network.connect(source, host.address, keepalive);
    let Connected { mut io, local } = connecting.await.map_err(|error| ConnectError::Tcp(tcp_reason(&error)))?;
    if let (Some(version), Some(client)) = (cluster.config.proxy_protocol, client) {
        io.write_all(&proxy_header(version, client)).await.map_err(|error| ConnectError::Tcp(tcp_reason(&error)))?;
    }
    let Some(tls) = cluster.tls_for(host).map_err(ConnectError::Tls)? else {
        return Ok(Transport { io, local, peer_certificate: None, mesh: false, peer_exchange: false });
    };
    let stream = TlsConnector::from(tls.config(inner))
        .connect(tls.server_name.clone(), io)
        .await
        .map_err(|error| ConnectError::Tls(tls_reason(&error)))?;
    cluster.stats.ssl_handshake.increment();
    let peer_certificate =
        stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(PeerCertificate::parse).map(Arc::new);
    let peer_exchange = stream.get_ref().1.alpn_protocol() == Some(peer_exchange::ALPN);
    Ok(Transport { io: Box::new(stream), local, peer_certificate, mesh: tls.mesh, peer_exchange })
}

fn keepalive(config: &TcpKeepalive) -> Keepalive {
    let seconds = |seconds: Option<u32>| seconds.map(|seconds| Duration::from_secs(seconds.into()));
    Keepalive { time: seconds(config.time_s), interval: seconds(config.interval_s), probes: config.probes }
}

/// A sidecar reaches its own application from 127.0.0.6: the redirection rules know that address, and would send a connection from
/// any other one back to the sidecar.
fn source(cluster: &str, address: SocketAddr) -> Option<IpAddr> {
    let own_application = cluster.starts_with("inbound|") || cluster == "InboundPassthroughCluster";
    (own_application && address.is_ipv4()).then_some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)))
}

/// As `strerror` says it, which is what Envoy prints.
fn tcp_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "Connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "Connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "No route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "Network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "Connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// OpenSSL's names where learners will search for them, rustls' words elsewhere.
fn tls_reason(error: &io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return error.to_string();
    };
    match tls {
        rustls::Error::InvalidMessage(_) => "268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER".to_owned(),
        rustls::Error::InvalidCertificate(reason) => {
            format!("268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED ({reason})")
        }
        other => other.to_string(),
    }
}

/// The PROXY protocol's header (<https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>).
pub(crate) fn proxy_header(version: ProxyProtocol, client: ClientAddresses) -> Vec<u8> {
    let ClientAddresses { source, destination } = client;
    match version {
        ProxyProtocol::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port())
                .into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
            let mut addresses = Vec::new();
            match (source, destination) {
                (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                    header.push(0x11);
                    addresses.extend(source.ip().octets());
                    addresses.extend(destination.ip().octets());
                }
                (source, destination) => {
                    header.push(0x21);
                    for address in [source, destination] {
                        addresses.extend(match address.ip() {
                            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                            std::net::IpAddr::V6(ip) => ip.octets(),
                        });
                    }
                }
            }
            addresses.extend(source.port().to_be_bytes());
            addresses.extend(destination.port().to_be_bytes());
            header.extend((addresses.len() as u16).to_be_bytes());
            header.extend(addresses);
            header
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_protocol_header_names_both_ends_of_the_clients_connection() {
        let client = ClientAddresses { source: "10.0.0.1:4321".parse().unwrap(), destination: "10.0.0.2:80".parse().unwrap() };
        assert_eq!(proxy_header(ProxyProtocol::V1, client), b"PROXY TCP4 10.0.0.1 10.0.0.2 4321 80\r\n");
        let v2 = proxy_header(ProxyProtocol::V2, client);
        assert_eq!(&v2[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c");
        assert_eq!(&v2[16..], [10, 0, 0, 1, 10, 0, 0, 2, 0x10, 0xe1, 0, 80]);
    }
}
