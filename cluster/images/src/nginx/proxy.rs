//! `proxy_pass`.

use bytes::Bytes;
use hyper::header::{self, HeaderName};
use hyper::{Response, StatusCode};
use meshlab_net::Net;

use super::config::{Location, Settings, Upstream, header_value};
use super::location::matched_prefix;
use super::variables::Request;
use crate::http::client::{self, ClientError};
use crate::http::{Body, full};

/// Headers of one connection, which are not passed on: RFC 9110, 7.6.1.
const HOP_BY_HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The path that is asked of the upstream: the matched prefix is replaced where `proxy_pass` has a path.
fn upstream_path(upstream: &Upstream, location: Option<&Location>, request: &Request) -> String {
    let question = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let encode = |path: &str| percent_encoding::utf8_percent_encode(path, PATH).to_string();
    match &upstream.path {
        None if request.rewritten() => format!("{}{question}", encode(&request.path)),
        None => request.request_uri.clone(),
        Some(path) if path.contains('$') => request.expand(path),
        Some(path) => {
            let rest = request.path.strip_prefix(location.map_or("", matched_prefix)).unwrap_or_default();
            format!("{path}{}{question}", encode(rest))
        }
    }
}

/// What must be encoded in a path.
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?');

/// Passes a request on. The error is a status and a line for the error log.
pub(super) async fn pass<N: Net>(
    net: &N,
    upstream: &Upstream,
    settings: &Settings,
    location: Option<&Location>,
    request: &mut Request,
    body: Bytes,
) -> Result<Response<Body>, (StatusCode, String)> {
    let authority = request.expand(&upstream.authority);
    request.proxy_host.clone_from(&authority);
    let url = format!("http://{authority}{}", upstream_path(upstream, location, request));
    let bad = |err: &dyn std::fmt::Display| (StatusCode::BAD_GATEWAY, format!("invalid upstream URL \"{url}\": {err}"));
    let built = hyper::Request::builder().method(request.method.clone()).uri(&url).body(full(body)).map_err(|err| bad(&err))?;
    let mut passed = built;
    let headers = passed.headers_mut();
    *headers = request.headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove(header::HOST);
    if let Some(host) = header_value(&authority) {
        headers.insert(header::HOST, host);
    }
    for (name, value) in &settings.proxy_headers {
        let Ok(name) = name.parse::<HeaderName>() else { continue };
        let value = request.expand(value);
        headers.remove(&name);
        // An empty value takes the header away. The connection's own headers are not the configuration's to set here.
        if let Some(value) = header_value(&value).filter(|value| !value.is_empty() && !HOP_BY_HOP.contains(&name)) {
            headers.insert(name, value);
        }
    }
    let answered = tokio::time::timeout(settings.proxy_timeout, client::send(net, passed)).await;
    let failed = |status, why: String| Err((status, format!("{why} while connecting to upstream, upstream: \"{url}\"")));
    match answered {
        Ok(Ok(answer)) => {
            let mut response = answer.into_response();
            for name in HOP_BY_HOP {
                response.headers_mut().remove(name);
            }
            response.headers_mut().remove("keep-alive");
            *response.version_mut() = hyper::Version::HTTP_11;
            Ok(response)
        }
        Ok(Err(ClientError::Resolve(host, _))) => {
            failed(StatusCode::BAD_GATEWAY, format!("{host} could not be resolved (3: Host not found)"))
        }
        Ok(Err(ClientError::Connect(_, _))) => {
            failed(StatusCode::BAD_GATEWAY, "connect() failed (111: Connection refused)".to_owned())
        }
        Ok(Err(err)) => failed(StatusCode::BAD_GATEWAY, format!("upstream prematurely closed connection ({err})")),
        Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, "upstream timed out (110: Connection timed out)".to_owned()),
    }
}
