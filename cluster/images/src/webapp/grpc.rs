//! gRPC: `meshlab.webapp.v1.Echo/Say` and the standard health check, as a server; `Say` as a client.
//!
//! ```proto
//! package meshlab.webapp.v1;
//! service Echo { rpc Say(SayRequest) returns (SayResponse); }
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::{HeaderMap, Request, Response, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_net::Net;
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};

use super::App;
use super::answer::received;
use super::orders::Orders;
use crate::http::server::Ends;
use crate::http::{Body, client, full};

/// The longest message taken, gRPC's own default.
const MAX_MESSAGE: usize = 4 << 20;

/// A frame's head: a byte that says whether it is compressed, and the length.
const FRAME_HEAD: usize = 5;

const SERVICE: &str = "meshlab.webapp.v1.Echo";
const SAY: &str = "/meshlab.webapp.v1.Echo/Say";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// `grpc-status` codes: <https://grpc.io/docs/guides/status-codes/>.
#[derive(Debug, Clone, Copy)]
enum Code {
    Ok = 0,
    InvalidArgument = 3,
    NotFound = 5,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

#[derive(Clone, PartialEq, Message)]
struct SayRequest {
    #[prost(string, tag = "1")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct SayResponse {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(string, tag = "4")]
    hostname: String,
    #[prost(btree_map = "string, string", tag = "5")]
    headers: BTreeMap<String, String>,
}

/// `grpc.health.v1.HealthCheckRequest`; no service asks for the whole server.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`; 1 is SERVING.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Whether a request is gRPC, which may name its encoding (`application/grpc+proto`).
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value == "application/grpc" || value.starts_with("application/grpc+"))
}

/// Answers a call.
pub(super) async fn answer(app: &App, request: Request<Incoming>, ends: Ends) -> Response<Body> {
    let started = std::time::Instant::now();
    let result = handle(app, request, ends).await;
    app.metrics.answered(200, started.elapsed());
    match result {
        Ok(message) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", (Code::Ok as u16).into());
            let frames = [Ok::<_, io::Error>(Frame::data(message)), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
            response
        }
        Err((code, message)) => {
            // A "trailers-only" response: the status stands among the headers, and there is no body.
            let mut response = Response::new(crate::http::empty());
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", (code as u16).into());
            let message = percent_encoding::utf8_percent_encode(&message, percent_encoding::CONTROLS).to_string();
            if let Ok(message) = message.parse() {
                headers.insert("grpc-message", message);
            }
            response
        }
    }
}

async fn handle(app: &App, request: Request<Incoming>, _ends: Ends) -> Result<Bytes, (Code, String)> {
    let path = request.uri().path().to_owned();
    let headers = received(request.headers(), request.uri().authority().map(|authority| authority.as_str()));
    let orders = Orders::read(None, request.headers()).map_err(|err| (Code::InvalidArgument, err))?;
    let body = Limited::new(request.into_body(), MAX_MESSAGE + FRAME_HEAD).collect().await;
    let body = body.map_err(|err| (Code::InvalidArgument, err.to_string()))?.to_bytes();
    if path == HEALTH_CHECK {
        let asked: HealthCheckRequest = unframe(&body).map_err(|err| (Code::InvalidArgument, err))?;
        return match asked.service.as_str() {
            "" | SERVICE => Ok(frame(&HealthCheckResponse { status: 1 })),
            _ => Err((Code::NotFound, "unknown service".to_owned())),
        };
    }
    if path != SAY {
        return Err((Code::Unimplemented, format!("unknown method {path}; there are {SAY} and {HEALTH_CHECK}")));
    }
    let said: SayRequest = unframe(&body).map_err(|err| (Code::InvalidArgument, err))?;
    let delay = app.config.delay + orders.delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let unlucky = app.config.fail_rate > 0.0 && rand::Rng::random_bool(&mut rand::rng(), app.config.fail_rate);
    match orders.status.or(unlucky.then_some(app.config.fail_status)) {
        Some(status @ (502..=504)) => return Err((Code::Unavailable, format!("told to fail with {status}"))),
        Some(status @ (400..)) => return Err((Code::Internal, format!("told to fail with {status}"))),
        _ => {}
    }
    Ok(frame(&SayResponse {
        message: said.message,
        service: app.config.service.clone(),
        version: app.config.version.clone(),
        hostname: app.config.hostname.clone(),
        headers,
    }))
}

