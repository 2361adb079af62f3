//! Metadata exchange: before the application's bytes, the proxies at both ends of a TCP connection tell each other which workload
//! they stand for, so that TCP metrics can name it.
//!
//! It is Istio's protocol, agreed on by the ALPN name `istio-peer-exchange`: each side sends a magic number, a length, and so many
//! bytes of a protobuf `Any` with a `Struct`, in which are the values of the headers `x-envoy-peer-metadata-id` and
//! `x-envoy-peer-metadata` of an HTTP request. Numbers have four bytes, the most significant first.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::io::{BoxIo, Rewind};
use crate::proxy::Shared;
use crate::telemetry::peer::{MAXIMUM_METADATA, Peer};

/// The name by which both sides agree to it.
pub(crate) const ALPN: &[u8] = b"istio-peer-exchange";

const MAGIC: [u8; 4] = 0x3D23_0467_u32.to_be_bytes();
/// Magic number and length.
const HEAD: usize = 8;

/// Tells who we are and hears who the other is. A peer that begins with something else is none that we know, and its bytes are
/// passed on, as Envoy does.
///
/// The application's bytes wait for it. Both sides speak at once, so that takes no longer than the last part of the handshake.
///
/// # Errors
/// The connection fails, or the peer announces more than it may tell.
pub(crate) async fn exchange(proxy: &Shared, own: &Peer, mut io: BoxIo) -> io::Result<(BoxIo, Option<Arc<Peer>>)> {
    io.write_all(&message(own, &proxy.options.node_id)).await?;
    io.flush().await?;
    let mut seen = BytesMut::new();
    let hearing = async {
        loop {
            match hear(&seen)? {
                Heard::Incomplete if io.read_buf(&mut seen).await? > 0 => {}
                // It has ended.
                Heard::Incomplete | Heard::SomethingElse => return io::Result::Ok(None),
                Heard::Message(length) => {
                    let peer = Peer::from_exchange(&seen[HEAD..length]);
                    seen.advance(length);
                    return Ok(peer);
                }
            }
        }
    };
    let peer = match tokio::time::timeout(proxy.limits.sniff_timeout, hearing).await {
        Ok(heard) => heard?,
        // It has agreed to speak and does not: its application's bytes are all there will be.
        Err(_) => None,
    };
    let io = if seen.is_empty() { io } else { Box::new(Rewind::new(seen.freeze(), io)) };
    Ok((io, peer.map(|peer| proxy.metrics.peers.intern(peer))))
}

fn message(own: &Peer, node_id: &str) -> Vec<u8> {
    let metadata = own.to_exchange(node_id);
    [&MAGIC[..], &(metadata.len() as u32).to_be_bytes(), &metadata].concat()
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// More must be read.
    Incomplete,
    /// Not this protocol.
    SomethingElse,
    /// A message of this length, its head included.
    Message(usize),
}

/// What a connection begins with.
pub(crate) fn hear(seen: &[u8]) -> io::Result<Heard> {
    let compared = seen.len().min(MAGIC.len());
    if seen[..compared] != MAGIC[..compared] {
        return Ok(Heard::SomethingElse);
    }
    let Some(length) = seen.get(MAGIC.len()..HEAD).and_then(|length| <[u8; 4]>::try_from(length).ok()) else {
        return Ok(Heard::Incomplete);
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > MAXIMUM_METADATA {
        let reason = format!("the peer announces {length} bytes of metadata, at most {MAXIMUM_METADATA} are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(if seen.len() < HEAD + length { Heard::Incomplete } else { Heard::Message(HEAD + length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer { workload: "sleep-v1".into(), namespace: "default".into(), app: "sleep".into(), ..Peer::default() }
    }

    #[test]
    fn a_message_is_heard_wherever_it_is_cut() {
        let mut bytes = message(&peer(), "sidecar~10.244.0.7~sleep-v1-abc.default~default.svc.cluster.local");
        let length = bytes.len();
        bytes.extend(b"hello");
        for cut in 0..length {
            assert_eq!(hear(&bytes[..cut]).unwrap(), Heard::Incomplete, "{cut} bytes");
        }
        assert_eq!(hear(&bytes).unwrap(), Heard::Message(length), "and what follows is the application's");
        assert_eq!(Peer::from_exchange(&bytes[HEAD..length]), Some(peer()));
    }

    #[test]
    fn the_first_bytes_are_istios() {
        let bytes = message(&peer(), "id");
        assert_eq!(bytes[..4], [0x3d, 0x23, 0x04, 0x67]);
        // Any.type_url is field 1, 42 bytes.
        assert!(bytes[8..].starts_with(b"\x0a\x2atype.googleapis.com/google.protobuf.Struct"), "{bytes:?}");
    }

    #[test]
    fn other_bytes_and_too_many_are_told_apart() {
        assert_eq!(hear(b"GET / HTTP/1.1").unwrap(), Heard::SomethingElse);
        assert_eq!(hear(b"=").unwrap(), Heard::Incomplete, "the magic number's first byte is an ordinary character");
        assert_eq!(hear(b"=a").unwrap(), Heard::SomethingElse);
        assert!(hear(&[0x3d, 0x23, 0x04, 0x67, 0, 1, 0, 0]).is_err());
    }
}
