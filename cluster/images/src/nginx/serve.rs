//! A request from its arrival to its line in the log.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Request as HyperRequest, Response, StatusCode};
use jiff::Timestamp;
use meshlab_net::PodNet;
use meshlab_program::{FileSystem, FileType};
use tokio::sync::mpsc;

use super::config::{Action, Config, Location, Matcher, RewriteFlag, Server, ServerName, Settings, header_value};
use super::static_files::{self, Found};
use super::variables::{Captures, Request};
use super::{VERSION, location, proxy};
use crate::http::server::{Ends, Handler};
use crate::http::{Body, empty, full, version_name};

/// How often a request may start again with another path (`index`, `try_files`, `rewrite`, `error_page`), as nginx has it.
const MAX_INTERNAL_REDIRECTS: usize = 10;

/// A line of a log.
pub(super) enum LogLine {
    Access(String),
    Error(String),
}

/// What is served on one port.
pub(super) struct Site {
    pub(super) config: Arc<Config>,
    pub(super) port: u16,
    pub(super) fs: FileSystem,
    pub(super) net: PodNet,
    pub(super) hostname: String,
    pub(super) log: mpsc::Sender<LogLine>,
}

/// What a location came to.
enum Step {
    Done(Response<Body>),
    /// Start again with another path.
    Restart(String),
    /// Go to a named location.
    Named(String),
    /// An error, to be shown by `error_page` or nginx' own page.
    Error(StatusCode),
}

impl Handler for Site {
    async fn handle(&self, request: HyperRequest<Incoming>, ends: Ends) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let authority = parts.uri.authority().map(|authority| authority.to_string());
        let host = authority
            .or_else(|| parts.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()));
        let host = host.unwrap_or_default();
        let host = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host.as_str(), |(host, _)| host);
        let host = host.to_ascii_lowercase();
        let Some(server) = self.config.server(self.port, &host) else { return Response::new(empty()) };
        let mut request = Request {
            method: parts.method,
            version: parts.version,
            headers: parts.headers,
            request_uri: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            path: normal_path(parts.uri.path()),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            host,
            server_name: server
                .names
                .iter()
                .find_map(|name| if let ServerName::Exact(name) = name { Some(name.clone()) } else { None })
                .unwrap_or_default(),
            hostname: self.hostname.clone(),
            port: self.port,
            ends,
            captures: Captures::default(),
            proxy_host: String::new(),
        };
        let limit = usize::try_from(server.settings.client_max_body).unwrap_or(usize::MAX);
        let (response, settings) = match Limited::new(body, limit).collect().await {
            Ok(body) => self.answer(server, &mut request, body.to_bytes()).await,
            Err(_) => (error_response(StatusCode::PAYLOAD_TOO_LARGE, &server.settings), &server.settings),
        };
        let response = finish(response, settings, &request);
        if settings.access_log {
            self.log(LogLine::Access(access_line(&request, &response)));
        }
        response
    }
}

impl Site {
    /// A log that nobody reads fast enough loses lines rather than hold requests up.
    fn log(&self, line: LogLine) {
        let _ = self.log.try_send(line);
    }

    fn log_error(&self, request: &Request, message: &str) {
        let time = Timestamp::now().strftime("%Y/%m/%d %H:%M:%S");
        let (client, server) = (request.ends.peer.ip(), &request.server_name);
        let line = format!(
            "{time} [error] 1#1: {message}, client: {client}, server: {server}, request: \"{}\", host: \"{}\"",
            request.expand("$request"),
            request.host
        );
        self.log(LogLine::Error(line));
    }

