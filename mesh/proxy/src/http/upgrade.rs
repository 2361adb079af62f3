//! Connections that change their protocol (WebSocket).

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::exchange::{Exchange, ResponseBody, UpstreamStream};
use crate::drain::DrainState;
use crate::router::UpgradeRequest;
use crate::tcp::copy::{End, copy_both};

/// The protocol that an HTTP/1.1 client wants to change to. `h2c` is ignored, as Envoy does.
pub(crate) fn requested(request: &Request<Incoming>) -> Option<HeaderValue> {
    let protocol = request.headers().get(header::UPGRADE)?;
    let named = request.headers().get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    });
    let h2c = protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    (named && !h2c).then(|| protocol.clone())
}

/// Passes on the upstream's 101 and then everything that either end says.
pub(crate) fn tunnel(
    mut exchange: Box<Exchange>,
    mut parts: http::response::Parts,
    incoming: Incoming,
    stream: UpstreamStream,
    client: Option<UpgradeRequest>,
    protocol: Option<HeaderValue>,
) -> Response<ResponseBody> {
    let mut upstream = Response::from_parts(http::Response::new(()).into_parts().0, incoming);
    *upstream.extensions_mut() = std::mem::take(&mut parts.extensions);
    let upstream = hyper::upgrade::on(&mut upstream);
    if let Some(UpgradeRequest { client, .. }) = client {
        tokio::spawn(async move {
            // The connection stays counted until the tunnel ends.
            let _stream = stream;
            let (client, upstream) = match tokio::try_join!(client, upstream) {
                Ok(both) => both,
                Err(error) => {
                    tracing::debug!(%error, "upgrade failed");
                    return;
                }
            };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            let connection = exchange.info.connection.clone();
            let copied = tokio::select! {
                copied = copy_both(&mut client, &mut upstream, None, End::Upstream) => copied,
                () = connection.registration.reached(DrainState::Forced) => Default::default(),
            };
            exchange.info.bytes_received = copied.from_client;
            exchange.info.bytes_sent = copied.from_upstream;
            exchange.complete = true;
        });
    } else {
        exchange.complete = true;
        exchange.info.details = Cow::Borrowed("upgrade_failed");
    }
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    parts.version = http::Version::HTTP_11;
    let body = ResponseBody::Local { data: None::<Bytes>, exchange: None };
    Response::from_parts(parts, body)
}
