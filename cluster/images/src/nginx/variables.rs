//! `$host`, `$uri`, `$http_…` and their like.

use hyper::{HeaderMap, Method, Version, header};

use crate::http::server::Ends;
use crate::http::version_name;

/// What variables are taken from.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// Path and query as the client sent them.
    pub(super) request_uri: String,
    /// The path, decoded and perhaps rewritten.
    pub(super) path: String,
    pub(super) query: String,
    /// The host without its port, in lower case.
    pub(super) host: String,
    pub(super) server_name: String,
    pub(super) hostname: String,
    pub(super) port: u16,
    pub(super) ends: Ends,
    /// What the location's regular expression caught.
    pub(super) captures: Vec<String>,
    /// The host and port of `proxy_pass`, for `$proxy_host`.
    pub(super) proxy_host: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        values.collect::<Vec<_>>().join(", ")
    }

    /// A variable's value; one that is not known is empty.
    fn variable(&self, name: &str) -> String {
        match name {
            "host" => self.host.clone(),
            "http_host" => self.header("host"),
            "hostname" => self.hostname.clone(),
            "uri" | "document_uri" => self.path.clone(),
            "request_uri" => self.request_uri.clone(),
            "args" | "query_string" => self.query.clone(),
            "is_args" => if self.query.is_empty() { "" } else { "?" }.to_owned(),
            "request_method" => self.method.to_string(),
            "request" => format!("{} {} {}", self.method, self.request_uri, version_name(self.version)),
            "server_protocol" => version_name(self.version).to_owned(),
            "scheme" => "http".to_owned(),
            "remote_addr" => self.ends.peer.ip().to_string(),
            "remote_port" => self.ends.peer.port().to_string(),
            "remote_user" => String::new(),
            "server_addr" => self.ends.local.ip().to_string(),
            "server_port" => self.port.to_string(),
            "server_name" => self.server_name.clone(),
            "nginx_version" => super::VERSION.to_owned(),
            "proxy_host" => self.proxy_host.clone(),
            "time_iso8601" => jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
            "msec" => format!("{:.3}", jiff::Timestamp::now().as_millisecond() as f64 / 1000.0),
            "content_type" => self.header(header::CONTENT_TYPE.as_str()),
            "content_length" => self.header(header::CONTENT_LENGTH.as_str()),
            "proxy_add_x_forwarded_for" => {
                let before = self.header("x-forwarded-for");
                let client = self.ends.peer.ip();
                if before.is_empty() { client.to_string() } else { format!("{before}, {client}") }
            }
            name => {
                if let Ok(group) = name.parse::<usize>() {
                    return self.captures.get(group).cloned().unwrap_or_default();
                }
                if let Some(header) = name.strip_prefix("http_") {
                    return self.header(&header.replace('_', "-"));
                }
                if let Some(argument) = name.strip_prefix("arg_") {
                    let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
                    return pairs.find(|(key, _)| key == argument).map(|(_, value)| value.into_owned()).unwrap_or_default();
                }
                String::new()
            }
        }
    }

    /// Puts values in the place of `$name` and `${name}`.
    pub(super) fn expand(&self, text: &str) -> String {
        let (mut expanded, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, after)) => (name, after),
                None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
            };
            match name.is_empty() {
                true => expanded.push('$'),
                false => expanded.push_str(&self.variable(name)),
            }
            rest = after;
        }
        expanded.push_str(rest);
        expanded
    }
}
