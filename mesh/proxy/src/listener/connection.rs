//! One accepted connection: its listener, its chain, TLS, and then HTTP or bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use meshlab_proxy_config::Transport;
use rustls::server::Acceptor;
use tokio_rustls::LazyConfigAcceptor;

use super::chain::{Candidate, Chain, ChainKind, ChainTls, Listener};
use super::sniff::{PlainHttp, Sniffed, sniff};
use crate::flags::Flags;
use crate::http::server::{HttpContext, serve_http1, serve_http2};
use crate::io::{Accepted, BoxIo, Rewind};
use crate::proxy::Shared;
use crate::stream::{Downstream, StreamInfo, TlsFacts};
use crate::tcp::{self, peer_exchange};
use crate::tls::peer::PeerCertificate;
use crate::tls::server::ServerTls;

/// Enough for most requests and every ClientHello's beginning, so that they are read at once.
const FIRST_READ: usize = 4 * 1024;

/// Serves one connection to its end.
pub(crate) async fn serve(proxy: Arc<Shared>, accepted: Accepted, bound: SocketAddr) {
    let snapshot = proxy.snapshot.load_full();
    let Some(mut listener) = snapshot.bound.get(&bound).cloned() else { return };
    let destination = accepted.original_destination.unwrap_or(accepted.local);
    if listener.config.use_original_destination
        && accepted.original_destination.is_some()
        && let Some(better) = snapshot.listener_for(destination)
    {
        listener = better;
    }
    drop(snapshot);
    proxy.counters.connections_total.increment();
    if let Err(error) = dispatch(&proxy, listener, accepted, destination).await {
        tracing::debug!(%error, "connection ended");
    }
}

async fn dispatch(
    proxy: &Arc<Shared>,
    listener: Arc<Listener>,
    accepted: Accepted,
    destination: SocketAddr,
) -> std::io::Result<()> {
    let Accepted { mut io, peer, .. } = accepted;
    let mut seen = BytesMut::with_capacity(FIRST_READ);
    let (inspect_tls, inspect_http) = listener.inspects(destination);
    let sniffed = if inspect_tls || inspect_http {
        sniff(&mut io, &mut seen, inspect_http, proxy.limits.sniff_timeout).await?
    } else {
        Sniffed::default()
    };
    let inspected = inspect_tls || inspect_http;
    let hello = sniffed.tls.as_ref();
    let mut protocols: Vec<&str> = hello.map(|hello| hello.alpn.iter().map(String::as_str).collect()).unwrap_or_default();
    match sniffed.http {
        Some(PlainHttp::Http10) => protocols.push("http/1.0"),
        Some(PlainHttp::Http11) => protocols.push("http/1.1"),
        Some(PlainHttp::Http2) => protocols.push("h2c"),
        None => {}
    }
    let transport = if hello.is_some() { Transport::Tls } else { Transport::Raw };
    let candidate = Candidate {
        destination: Some(destination),
        transport: inspected.then_some(transport),
        server_name: hello.and_then(|hello| hello.server_name.as_deref()),
        application_protocols: protocols,
    };
    let id = proxy.next_connection_id();
    let mut downstream = Downstream {
        id,
        registration: proxy.drain.register(id),
        peer,
        peer_text: peer.to_string(),
        local: destination,
        local_text: destination.to_string(),
        listener: listener.name.clone(),
        direction: listener.config.direction,
        tls: None,
        server_name: candidate.server_name.map(str::to_owned),
    };
    let Some(chain) = listener.choose(&candidate) else {
        proxy.counters.no_filter_chain_match.increment();
        let mut info = StreamInfo::new(Arc::new(downstream));
        info.flag(Flags::NO_ROUTE);
        info.details = "filter_chain_not_found".into();
        tcp::proxy::log_refused(proxy, info);
        return Ok(());
    };
    let io: BoxIo = if seen.is_empty() { io } else { Box::new(Rewind::new(seen.freeze(), io)) };
    match &chain.tls {
        None => speak(proxy, chain.clone(), Arc::new(downstream), io, sniffed.http).await,
        Some(ChainTls::Broken(reason)) => {
            tracing::warn!(listener = %listener.name, chain = %chain.name, reason, "TLS cannot be terminated");
            proxy.counters.tls_errors.increment();
            Ok(())
        }
        Some(ChainTls::Ready(tls)) => {
            let handshake = terminate(proxy, tls, io);
            let handshake = tokio::time::timeout(proxy.limits.tls_handshake_timeout, handshake).await;
            match handshake {
                Ok(Ok((io, facts, server_name))) => {
                    proxy.counters.tls_handshakes.increment();
                    downstream.tls = Some(facts);
                    downstream.server_name = server_name;
                    speak(proxy, chain.clone(), Arc::new(downstream), io, None).await
                }
                Ok(Err(error)) => {
                    proxy.counters.tls_errors.increment();
                    let mut info = StreamInfo::new(Arc::new(downstream));
                    info.transport_failure = Some(format!("TLS_error:{error}"));
                    tcp::proxy::log_refused(proxy, info);
                    Ok(())
                }
                Err(_) => {
                    proxy.counters.tls_errors.increment();
                    Ok(())
                }
            }
        }
    }
}