    async fn answer<'a>(&self, server: &'a Server, request: &mut Request, body: Bytes) -> (Response<Body>, &'a Settings) {
        if let Some(step) = self.server_action(server, request)
            && let Step::Done(response) = step
        {
            return (response, &server.settings);
        }
        let mut at = location::find(server, &request.path);
        let mut error = None;
        for _ in 0..=MAX_INTERNAL_REDIRECTS {
            let found = at;
            if let Some(Matcher::Regex(regex)) = found.map(|location| &location.matcher) {
                let path = request.path.clone();
                request.capture(regex, &path);
            }
            let settings = found.map_or(&server.settings, |location| &location.settings);
            let step = self.step(settings, found, request, body.clone()).await;
            at = match step {
                Step::Done(mut response) => {
                    if let Some(status) = error
                        && response.status() == StatusCode::OK
                    {
                        *response.status_mut() = status;
                    }
                    return (response, settings);
                }
                Step::Restart(path) => {
                    request.set_path(&path);
                    location::find(server, &request.path)
                }
                Step::Named(name) => match location::named(server, &name) {
                    Some(location) => Some(location),
                    None => {
                        self.log_error(request, &format!("could not find named location \"{name}\""));
                        return (error_response(StatusCode::INTERNAL_SERVER_ERROR, settings), settings);
                    }
                },
                Step::Error(status) => {
                    let page = settings
                        .error_pages
                        .iter()
                        .find(|page| page.codes.contains(&status.as_u16()))
                        .filter(|_| error.is_none());
                    let Some(page) = page else { return (error_response(status, settings), settings) };
                    error = Some(page.status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(status));
                    let to = request.expand(&page.to);
                    if to.starts_with("http") {
                        return (redirect(StatusCode::FOUND, &to), settings);
                    }
                    if to.starts_with('@') {
                        location::named(server, &to)
                    } else {
                        request.set_path(&to);
                        location::find(server, &request.path)
                    }
                }
            };
        }
        self.log_error(
            request,
            &format!("rewrite or internal redirection cycle while internally redirecting to \"{}\"", request.path),
        );
        (error_response(StatusCode::INTERNAL_SERVER_ERROR, &server.settings), &server.settings)
    }

    /// `rewrite` and `return` of the server itself come before any location.
    fn server_action(&self, server: &Server, request: &mut Request) -> Option<Step> {
        if let Some(Step::Done(response)) = rewrite(&server.settings, request) {
            return Some(Step::Done(response));
        }
        match &server.settings.action {
            Some(Action::Return { status, text }) => Some(return_response(*status, text.as_deref(), request)),
            _ => None,
        }
    }

    async fn step(&self, settings: &Settings, location: Option<&Location>, request: &mut Request, body: Bytes) -> Step {
        if location.is_some()
            && let Some(step) = rewrite(settings, request)
        {
            return step;
        }
        match &settings.action {
            Some(Action::Return { status, text }) => return return_response(*status, text.as_deref(), request),
            Some(Action::Proxy(upstream)) if settings.try_files.is_none() => {
                return match proxy::pass(&self.net, upstream, settings, location, request, body).await {
                    Ok(response) => Step::Done(response),
                    Err((status, message)) => {
                        self.log_error(request, &message);
                        Step::Error(status)
                    }
                };
            }
            _ => {}
        }
        if let Some(files) = &settings.try_files
            && let Some(step) = self.try_files(files, settings, location, request)
        {
            return step;
        }
        if !matches!(request.method, hyper::Method::GET | hyper::Method::HEAD) {
            return Step::Error(StatusCode::METHOD_NOT_ALLOWED);
        }
        match static_files::serve(&self.fs, settings, location, request) {
            Found::File(response) => Step::Done(response),
            Found::Index(path) => Step::Restart(path),
            Found::Redirect(path) => {
                let host = request.header("host");
                Step::Done(redirect(StatusCode::MOVED_PERMANENTLY, &format!("http://{host}{path}")))
            }
            Found::Forbidden(message) => {
                self.log_error(request, &message);
                Step::Error(StatusCode::FORBIDDEN)
            }
            Found::Missing(message) => {
                self.log_error(request, &message);
                Step::Error(StatusCode::NOT_FOUND)
            }
        }
    }

    /// None where one of the files is there: the request's path is then that file's.
    fn try_files(
        &self,
        files: &[String],
        settings: &Settings,
        location: Option<&Location>,
        request: &mut Request,
    ) -> Option<Step> {
        let (last, candidates) = files.split_last()?;
        for candidate in candidates {
            let path = request.expand(candidate);
            let (path, wanted) = match path.strip_suffix('/') {
                Some(directory) => (directory.to_owned(), FileType::Directory),
                None => (path, FileType::File),
            };
            let file = static_files::file_path(settings, location, request, &path);
            if self.fs.metadata(&file).is_ok_and(|found| found.file_type == wanted) {
                request.path = if wanted == FileType::Directory { format!("{path}/") } else { path };
                return None;
            }
        }
        if let Some(code) = last.strip_prefix('=') {
            let status = code.parse::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok());
            return Some(Step::Error(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)));
        }
        Some(if last.starts_with('@') { Step::Named(last.clone()) } else { Step::Restart(request.expand(last)) })
    }
}

impl Request {
    /// Changes the path, and the query where the new path brings one.
    fn set_path(&mut self, path: &str) {
        match path.split_once('?') {
            Some((path, query)) => (self.path, self.query) = (path.to_owned(), query.to_owned()),
            None => self.path = path.to_owned(),
        }
    }