fn frame(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(FRAME_HEAD + message.encoded_len());
    bytes.put_u8(0);
    // Our own messages are far below 4 GiB.
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

fn unframe<M: Message + Default>(bytes: &[u8]) -> Result<M, String> {
    let (head, message) = bytes.split_at_checked(FRAME_HEAD).ok_or("the gRPC frame is cut short")?;
    if head[0] != 0 {
        return Err("compressed gRPC messages are not supported".to_owned());
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let message = message.get(..length).ok_or("the gRPC frame is cut short")?;
    M::decode(message).map_err(|err| format!("not a message of the expected type: {err}"))
}

/// Connections to gRPC upstreams. Like a real gRPC client, one connection per target is kept: without a mesh, all its calls
/// reach the same pod.
pub(super) struct Channels<N> {
    net: N,
    open: Mutex<HashMap<String, SendRequest<Body>>>,
}

impl<N: Net> Channels<N> {
    pub(super) fn new(net: N) -> Self {
        Self { net, open: Mutex::default() }
    }

    /// Calls `Say` at `grpc://host:port`. The status is the HTTP status that stands for the gRPC status.
    pub(super) async fn say(&self, url: &str, headers: HeaderMap) -> Result<(u16, Value), String> {
        let target: Uri = url.replacen("grpc://", "http://", 1).parse().map_err(|_| format!("{url} is not a URL"))?;
        let authority = target.authority().ok_or_else(|| format!("{url} has no host"))?.to_string();
        let mut sender = self.channel(&authority, &target).await?;
        let message = frame(&SayRequest { message: format!("hello {authority}") });
        let mut request = Request::post(format!("http://{authority}{SAY}")).body(full(message)).map_err(|err| err.to_string())?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(header::TE, header::HeaderValue::from_static("trailers"));
        let response = sender.send_request(request).await.map_err(|err| err.to_string())?;
        let (parts, body) = response.into_parts();
        let collected = Limited::new(body, MAX_MESSAGE).collect().await.map_err(|err| err.to_string())?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let field =
            |name| trailers.get(name).or(parts.headers.get(name)).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = field("grpc-status");
        if status.as_deref() != Some("0") {
            let code = if parts.status.is_success() { 500 } else { parts.status.as_u16() };
            return Ok((code, json!({ "grpc-status": status, "grpc-message": field("grpc-message") })));
        }
        let said: SayResponse = unframe(&collected.to_bytes())?;
        Ok((
            200,
            json!({
                "grpc-status": "0",
                "message": said.message,
                "service": said.service,
                "version": said.version,
                "hostname": said.hostname,
                "headers": said.headers,
            }),
        ))
    }

    async fn channel(&self, authority: &str, target: &Uri) -> Result<SendRequest<Body>, String> {
        let open = self.open.lock().get(authority).cloned();
        if let Some(sender) = open.filter(|sender| !sender.is_closed()) {
            return Ok(sender);
        }
        let address = client::address(&self.net, target).await.map_err(|err| err.to_string())?;
        let stream = self.net.connect(address).await.map_err(|err| format!("cannot connect to {address}: {err}"))?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|err| err.to_string())?;
        // Ends by itself when the last sender is dropped, which is when the app ends.
        tokio::spawn(async move { drop(connection.await) });
        self.open.lock().insert(authority.to_owned(), sender.clone());
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_the_message() {
        let message = SayRequest { message: "hello".to_owned() };
        assert_eq!(unframe::<SayRequest>(&frame(&message)).unwrap(), message);
        assert_eq!(frame(&HealthCheckResponse { status: 1 }), Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
    }

    #[test]
    fn what_is_not_a_frame_is_refused() {
        let error = |bytes: &[u8]| unframe::<SayRequest>(bytes).unwrap_err();
        assert_eq!(error(&[0, 0]), "the gRPC frame is cut short");
        assert_eq!(error(&[0, 0, 0, 0, 9, 1]), "the gRPC frame is cut short");
        assert_eq!(error(&[1, 0, 0, 0, 0]), "compressed gRPC messages are not supported");
        assert!(error(&[0, 0, 0, 0, 1, 255]).starts_with("not a message"));
    }
}