async fn terminate(proxy: &Shared, tls: &ServerTls, io: BoxIo) -> std::io::Result<(BoxIo, TlsFacts, Option<String>)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let config = {
        let hello = start.client_hello();
        tls.for_client(hello.alpn().into_iter().flatten())
    };
    let stream = start.into_stream(config).await?;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first).and_then(PeerCertificate::parse).map(Arc::new);
    let principal =
        certificate.as_ref().and_then(|certificate| certificate.spiffe_id.as_deref()).map(|id| proxy.metrics.peers.name(id));
    let facts = TlsFacts {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        certificate,
        principal,
        local_identity: proxy.own_identity(),
        peer_exchange: session.alpn_protocol() == Some(peer_exchange::ALPN),
    };
    let server_name = session.server_name().map(str::to_owned);
    Ok((Box::new(stream), facts, server_name))
}

async fn speak(
    proxy: &Arc<Shared>,
    chain: Arc<Chain>,
    downstream: Arc<Downstream>,
    mut io: BoxIo,
    known: Option<PlainHttp>,
) -> std::io::Result<()> {
    match &chain.kind {
        ChainKind::Tcp(tcp) => {
            tcp::proxy::serve(proxy.clone(), tcp.clone(), downstream, io).await;
            Ok(())
        }
        ChainKind::Http(http) => {
            let context = HttpContext::new(proxy.clone(), downstream, chain.name.clone(), http.clone());
            let http2 = match known {
                Some(http) => http == PlainHttp::Http2,
                None => {
                    let mut seen = BytesMut::with_capacity(FIRST_READ);
                    let http2 = has_preface(&mut io, &mut seen, proxy).await?;
                    io = Box::new(Rewind::new(seen.freeze(), io));
                    http2
                }
            };
            if http2 {
                serve_http2(context, io).await;
            } else {
                serve_http1(context, io).await;
            }
            Ok(())
        }
    }
}

/// Whether the client begins with HTTP/2's preface. A request's second byte usually tells.
async fn has_preface(io: &mut BoxIo, seen: &mut BytesMut, proxy: &Shared) -> std::io::Result<bool> {
    use tokio::io::AsyncReadExt;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let reading = async {
        loop {
            if io.read_buf(seen).await? == 0 {
                return Ok(false);
            }
            let compared = seen.len().min(PREFACE.len());
            if seen[..compared] != PREFACE[..compared] {
                return Ok(false);
            }
            if compared == PREFACE.len() {
                return Ok(true);
            }
        }
    };
    match tokio::time::timeout(proxy.limits.connection_idle_timeout, reading).await {
        Ok(read) => read,
        Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the client said nothing")),
    }
}
