//! The paths.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use rand::{Rng, RngCore};
use serde_json::{Map, Value, json};

use super::request;
use crate::http::server::Ends;
use crate::http::{Body, empty, full, respond};

/// How much of a request's body is read.
const MAX_BODY: usize = 4 << 20;

/// The most that `/bytes/n` and `/drip` send, as httpbin limits them.
const MAX_BYTES: u64 = 100 << 10;

/// The most that `/stream/n` sends, as httpbin limits it.
const MAX_LINES: u64 = 100;

/// The longest that `/delay/n` waits, as httpbin limits it.
const MAX_DELAY: f64 = 10.0;

/// A request that was read whole.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    ends: Ends,
}

impl Asked {
    fn query(&self, name: &str) -> Option<String> {
        let query = self.uri.query().unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        self.query(name).and_then(|value| value.parse().ok()).filter(|value: &f64| value.is_finite()).unwrap_or(default)
    }

    /// httpbin's JSON about the request, with the views that `fields` names.
    fn shown(&self, fields: &[&str]) -> Value {
        let body = request::body(&self.headers, &self.body);
        let field = |name: &&str| {
            let value = match *name {
                "args" => request::pairs(self.uri.query().unwrap_or_default().as_bytes()),
                "headers" => request::headers(&self.headers, &self.uri).into(),
                "origin" => request::origin(&self.headers, self.ends).into(),
                "url" => request::url(&self.headers, &self.uri).into(),
                "method" => self.method.as_str().into(),
                name => body.iter().find(|(view, _)| *view == name).map(|(_, value)| value.clone()).unwrap_or_default(),
            };
            ((*name).to_owned(), value)
        };
        fields.iter().map(field).collect::<Map<_, _>>().into()
    }
}

const GET: &[&str] = &["args", "headers", "origin", "url"];
const POST: &[&str] = &["args", "data", "files", "form", "headers", "json", "origin", "url"];
const ANYTHING: &[&str] = &["args", "data", "files", "form", "headers", "json", "method", "origin", "url"];

pub(super) async fn answer(request: Request<Incoming>, ends: Ends) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return respond(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", "the body could not be read, or is over 4 MiB\n");
    };
    let asked = Asked { method: parts.method, uri: parts.uri, headers: parts.headers, body: body.to_bytes(), ends };
    let path = asked.uri.path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    // HEAD is GET without a body, which hyper leaves out.
    let allowed = match segments[0] {
        "post" => Some(Method::POST),
        "put" => Some(Method::PUT),
        "patch" => Some(Method::PATCH),
        "delete" => Some(Method::DELETE),
        "get" | "headers" | "ip" | "user-agent" | "uuid" => Some(Method::GET),
        _ => None,
    };
    if let Some(method) = allowed
        && asked.method != method
        && !(method == Method::GET && matches!(asked.method, Method::HEAD | Method::OPTIONS))
    {
        return respond(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/html",
            "<title>405 Method Not Allowed</title>\n<h1>Method Not Allowed</h1>\n",
        );
    }
    match segments[..] {
        [""] => respond(StatusCode::OK, "text/html; charset=utf-8", INDEX),
        ["get"] => show(&asked.shown(GET)),
        ["post" | "put" | "patch" | "delete"] => show(&asked.shown(POST)),
        ["anything", ..] => show(&asked.shown(ANYTHING)),
        ["headers"] => show(&asked.shown(&["headers"])),
        ["ip"] => show(&asked.shown(&["origin"])),
        ["user-agent"] => show(&json!({ "user-agent": text_header(&asked, header::USER_AGENT) })),
        ["uuid"] => show(&json!({ "uuid": uuid() })),
        ["status", codes] => status(codes),
        ["delay", seconds] => delay(&asked, seconds).await,
        ["bytes", count] => bytes(count),
        ["stream", count] => lines(&asked, count),
        ["drip"] => drip(&asked),
        ["redirect" | "relative-redirect", count] => redirect(count, ""),
        ["absolute-redirect", count] => redirect(count, request::url(&asked.headers, &asked.uri).trim_end_matches(path.as_str())),
        ["redirect-to"] => redirect_to(&asked),
        ["cookies"] => show(&json!({ "cookies": request::cookies(&asked.headers) })),
        ["cookies", "set"] => {
            let pairs = url::form_urlencoded::parse(asked.uri.query().unwrap_or_default().as_bytes());
            set_cookies(pairs.map(|(name, value)| format!("{name}={value}; Path=/")))
        }
        ["cookies", "set", name, value] => set_cookies(std::iter::once(format!("{name}={value}; Path=/"))),
        ["cookies", "delete"] => {
            let pairs = url::form_urlencoded::parse(asked.uri.query().unwrap_or_default().as_bytes());
            set_cookies(pairs.map(|(name, _)| format!("{name}=; Max-Age=0; Path=/")))
        }
        ["response-headers"] => response_headers(&asked),
        ["basic-auth", user, password] => basic_auth(&asked, user, password),
        ["bearer"] => bearer(&asked),
        ["base64", text] => match URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)) {
            Ok(decoded) => respond(StatusCode::OK, "text/html; charset=utf-8", decoded),
            Err(_) => respond(StatusCode::OK, "text/html; charset=utf-8", "Incorrect Base64 data try: SFRUUEJJTiBpcyBhd2Vzb21l"),
        },
        ["json"] => show(
            &json!({ "slideshow": { "title": "A mesh lesson", "slides": [{ "title": "Traffic" }, { "title": "Security" }] } }),
        ),
        ["html"] => {
            respond(StatusCode::OK, "text/html; charset=utf-8", "<!doctype html>\n<html><body><h1>A page</h1></body></html>\n")
        }
        ["robots.txt"] => respond(StatusCode::OK, "text/plain", "User-agent: *\nDisallow: /deny\n"),
        ["gzip"] => gzip(&asked),
        ["cache"] => cache(&asked),
        ["cache", seconds] => match seconds.parse::<u64>() {
            Ok(seconds) => with_header(show(&asked.shown(GET)), header::CACHE_CONTROL, &format!("public, max-age={seconds}")),
            Err(_) => not_found(),
        },
        _ => not_found(),
    }
}

