//! `$host`, `$uri`, `$http_…` and their like.

use std::collections::{BTreeMap, BTreeSet};

use hyper::{HeaderMap, Method, Version, header};
use regex::Regex;

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
    /// What the last regular expression caught.
    pub(super) captures: Captures,
    /// The host and port of `proxy_pass`, for `$proxy_host`.
    pub(super) proxy_host: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        values.collect::<Vec<_>>().join(", ")
    }

    /// A variable's value.
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
                    return self.captures.groups.get(group).cloned().unwrap_or_default();
                }
                if let Some(header) = name.strip_prefix("http_") {
                    return self.header(&header.replace('_', "-"));
                }
                if let Some(argument) = name.strip_prefix("arg_") {
                    let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
                    return pairs.find(|(key, _)| key == argument).map(|(_, value)| value.into_owned()).unwrap_or_default();
                }
                if let Some(cookie) = name.strip_prefix("cookie_") {
                    let cookies = self.header("cookie");
                    let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
                    return pairs.find(|(key, _)| *key == cookie).map(|(_, value)| value.to_owned()).unwrap_or_default();
                }
                self.captures.named.get(name).cloned().unwrap_or_default()
            }
        }
    }

    /// Puts values in the place of `$name` and `${name}`.
    pub(super) fn expand(&self, text: &str) -> String {
        let mut expanded = String::new();
        for part in parts(text) {
            match part {
                Part::Text(text) => expanded.push_str(text),
                Part::Variable(name) => expanded.push_str(&self.variable(name)),
            }
        }
        expanded
    }

    /// Remembers what a regular expression caught in a text; false where it does not match.
    pub(super) fn capture(&mut self, regex: &Regex, text: &str) -> bool {
        let Some(captures) = regex.captures(text) else { return false };
        self.captures.groups = captures.iter().map(|group| group.map_or("", |group| group.as_str()).to_owned()).collect();
        let named = regex.capture_names().flatten().filter_map(|name| Some((name, captures.name(name)?.as_str())));
        self.captures.named.extend(named.map(|(name, value)| (name.to_owned(), value.to_owned())));
        true
    }
}

/// What regular expressions caught: the groups of the last one, and all that have names.
#[derive(Debug, Default)]
pub(super) struct Captures {
    groups: Vec<String>,
    named: BTreeMap<String, String>,
}

/// A piece of an argument.
enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('$') {
        parts.push(Part::Text(&rest[..at]));
        rest = &rest[at + 1..];
        let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, after)) => (name, after),
            None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
        };
        parts.push(if name.is_empty() { Part::Text("$") } else { Part::Variable(name) });
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

/// Variables of every request.
const KNOWN: &[&str] = &[
    "host",
    "http_host",
    "hostname",
    "uri",
    "document_uri",
    "request_uri",
    "args",
    "query_string",
    "is_args",
    "request_method",
    "request",
    "server_protocol",
    "scheme",
    "remote_addr",
    "remote_port",
    "remote_user",
    "server_addr",
    "server_port",
    "server_name",
    "nginx_version",
    "proxy_host",
    "time_iso8601",
    "msec",
    "content_type",
    "content_length",
    "proxy_add_x_forwarded_for",
];

/// The first variable in a text that no request has. `captures` are those that regular expressions set.
pub(super) fn unknown(text: &str, captures: &BTreeSet<String>) -> Option<String> {
    let is_known = |name: &str| {
        KNOWN.contains(&name)
            || captures.contains(name)
            || name.bytes().all(|byte| byte.is_ascii_digit())
            || ["http_", "arg_", "cookie_"].iter().any(|prefix| name.starts_with(prefix))
    };
    parts(text).into_iter().find_map(|part| match part {
        Part::Variable(name) if !is_known(name) => Some(name.to_owned()),
        _ => None,
    })
}
