//! Answering a request: wait, fail, call on, stream, or say who one is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use rand::Rng;
use serde::Serialize;

use super::config::Config;
use super::orders::Orders;
use super::upstream::{self, Called};
use super::{App, page};
use crate::http::server::Ends;
use crate::http::{Body, respond, version_name};

/// How much of a request's body the app reads.
const MAX_BODY: usize = 1 << 20;

/// Between the lines of a stream, where the request does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

/// The size of the pieces of a long body.
const PIECE: usize = 16 << 10;

/// What the app says.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) hostname: String,
    pub(super) pod_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) protocol: &'static str,
    /// The address that the connection came from.
    pub(super) client: String,
    pub(super) headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) upstreams: Vec<Called>,
}

impl Answer {
    fn new<B>(config: &Config, request: &Request<B>, ends: Ends) -> Self {
        let uri = request.uri();
        Self {
            service: config.service.clone(),
            version: config.version.clone(),
            hostname: config.hostname.clone(),
            pod_ip: config.pod_ip.clone(),
            message: config.message.clone(),
            error: None,
            method: request.method().to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            protocol: version_name(request.version()),
            client: ends.peer.ip().to_string(),
            headers: received(request.headers(), uri.authority().map(|authority| authority.as_str())),
            body: None,
            upstreams: Vec::new(),
        }
    }
}

/// Received headers as text; several of one name joined by commas. HTTP/2 has its host in `:authority`.
pub(super) fn received(headers: &HeaderMap, authority: Option<&str>) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    if let Some(authority) = authority {
        shown.insert("host".to_owned(), authority.to_owned());
    }
    for name in headers.keys() {
        let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        shown.insert(name.to_string(), values.join(","));
    }
    shown
}

/// Answers, and counts it.
pub(super) async fn answer(app: &App, request: Request<Incoming>, ends: Ends) -> Response<Body> {
    let started = Instant::now();
    let response = make(app, request, ends).await;
    app.metrics.answered(response.status().as_u16(), started.elapsed());
    response
}

async fn make(app: &App, request: Request<Incoming>, ends: Ends) -> Response<Body> {
    let config = &app.config;
    let mut answer = Answer::new(config, &request, ends);
    let as_page = wants_page(request.headers());
    let orders = match Orders::read(request.uri().query(), request.headers()) {
        Ok(orders) => orders,
        Err(error) => {
            answer.error = Some(error);
            return show(&answer, StatusCode::BAD_REQUEST, as_page, &config.color);
        }
    };
    let delay = config.delay + orders.delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let unlucky = config.fail_rate > 0.0 && rand::rng().random_bool(config.fail_rate);
    let status = orders.status.or(unlucky.then_some(config.fail_status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    // A body in these answers would break the protocol.
    if let Some(status @ (StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)) = status {
        let mut response = Response::new(crate::http::empty());
        *response.status_mut() = status;
        return response;
    }
    if unlucky && orders.status.is_none() {
        answer.error = Some(format!(
            "{} {} fails {}% of its requests (FAIL_RATE)",
            config.service,
            config.version,
            config.fail_rate * 100.0
        ));
        return show(&answer, status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), as_page, &config.color);
    }
    if let Some(bytes) = orders.bytes {
        return many_bytes(status.unwrap_or_default(), bytes);
    }
    if let Some(lines) = orders.stream {
        let line = format!("{} {} {}", config.service, config.version, config.hostname);
        return many_lines(status.unwrap_or_default(), lines, orders.interval.unwrap_or(DEFAULT_INTERVAL), line);
    }
    let headers = request.headers().clone();
    let path = request.uri().path().to_owned();
    answer.body = match Limited::new(request.into_body(), MAX_BODY).collect().await.map(|body| body.to_bytes()) {
        Ok(body) => (!body.is_empty()).then(|| String::from_utf8_lossy(&body).into_owned()),
        Err(_) => {
            answer.error = Some(format!("the body could not be read, or is over {MAX_BODY} bytes"));
            return show(&answer, StatusCode::PAYLOAD_TOO_LARGE, as_page, &config.color);
        }
    };
    let configured = config.upstreams.iter().filter(|to| to.path.as_ref().is_none_or(|only| *only == path));
    let urls = configured.map(|to| to.url.clone()).chain(orders.calls).collect();
    answer.upstreams = upstream::call_all(app, urls, &headers).await;
    let upstream_failed = !config.ignore_upstream_failure && answer.upstreams.iter().any(Called::failed);
    let status = status.unwrap_or(if upstream_failed { StatusCode::BAD_GATEWAY } else { StatusCode::OK });
    show(&answer, status, as_page, &config.color)
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| String::from_utf8_lossy(accept.as_bytes()).contains("text/html"))
}

fn show(answer: &Answer, status: StatusCode, as_page: bool, color: &str) -> Response<Body> {
    if as_page {
        return respond(status, "text/html; charset=utf-8", page::render(answer, color));
    }
    let mut json = serde_json::to_string_pretty(answer).unwrap_or_else(|err| format!("{{\"error\": {:?}}}", err.to_string()));
    json.push('\n');
    respond(status, "application/json", json)
}

fn many_bytes(status: StatusCode, bytes: usize) -> Response<Body> {
    static ZEROES: [u8; PIECE] = [b'0'; PIECE];
    let sizes = (0..bytes.div_ceil(PIECE)).map(move |index| PIECE.min(bytes - index * PIECE));
    let frames = sizes.map(|size| Ok(Frame::data(Bytes::from_static(&ZEROES[..size]))));
    let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    response
}

fn many_lines(status: StatusCode, lines: u32, interval: Duration, line: String) -> Response<Body> {
    let frames = stream::unfold(1, move |number| {
        let line = line.clone();
        async move {
            if number > lines {
                return None;
            }
            if number > 1 {
                tokio::time::sleep(interval).await;
            }
            Some((Ok(Frame::data(Bytes::from(format!("{number} {line}\n")))), number + 1))
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
