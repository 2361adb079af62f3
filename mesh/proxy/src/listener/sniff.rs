//! What the first bytes of a connection are: TLS with its server name and protocols, HTTP, or something else.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sniffed {
    pub(crate) tls: Option<ClientHello>,
    pub(crate) http: Option<PlainHttp>,
    /// The client sent nothing, or not enough, in time.
    pub(crate) timed_out: bool,
}

/// A TLS client's first message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientHello {
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Vec<String>,
}

/// HTTP without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    Http10,
    Http11,
    Http2,
}

/// A ClientHello longer than this is not looked at (a TLS record has at most 16 KiB).
const MAXIMUM_HELLO: usize = 17 * 1024;
/// The first line of an HTTP/1 request is looked for in so many bytes.
const MAXIMUM_REQUEST_LINE: usize = 8 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads into `seen` until it is clear what is spoken, or `limit` is over.
pub(crate) async fn sniff<S: AsyncRead + Unpin>(
    stream: &mut S,
    seen: &mut BytesMut,
    want_http: bool,
    limit: Duration,
) -> io::Result<Sniffed> {
    let reading = async {
        loop {
            if let Some(sniffed) = look(seen, want_http) {
                return Ok(sniffed);
            }
            if stream.read_buf(seen).await? == 0 {
                return Ok(Sniffed::default());
            }
        }
    };
    match tokio::time::timeout(limit, reading).await {
        Ok(sniffed) => sniffed,
        // Istio goes on when listener filters time out: the bytes are taken for what they are, unknown.
        Err(_) => Ok(Sniffed { timed_out: true, ..Sniffed::default() }),
    }
}

/// What the bytes so far are; `None` if more are needed.
pub(crate) fn look(seen: &[u8], want_http: bool) -> Option<Sniffed> {
    let first = seen.first()?;
    // A handshake record: 22, then version 3.x.
    if *first == 0x16 && seen.get(1).is_none_or(|major| *major == 3) {
        return client_hello(seen);
    }
    if !want_http {
        return Some(Sniffed::default());
    }
    plain_http(seen).map(|http| Sniffed { http, ..Sniffed::default() })
}

fn client_hello(seen: &[u8]) -> Option<Sniffed> {
    let mut acceptor = Acceptor::default();
    let mut rest = seen;
    loop {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if rest.is_empty() {
            break;
        }
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            let alpn = hello.alpn().into_iter().flatten().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            let hello = ClientHello { server_name: hello.server_name().map(str::to_owned), alpn };
            Some(Sniffed { tls: Some(hello), ..Sniffed::default() })
        }
        Ok(None) if seen.len() < MAXIMUM_HELLO => None,
        // It is TLS, but not a hello that we understand: the handshake will say so with an alert.
        Ok(None) | Err(_) => Some(Sniffed { tls: Some(ClientHello::default()), ..Sniffed::default() }),
    }
}

/// `Some(None)`: not HTTP. `None`: not known yet.
fn plain_http(seen: &[u8]) -> Option<Option<PlainHttp>> {
    if seen.len() < PREFACE.len() && PREFACE.starts_with(seen) {
        return None;
    }
    if seen.starts_with(PREFACE) {
        return Some(Some(PlainHttp::Http2));
    }
    let line_end = seen.iter().position(|byte| *byte == b'\n');
    let method_end = seen.iter().position(|byte| !byte.is_ascii_uppercase() && *byte != b'-');
    match method_end {
        // No method is longer than this.
        None => (seen.len() > 24).then_some(None),
        Some(0) => Some(None),
        Some(end) if seen[end] != b' ' => Some(None),
        Some(_) => match line_end {
            None => (seen.len() > MAXIMUM_REQUEST_LINE).then_some(None),
            Some(end) => {
                let line = seen[..end].trim_ascii_end();
                Some(if line.ends_with(b" HTTP/1.1") {
                    Some(PlainHttp::Http11)
                } else if line.ends_with(b" HTTP/1.0") {
                    Some(PlainHttp::Http10)
                } else {
                    None
                })
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fact_45_http_is_recognised_and_other_protocols_are_not() {
        let http = |bytes: &[u8]| look(bytes, true).map(|sniffed| sniffed.http);
        assert_eq!(http(b"GET /a HTTP/1.1\r\n"), Some(Some(PlainHttp::Http11)));
        assert_eq!(http(b"GET /a HTTP/1.0\r\n"), Some(Some(PlainHttp::Http10)));
        assert_eq!(http(PREFACE), Some(Some(PlainHttp::Http2)));
        assert_eq!(http(b"PRI * HTT"), None);
        assert_eq!(http(b"GET /a"), None);
        assert_eq!(http(b"\x00\x00\x00\x01"), Some(None));
        assert_eq!(http(b"*1\r\n$4\r\nPING\r\n"), Some(None));
        assert_eq!(http(b"PING\r\n"), Some(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), tls in any::<bool>()) {
            if tls && bytes.len() > 3 {
                bytes[..3].copy_from_slice(&[0x16, 3, 1]);
            }
            let _ = look(&bytes, true);
        }
    }
}
