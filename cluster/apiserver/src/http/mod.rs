//! HTTP as this server speaks it: listeners, bodies, negotiation, answers.

mod accept;
mod answer;
mod listener;
pub(crate) mod pretty;
mod stall;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use meshlab_objects::{Reason, Status};

pub(crate) use accept::{Accept, DiscoveryVersion, Encoding, Representation};
pub(crate) use answer::{bytes_answer, error_answer, json_answer, json_answer_of, status_ok, text_answer, warn, yaml_or_json};
pub use listener::TlsError;
pub(crate) use listener::{Connections, is_transient, serve_stream, tls_acceptor};

/// Whatever a body can fail with.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request's or answer's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
/// An answer.
pub(crate) type Response = http::Response<Body>;
/// A request.
pub(crate) type Request = http::Request<Body>;

/// Kubernetes' own limit on request bodies.
pub(crate) const MAX_BODY: usize = 3 << 20;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A body of known content.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a request's body.
///
/// # Errors
/// 413 over 3 MiB, 400 where the client went away, 408-like 504 where it took too long.
pub(crate) async fn read_body(body: Body) -> Result<Bytes, Status> {
    match tokio::time::timeout(BODY_TIMEOUT, collect(body)).await {
        Ok(read) => read,
        Err(_) => Err(Status::new(Reason::Timeout, "the request body did not arrive within 60s")),
    }
}

/// Reads on for a while without keeping anything: many clients read the answer only when they have sent everything.
async fn discard(mut body: Body) {
    let mut remaining = 16 * MAX_BODY;
    while let Some(Ok(frame)) = body.frame().await {
        remaining = remaining.saturating_sub(frame.data_ref().map_or(1, Bytes::len));
        if remaining == 0 {
            break;
        }
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("cannot read the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > MAX_BODY {
            discard(body).await;
            return Err(Status::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {MAX_BODY}")));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
