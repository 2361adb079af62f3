//! Answers that the proxy makes itself, in Envoy's words.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};

use super::exchange::{Exchange, ResponseBody};
use crate::flags::Flags;
use crate::telemetry::format::View;
use crate::telemetry::grpc;

/// An answer of the proxy's own.
pub(crate) struct LocalReply {
    pub(crate) status: u16,
    pub(crate) body: Cow<'static, str>,
    pub(crate) details: Cow<'static, str>,
    pub(crate) flags: Flags,
    /// Boxed: replies are carried as errors, and a map is large.
    pub(crate) headers: Box<HeaderMap>,
    /// The gRPC status, where it is not the one that stands for the HTTP status.
    pub(crate) grpc_status: Option<u32>,
    /// The connection is closed after it.
    pub(crate) close: bool,
    /// The route's changes to response headers are left out.
    pub(crate) unchanged: bool,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Set where a circuit breaker answered.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

impl LocalReply {
    pub(crate) fn new(status: u16, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: Cow::Borrowed(""),
            details: details.into(),
            flags: Flags::NONE,
            headers: Box::default(),
            grpc_status: None,
            close: false,
            unchanged: false,
        }
    }

    pub(crate) fn body(self, body: impl Into<Cow<'static, str>>) -> Self {
        Self { body: body.into(), ..self }
    }

    pub(crate) fn flag(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn overloaded(self) -> Self {
        self.header(OVERLOADED, HeaderValue::from_static("true"))
    }

    pub(crate) fn close(self) -> Self {
        Self { close: true, ..self }
    }

    /// The response. A gRPC client gets what it understands: 200 with the status in its headers.
    pub(crate) fn into_response(self, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
        let info = &mut exchange.info;
        info.flag(self.flags);
        info.details = self.details;
        let is_grpc = info.http.as_ref().is_some_and(|http| http.grpc);
        let version = info.http.as_ref().map_or(Version::HTTP_11, |http| http.version);
        let mut headers = *self.headers;
        let (status, body) = if is_grpc {
            let status = self.grpc_status.unwrap_or_else(|| grpc::status_of_http(self.status));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(status));
            if !self.body.is_empty()
                && let Ok(message) = HeaderValue::from_str(&percent_encode(&self.body))
            {
                headers.insert(GRPC_MESSAGE, message);
            }
            (StatusCode::OK, Bytes::new())
        } else {
            let body = match self.body {
                Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                Cow::Owned(text) => Bytes::from(text),
            };
            if !body.is_empty() {
                headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            }
            (StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
        };
        exchange.info.status = status.as_u16();
        if let Some(route) = exchange.info.route.as_ref().filter(|_| !self.unchanged) {
            let view =
                View { info: &exchange.info, telemetry: &exchange.telemetry, request_headers: None, response_headers: None };
            route.change_response(&mut headers, view);
        }
        if (self.close || exchange.body_unread) && version < Version::HTTP_2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        super::handler::finish_headers(&mut exchange, &mut headers);
        exchange.responded(status.as_u16(), &headers);
        let mut response = Response::new(ResponseBody::local(body, exchange));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// As gRPC wants messages: printable ASCII but `%` stays.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
