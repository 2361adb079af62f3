//! Receivers of spans: OTLP over gRPC and over HTTP, and Zipkin.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, OriginalUri, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full};
use prost::Message;
use serde_json::json;

use super::otlp::{ExportRequest, ExportResponse, PartialSuccess, Status};
use super::store::Store;
use super::zipkin::ZipkinSpan;
use crate::client::{FetchError, gunzip};

/// Longest message taken, also after decompression.
const MAX_BYTES: usize = 8 << 20;

/// Codes of gRPC.
#[derive(Debug, Clone, Copy)]
enum Code {
    Ok = 0,
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unimplemented = 12,
}

struct Failure(Code, String);

/// Port 4317, and any other that is asked in gRPC.
pub(super) fn grpc(store: Arc<Store>) -> Router {
    Router::new()
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(export_grpc))
        .fallback(async |OriginalUri(uri): OriginalUri| {
            let path = uri.path();
            grpc_response(
                &[],
                &Failure(Code::Unimplemented, format!("{path} is not supported: spans are taken as OTLP or as Zipkin's JSON")),
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BYTES + 5))
        .with_state(store)
}

/// Port 4318.
pub(super) fn http(store: Arc<Store>) -> Router {
    Router::new().route("/v1/traces", post(export_http)).layer(DefaultBodyLimit::max(MAX_BYTES)).with_state(store)
}

/// Port 9411.
pub(super) fn zipkin(store: Arc<Store>) -> Router {
    Router::new().route("/api/v2/spans", post(spans)).layer(DefaultBodyLimit::max(MAX_BYTES)).with_state(store)
}

async fn export_grpc(
    State(store): State<Arc<Store>>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let taken = body.map_err(|error| Failure(Code::ResourceExhausted, error.body_text())).and_then(|body| {
        let message = grpc_message(&headers, &body)?;
        let request = ExportRequest::decode(message)
            .map_err(|error| Failure(Code::InvalidArgument, format!("malformed ExportTraceServiceRequest: {error}")))?;
        Ok(take(&store, request))
    });
    match taken {
        Ok(answer) => {
            let message = answer.encode_to_vec();
            let mut frame = BytesMut::with_capacity(message.len() + 5);
            frame.put_u8(0);
            frame.put_u32(message.len() as u32);
            frame.put_slice(&message);
            grpc_response(&frame, &Failure(Code::Ok, String::new()))
        }
        Err(failure) => grpc_response(&[], &failure),
    }
}

/// The one message of a unary call.
fn grpc_message(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Failure> {
    let malformed = || Failure(Code::InvalidArgument, "the body is not one gRPC message".to_owned());
    let (head, rest) = body.split_first_chunk::<5>().ok_or_else(malformed)?;
    let [compressed, length @ ..] = *head;
    if rest.len() != u32::from_be_bytes(length) as usize {
        return Err(malformed());
    }
    match (compressed, headers.get("grpc-encoding").map(HeaderValue::as_bytes)) {
        (0, _) => Ok(body.slice(5..)),
        (1, Some(b"gzip")) => gunzip(rest, MAX_BYTES).map_err(|error| match error {
            FetchError::TooLarge => Failure(Code::ResourceExhausted, format!("the message is longer than {MAX_BYTES} bytes")),
            other => Failure(Code::InvalidArgument, other.to_string()),
        }),
        _ => Err(Failure(Code::Unimplemented, "the only compression that is supported is gzip".to_owned())),
    }
}

/// The message of a gRPC body, for the fuzz targets.
pub(super) fn message(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    grpc_message(headers, body).ok()
}

fn grpc_response(frame: &[u8], status: &Failure) -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status.0 as u16));
    if !status.1.is_empty() {
        let message: String = percent_encoding(&status.1);
        trailers.insert("grpc-message", HeaderValue::from_str(&message).unwrap_or(HeaderValue::from_static("error")));
    }
    let body = Full::new(Bytes::copy_from_slice(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (header::HeaderName::from_static("grpc-accept-encoding"), HeaderValue::from_static("gzip")),
    ];
    (headers, Body::new(body)).into_response()
}

/// As gRPC wants it of `grpc-message`: printable ASCII but for `%`.
fn percent_encoding(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

fn take(store: &Store, request: ExportRequest) -> ExportResponse {
    let (spans, invalid) = request.into_spans();
    store.add(spans);
    if invalid == 0 {
        return ExportResponse::default();
    }
    store.refuse(invalid);
    let error_message = "spans without a valid trace_id or span_id were left out".to_owned();
    ExportResponse { partial_success: Some(PartialSuccess { rejected_spans: invalid as i64, error_message }) }
}

async fn export_http(State(store): State<Arc<Store>>, headers: HeaderMap, body: Bytes) -> Response {
    let is = |kind: &str| headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(kind.as_bytes()));
    let json = is("application/json");
    if !json && !is("application/x-protobuf") {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/x-protobuf or application/json is expected\n").into_response();
    }
    let request = plain(&headers, body).map_err(|error| error.to_string()).and_then(|body| {
        if json {
            serde_json::from_slice::<ExportRequest>(&body).map_err(|error| error.to_string())
        } else {
            ExportRequest::decode(body).map_err(|error| error.to_string())
        }
    });
    let protobuf =
        |status, message: Vec<u8>| (status, [(header::CONTENT_TYPE, "application/x-protobuf")], message).into_response();
    match request {
        Ok(request) => {
            let answer = take(&store, request);
            if !json {
                return protobuf(StatusCode::OK, answer.encode_to_vec());
            }
            let partial = answer.partial_success.map(
                |partial| json!({"rejectedSpans": partial.rejected_spans.to_string(), "errorMessage": partial.error_message}),
            );
            axum::Json(json!({"partialSuccess": partial.unwrap_or_else(|| json!({}))})).into_response()
        }
        Err(message) => {
            let code = Code::InvalidArgument as i32;
            if json {
                (StatusCode::BAD_REQUEST, axum::Json(json!({"code": code, "message": message}))).into_response()
            } else {
                protobuf(StatusCode::BAD_REQUEST, Status { code, message }.encode_to_vec())
            }
        }
    }
}

async fn spans(State(store): State<Arc<Store>>, headers: HeaderMap, body: Bytes) -> Response {
    let spans = plain(&headers, body).map_err(|error| error.to_string());
    let spans = spans.and_then(|body| serde_json::from_slice::<Vec<ZipkinSpan>>(&body).map_err(|error| error.to_string()));
    match spans {
        Ok(spans) => {
            let count = spans.len();
            let spans: Vec<_> = spans.into_iter().filter_map(ZipkinSpan::into_span).collect();
            store.refuse((count - spans.len()) as u64);
            store.add(spans);
            StatusCode::ACCEPTED.into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("Unable to process request body: {error}\n")).into_response(),
    }
}

fn plain(headers: &HeaderMap, body: Bytes) -> Result<Bytes, FetchError> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        Some(b"gzip") => gunzip(&body, MAX_BYTES),
        _ => Ok(body),
    }
}
