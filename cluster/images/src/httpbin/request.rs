//! What a request holds, in httpbin's JSON.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{HeaderMap, Uri, header};
use serde_json::{Map, Value, json};

use crate::http::server::Ends;

/// `x-b3-traceid` is shown as `X-B3-Traceid`, as httpbin does.
fn shown_name(name: &str) -> String {
    let part = |part: &str| part[..1.min(part.len())].to_uppercase() + &part[1.min(part.len())..];
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// The headers, those of one name joined by commas. HTTP/2 has its host in `:authority`.
pub(super) fn headers(headers: &HeaderMap, uri: &Uri) -> Map<String, Value> {
    let mut shown = Map::new();
    if let Some(authority) = uri.authority() {
        shown.insert("Host".to_owned(), authority.as_str().into());
    }
    for name in headers.keys() {
        let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        shown.insert(shown_name(name.as_str()), values.join(",").into());
    }
    shown
}

/// Pairs of a form or a query: a name that comes more than once has a list.
pub(super) fn pairs(text: &[u8]) -> Value {
    let mut grouped: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(text) {
        grouped.entry(name.into_owned()).or_default().push(value.into_owned().into());
    }
    let one_or_many = |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
    grouped.into_iter().map(|(name, values)| (name, one_or_many(values))).collect::<Map<_, _>>().into()
}

/// The address of the client: what a proxy says, else the connection's.
pub(super) fn origin(headers: &HeaderMap, ends: Ends) -> String {
    let forwarded = headers.get("x-forwarded-for").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    forwarded.unwrap_or_else(|| ends.peer.ip().to_string())
}

/// The URL as the client wrote it.
pub(super) fn url(request_headers: &HeaderMap, uri: &Uri) -> String {
    let host = request_headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let host = uri.authority().map(|authority| authority.to_string()).or(host).unwrap_or_default();
    let scheme = request_headers.get("x-forwarded-proto").and_then(|scheme| scheme.to_str().ok()).unwrap_or("http");
    format!("{scheme}://{host}{}", uri.path_and_query().map_or("/", |path| path.as_str()))
}

/// The body in httpbin's four views: text, form, files (none here), JSON.
pub(super) fn body(headers: &HeaderMap, body: &[u8]) -> Vec<(&'static str, Value)> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = content_type.starts_with("application/x-www-form-urlencoded");
    let data = match std::str::from_utf8(body) {
        _ if is_form => String::new(),
        Ok(text) => text.to_owned(),
        Err(_) => format!("data:application/octet-stream;base64,{}", STANDARD.encode(body)),
    };
    let form = if is_form { pairs(body) } else { json!({}) };
    vec![
        ("data", data.into()),
        ("files", json!({})),
        ("form", form),
        ("json", serde_json::from_slice(body).unwrap_or(Value::Null)),
    ]
}

/// The request's cookies.
pub(super) fn cookies(headers: &HeaderMap) -> Map<String, Value> {
    let lines = headers.get_all(header::COOKIE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let all: Vec<String> =
        lines.flat_map(|line| line.split(';').map(|pair| pair.trim().to_owned()).collect::<Vec<_>>()).collect();
    all.iter().filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), value.into())).collect()
}