const INDEX: &str = "<!doctype html>\n<html><head><title>httpbin</title></head><body><h1>httpbin</h1>\n<p>Try <a href=\"/get\">/get</a>, \
    <a href=\"/headers\">/headers</a>, <a href=\"/ip\">/ip</a>, /status/{code}, /delay/{seconds}, /anything.</p></body></html>\n";

fn show(value: &Value) -> Response<Body> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    respond(StatusCode::OK, "application/json", format!("{text}\n"))
}

fn not_found() -> Response<Body> {
    respond(StatusCode::NOT_FOUND, "text/html", "<title>404 Not Found</title>\n<h1>Not Found</h1>\n")
}

fn bad_request(message: &str) -> Response<Body> {
    respond(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", format!("{message}\n"))
}

fn text_header(asked: &Asked, name: HeaderName) -> Option<String> {
    asked.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn with_header(mut response: Response<Body>, name: HeaderName, value: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(name, value);
    }
    response
}

fn uuid() -> String {
    let mut bytes = [0_u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    // Version 4, variant 1: RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `200`, or one of several at random: `200,503` or `200:3,503:1` with weights.
fn status(codes: &str) -> Response<Body> {
    let parse = |item: &str| {
        let (code, weight) = item.split_once(':').unwrap_or((item, "1"));
        let code = code.trim().parse::<u16>().ok().filter(|code| (100..600).contains(code))?;
        Some((code, weight.trim().parse::<f64>().ok().filter(|weight| *weight >= 0.0 && weight.is_finite())?))
    };
    let Some(choices) = codes.split(',').map(parse).collect::<Option<Vec<_>>>() else {
        return bad_request("Invalid status code");
    };
    let total: f64 = choices.iter().map(|(_, weight)| weight).sum();
    let mut at = rand::rng().random::<f64>() * total;
    let drawn = choices.iter().find(|(_, weight)| {
        at -= weight;
        at < 0.0
    });
    let code = drawn.or(choices.last()).map_or(200, |(code, _)| *code);
    // An interim status cannot be a final answer.
    let Some(code) = StatusCode::from_u16(code).ok().filter(|code| !code.is_informational()) else {
        return bad_request("Invalid status code");
    };
    let mut response = match code.as_u16() {
        418 => respond(code, "text/plain; charset=utf-8", "I'm a teapot!\n"),
        _ => Response::new(empty()),
    };
    *response.status_mut() = code;
    match code.as_u16() {
        301 | 302 | 303 | 305 | 307 => with_header(response, header::LOCATION, "/redirect/1"),
        401 => with_header(response, header::WWW_AUTHENTICATE, "Basic realm=\"Fake Realm\""),
        _ => response,
    }
}

async fn delay(asked: &Asked, seconds: &str) -> Response<Body> {
    let Some(seconds) = seconds.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0) else { return not_found() };
    tokio::time::sleep(Duration::from_secs_f64(seconds.min(MAX_DELAY))).await;
    show(&asked.shown(&["args", "data", "files", "form", "headers", "origin", "url"]))
}

fn bytes(count: &str) -> Response<Body> {
    let Ok(count) = count.parse::<u64>() else { return not_found() };
    let mut content = vec![0; usize::try_from(count.min(MAX_BYTES)).unwrap_or(0)];
    rand::rng().fill_bytes(&mut content);
    respond(StatusCode::OK, "application/octet-stream", content)
}

fn lines(asked: &Asked, count: &str) -> Response<Body> {
    let Ok(count) = count.parse::<u64>() else { return not_found() };
    let shown = asked.shown(GET);
    let line = move |id| {
        let mut line = shown.clone();
        line["id"] = json!(id);
        Ok(Frame::data(Bytes::from(format!("{line}\n"))))
    };
    let mut response = Response::new(StreamBody::new(stream::iter((0..count.min(MAX_LINES)).map(line))).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `numbytes` stars over `duration` seconds, after `delay` seconds.
fn drip(asked: &Asked) -> Response<Body> {
    let count = asked.number("numbytes", 10.0).clamp(1.0, MAX_BYTES as f64) as u64;
    let delay = Duration::from_secs_f64(asked.number("delay", 0.0).clamp(0.0, MAX_DELAY));
    let pause = Duration::from_secs_f64(asked.number("duration", 2.0).clamp(0.0, 60.0) / count as f64);
    let frames = stream::unfold(0, move |sent| async move {
        if sent == count {
            return None;
        }
        tokio::time::sleep(if sent == 0 { delay } else { pause }).await;
        Some((Ok(Frame::data(Bytes::from_static(b"*"))), sent + 1))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(asked.number("code", 200.0) as u16).ok().filter(|code| !code.is_informational()).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_LENGTH, count.into());
    response
}

fn found(to: &str, status: StatusCode) -> Response<Body> {
    let mut response = respond(status, "text/html; charset=utf-8", "<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n");
    *response.status_mut() = status;
    match HeaderValue::from_str(to) {
        Ok(to) => {
            response.headers_mut().insert(header::LOCATION, to);
            response
        }
        Err(_) => bad_request("this URL cannot stand in a header"),
    }
}

fn redirect(count: &str, base: &str) -> Response<Body> {
    let kind = if base.is_empty() { "relative-redirect" } else { "absolute-redirect" };
    match count.parse::<u64>() {
        Ok(0) | Err(_) => not_found(),
        Ok(1) => found(&format!("{base}/get"), StatusCode::FOUND),
        Ok(count) => found(&format!("{base}/{kind}/{}", count - 1), StatusCode::FOUND),
    }
}

fn redirect_to(asked: &Asked) -> Response<Body> {
    let Some(url) = asked.query("url") else { return bad_request("url is missing") };
    let status = asked.query("status_code").and_then(|code| code.parse::<u16>().ok()).filter(|code| (300..400).contains(code));
    found(&url, status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::FOUND))
}

fn set_cookies(cookies: impl Iterator<Item = String>) -> Response<Body> {
    cookies.fold(found("/cookies", StatusCode::FOUND), |response, cookie| with_header(response, header::SET_COOKIE, &cookie))
}

fn response_headers(asked: &Asked) -> Response<Body> {
    let query = asked.uri.query().unwrap_or_default().as_bytes();
    let mut response = show(&request::pairs(query));
    for (name, value) in url::form_urlencoded::parse(query) {
        // The length is that of the body; anything else would break the connection.
        let Ok(name) = name.parse::<HeaderName>() else { return bad_request("this name cannot be a header's") };
        if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
            continue;
        }
        if name == header::CONTENT_TYPE {
            response.headers_mut().remove(&name);
        }
        response = with_header(response, name, &value);
    }
    response
}

fn basic_auth(asked: &Asked, user: &str, password: &str) -> Response<Body> {
    let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    if text_header(asked, header::AUTHORIZATION).as_deref() == Some(expected.as_str()) {
        return show(&json!({ "authenticated": true, "user": user }));
    }
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    with_header(response, header::WWW_AUTHENTICATE, "Basic realm=\"Fake Realm\"")
}

fn bearer(asked: &Asked) -> Response<Body> {
    let authorization = text_header(asked, header::AUTHORIZATION).unwrap_or_default();
    if let Some(token) = authorization.strip_prefix("Bearer ") {
        return show(&json!({ "authenticated": true, "token": token }));
    }
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    with_header(response, header::WWW_AUTHENTICATE, "Bearer")
}

fn gzip(asked: &Asked) -> Response<Body> {
    let mut shown = asked.shown(&["headers", "method", "origin"]);
    shown["gzipped"] = json!(true);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(format!("{shown:#}\n").as_bytes()).and_then(|()| encoder.finish());
    let mut response = Response::new(full(packed.unwrap_or_default()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    with_header(response, header::CONTENT_ENCODING, "gzip")
}

fn cache(asked: &Asked) -> Response<Body> {
    if asked.headers.contains_key(header::IF_MODIFIED_SINCE) || asked.headers.contains_key(header::IF_NONE_MATCH) {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    with_header(show(&asked.shown(GET)), header::ETAG, "\"meshlab\"")
}