    /// Whether the path is another than the client asked for.
    pub(super) fn rewritten(&self) -> bool {
        self.path != normal_path(self.request_uri.split('?').next().unwrap_or_default())
    }
}

/// A path decoded, without `.`, `..` and repeated slashes.
fn normal_path(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let mut parts: Vec<&str> = Vec::new();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let slash = if decoded.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}

fn rewrite(settings: &Settings, request: &mut Request) -> Option<Step> {
    for rule in &settings.rewrites {
        let path = request.path.clone();
        if !request.capture(&rule.regex, &path) {
            continue;
        }
        let mut to = request.expand(&rule.replacement);
        // The query goes along unless the replacement ends with a question mark.
        match to.strip_suffix('?') {
            Some(without) => to = without.to_owned(),
            None if !request.query.is_empty() => {
                to = format!("{to}{}{}", if to.contains('?') { '&' } else { '?' }, request.query)
            }
            None => {}
        }
        match rule.flag {
            RewriteFlag::Redirect(code) => {
                return Some(Step::Done(redirect(StatusCode::from_u16(code).unwrap_or(StatusCode::FOUND), &to)));
            }
            RewriteFlag::Last => return Some(Step::Restart(to)),
            RewriteFlag::Break => {
                request.set_path(&to);
                return None;
            }
        }
    }
    None
}

fn return_response(status: u16, text: Option<&str>, request: &Request) -> Step {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match text {
        None if status.is_client_error() || status.is_server_error() => Step::Error(status),
        None => {
            let mut response = Response::new(empty());
            *response.status_mut() = status;
            Step::Done(response)
        }
        Some(to) if status.is_redirection() => Step::Done(redirect(status, &request.expand(to))),
        Some(text) => {
            let mut response = Response::new(full(request.expand(text)));
            *response.status_mut() = status;
            Step::Done(response)
        }
    }
}

fn redirect(status: StatusCode, to: &str) -> Response<Body> {
    let mut response = page(status, true);
    if let Some(to) = header_value(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

fn error_response(status: StatusCode, settings: &Settings) -> Response<Body> {
    page(status, settings.server_tokens)
}

/// nginx' own page for a status.
fn page(status: StatusCode, tokens: bool) -> Response<Body> {
    let reason = match status {
        StatusCode::FOUND => "Found",
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        StatusCode::METHOD_NOT_ALLOWED => "Not Allowed",
        StatusCode::SERVICE_UNAVAILABLE => "Service Temporarily Unavailable",
        StatusCode::GATEWAY_TIMEOUT => "Gateway Time-out",
        status => status.canonical_reason().unwrap_or_default(),
    };
    let (title, server) = (format!("{} {reason}", status.as_u16()), server(tokens));
    let text = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    );
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

fn server(tokens: bool) -> String {
    if tokens { format!("nginx/{VERSION}") } else { "nginx".to_owned() }
}

fn finish(mut response: Response<Body>, settings: &Settings, request: &Request) -> Response<Body> {
    let status = response.status().as_u16();
    let headers = response.headers_mut();
    // `Server` comes first, whatever an upstream said.
    let mut others = std::mem::take(headers);
    others.remove(header::SERVER);
    headers.extend(header_value(&server(settings.server_tokens)).map(|value| (header::SERVER, value)));
    headers.extend(others);
    let has_body = !matches!(status, 204 | 304);
    if has_body && !headers.contains_key(header::CONTENT_TYPE) {
        headers.extend(header_value(&settings.default_type).map(|value| (header::CONTENT_TYPE, value)));
    }
    // Without `always`, only for these: https://nginx.org/en/docs/http/ngx_http_headers_module.html#add_header
    let usual = matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
    for added in settings.headers.iter().filter(|added| added.always || usual) {
        if let Some(value) = header_value(&request.expand(&added.value)).filter(|value| !value.is_empty()) {
            headers.append(added.name.clone(), value);
        }
    }
    response
}

/// The combined log format.
fn access_line(request: &Request, response: &Response<Body>) -> String {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text.replace('"', "\\x22") };
    let time = Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000");
    let size = response.body().size_hint().exact().unwrap_or(0);
    format!(
        "{} - - [{time}] \"{} {} {}\" {} {size} \"{}\" \"{}\"\n",
        request.ends.peer.ip(),
        request.method,
        request.request_uri,
        version_name(request.version),
        response.status().as_u16(),
        or_dash(request.header("referer")),
        or_dash(request.header("user-agent")),
    )
}
