//! Requests and responses: redirects, headers, bodies.

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, Version};
use tokio::io::AsyncWriteExt;
use url::Url;

use super::connection::{Sender, host_of, origin_of};
use super::error::{CurlError, code};
use super::report::Report;
use super::{Curl, VERSION};
use crate::http::{Body, empty, full};

/// What is unpacked of a compressed body.
const MAX_UNPACKED: u64 = 64 << 20;

/// What one request of a chain of redirects carries.
struct Hop {
    url: Url,
    method: String,
    body: Option<Vec<u8>>,
    /// Whether this is still the host that the user's credentials are for.
    same_host: bool,
}

impl Curl<'_> {
    /// Fetches a URL and writes what the user wants to see.
    pub(super) async fn perform(&mut self, text: &str, report: &mut Report) -> Result<(), CurlError> {
        let mut hop = self.first_hop(text).await?;
        loop {
            report.effective_url = hop.url.to_string();
            report.method.clone_from(&hop.method);
            let response = self.exchange(&hop, report).await?;
            report.status = response.status().as_u16();
            report.version = Some(response.version());
            report.headers = response.headers().clone();
            let host = host_of(&hop.url)?;
            for cookie in response.headers().get_all(header::SET_COOKIE) {
                self.jar.set(&host, &String::from_utf8_lossy(cookie.as_bytes()));
            }
            self.show_head(&response, report).await?;
            let next = response
                .headers()
                .get(header::LOCATION)
                .and_then(|to| hop.url.join(&String::from_utf8_lossy(to.as_bytes())).ok());
            let next = next.filter(|_| response.status().is_redirection());
            report.redirect_url = next.as_ref().map(Url::to_string).unwrap_or_default();
            let Some(next) = next.filter(|_| self.arguments.location) else {
                return self.finish(response, report).await;
            };
            if report.redirects >= self.arguments.max_redirects {
                let message = format!("Maximum ({}) redirects followed", self.arguments.max_redirects);
                return Err(CurlError::new(code::REDIRECTS, message));
            }
            report.redirects += 1;
            report.times.redirect = Some(report.elapsed());
            self.note(&format!("* Issue another request to this URL: '{next}'")).await;
            self.drain(response).await;
            hop = self.follow(hop, next, report.status);
        }
    }

    async fn first_hop(&mut self, text: &str) -> Result<Hop, CurlError> {
        let with_scheme = with_scheme(text);
        let rejected = |_| CurlError::new(code::URL, "URL rejected: Malformed input to a URL function");
        let mut url = Url::parse(&with_scheme).map_err(rejected)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CurlError::new(code::PROTOCOL, format!("Protocol \"{}\" not supported", url.scheme())));
        }
        let mut body = (!self.arguments.data.is_empty()).then(|| self.body.clone());
        if self.arguments.get
            && let Some(data) = body.take()
        {
            let data = String::from_utf8_lossy(&data).into_owned();
            let query = url.query().map_or_else(|| data.clone(), |query| format!("{query}&{data}"));
            url.set_query(Some(&query));
        }
        if let Some(file) = self.arguments.upload.clone() {
            let content = match file.as_str() {
                "-" => crate::output::read_stdin(self.process).await.map_err(|failure| failure.message),
                file => self.process.container.fs.read(&self.process.path(file)).map(Vec::from).map_err(|err| err.to_string()),
            };
            body = Some(content.map_err(|err| CurlError::new(code::READ_ERROR, format!("cannot open '{file}': {err}")))?);
        }
        let default = match (self.arguments.head, self.arguments.upload.is_some(), body.is_some()) {
            (true, ..) => "HEAD",
            (_, true, _) => "PUT",
            (_, _, true) => "POST",
            _ => "GET",
        };
        Ok(Hop { url, method: self.arguments.method.clone().unwrap_or_else(|| default.to_owned()), body, same_host: true })
    }

    /// The next request of a chain: <https://curl.se/docs/manpage.html#-L>.
    fn follow(&self, hop: Hop, next: Url, status: u16) -> Hop {
        let becomes_get = match status {
            301 | 302 => hop.method == "POST",
            303 => hop.method != "HEAD",
            _ => false,
        };
        let same_host = hop.same_host
            && next.host_str() == hop.url.host_str()
            && next.port_or_known_default() == hop.url.port_or_known_default();
        match becomes_get && self.arguments.method.is_none() {
            true => Hop { url: next, method: "GET".to_owned(), body: None, same_host },
            false => Hop { url: next, same_host, ..hop },
        }
    }

    fn headers(&self, hop: &Hop) -> Result<HeaderMap, CurlError> {
        let mut headers = HeaderMap::new();
        let value = |text: &str| {
            let wrong = |_| CurlError::new(code::USAGE, format!("header value {text:?} has characters that no header may have"));
            HeaderValue::from_str(text).map_err(wrong)
        };
        let host = hop.url.host_str().unwrap_or_default();
        let authority = hop.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        headers.insert(header::HOST, value(&authority)?);
        if hop.same_host {
            let user = self.arguments.user.clone().or_else(|| {
                let name = hop.url.username();
                (!name.is_empty()).then(|| format!("{name}:{}", hop.url.password().unwrap_or_default()))
            });
            if let Some(user) = user {
                let user = if user.contains(':') { user } else { format!("{user}:") };
                headers.insert(header::AUTHORIZATION, value(&format!("Basic {}", STANDARD.encode(user)))?);
            }
            if let Some(token) = &self.arguments.bearer {
                headers.insert(header::AUTHORIZATION, value(&format!("Bearer {token}"))?);
            }
        }
        let agent = self.arguments.user_agent.clone().unwrap_or_else(|| format!("curl/{VERSION}"));
        if !agent.is_empty() {
            headers.insert(header::USER_AGENT, value(&agent)?);
        }
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(referer) = &self.arguments.referer {
            headers.insert(header::REFERER, value(referer)?);
        }
        if self.arguments.compressed {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let mut cookies = self.jar.matching(host, hop.url.path());
        cookies.extend(self.arguments.cookies.iter().cloned());
        if !cookies.is_empty() {
            headers.insert(header::COOKIE, value(&cookies.join("; "))?);
        }
        if self.arguments.json {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        } else if hop.body.is_some() && self.arguments.upload.is_none() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        if let Some(body) = &hop.body {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        // The user's own headers replace those; `Name:` takes one away, `Name;` sends it empty.
        let mut replaced = Vec::new();
        for line in &self.arguments.headers {
            let (name, text) = match (line.split_once(':'), line.strip_suffix(';')) {
                (Some((name, text)), _) => (name.trim(), Some(text.trim()).filter(|text| !text.is_empty())),
                (None, Some(name)) => (name, Some("")),
                (None, None) => continue,
            };
            let wrong = |_| CurlError::new(code::USAGE, format!("header name {name:?} has characters that no header may have"));
            let name: HeaderName = name.parse().map_err(wrong)?;
            if matches!(name, header::AUTHORIZATION | header::COOKIE | header::HOST) && !hop.same_host {
                continue;
            }
            if !replaced.contains(&name) {
                // The place in the order is kept.
                match text {
                    Some(text) => drop(headers.insert(name.clone(), value(text)?)),
                    None => drop(headers.remove(&name)),
                }
                replaced.push(name);
            } else if let Some(text) = text {
                headers.append(name, value(text)?);
            }
        }
        Ok(headers)
    }

    /// Sends a request and waits for the head of the response.
    async fn exchange(&mut self, hop: &Hop, report: &mut Report) -> Result<Response<Incoming>, CurlError> {
        let origin = origin_of(&hop.url);
        let kept = self.connection.take().filter(|connection| connection.origin == origin && connection.is_open());
        let (mut connection, reused) = match kept {
            Some(connection) => {
                self.note(&format!("* Re-using existing connection with host {}", host_of(&hop.url)?)).await;
                (connection, true)
            }
            None => (self.connect(&hop.url, report).await?, false),
        };
        let mut result = self.send(&mut connection, hop, report).await?;
        if reused && result.is_err() {
            // The server may have closed a kept connection just now.
            connection = self.connect(&hop.url, report).await?;
            result = self.send(&mut connection, hop, report).await?;
        }
        (report.remote, report.local) = (Some(connection.remote), Some(connection.local));
        let response = result.map_err(|err| CurlError::http(&err, connection.is_http2(), false))?;
        report.times.start_transfer = Some(report.elapsed());
        self.connection = Some(connection);
        Ok(response)
    }

    async fn send(
        &mut self,
        connection: &mut super::connection::Connection,
        hop: &Hop,
        report: &mut Report,
    ) -> Result<Result<Response<Incoming>, hyper::Error>, CurlError> {
        let mut headers = self.headers(hop)?;
        let http2 = connection.is_http2();
        let path = match hop.url.query() {
            Some(query) => format!("{}?{query}", hop.url.path()),
            None => hop.url.path().to_owned(),
        };
        if self.arguments.verbose {
            if http2 {
                self.note("* using HTTP/2").await;
            }
            self.note(&format!("> {} {path} {}", hop.method, if http2 { "HTTP/2" } else { "HTTP/1.1" })).await;
            for (name, value) in &headers {
                self.note(&format!("> {}: {}", title_case(name.as_str()), String::from_utf8_lossy(value.as_bytes()))).await;
            }
            self.note("> ").await;
        }
        let target = match (http2, headers.get(header::HOST)) {
            (true, Some(host)) => format!("{}://{}{path}", hop.url.scheme(), String::from_utf8_lossy(host.as_bytes())),
            _ => path,
        };
        if http2 {
            headers.remove(header::HOST);
        }
        let usage = |what: &str| CurlError::new(code::USAGE, format!("{what} cannot be sent"));
        let method = Method::from_bytes(hop.method.as_bytes()).map_err(|_| usage(&format!("the method {:?}", hop.method)))?;
        let body: Body = hop.body.as_ref().map_or_else(empty, |body| full(body.clone()));
        let mut request =
            Request::builder().method(method).uri(&target).body(body).map_err(|_| usage(&format!("the target {target:?}")))?;
        *request.headers_mut() = headers;
        report.uploaded = hop.body.as_ref().map_or(0, Vec::len);
        report.times.pre_transfer = Some(report.elapsed());
        Ok(match &mut connection.sender {
            Sender::Http1(sender) => match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(err) => Err(err),
            },
            Sender::Http2(sender) => sender.send_request(request).await,
        })
    }

    /// The head, for `-v`, `-i`, `-I` and `-D`.
    async fn show_head(&mut self, response: &Response<Incoming>, report: &mut Report) -> Result<(), CurlError> {
        let status = match response.version() {
            Version::HTTP_2 => format!("HTTP/2 {} ", response.status().as_u16()),
            version => {
                let version = if version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
                let reason = response
                    .extensions()
                    .get::<hyper::ext::ReasonPhrase>()
                    .map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
                let reason = reason.or_else(|| response.status().canonical_reason().map(str::to_owned)).unwrap_or_default();
                format!("{version} {} {reason}", response.status().as_u16())
            }
        };
        let mut lines = vec![status];
        lines.extend(
            response.headers().iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))),
        );
        lines.push(String::new());
        if self.arguments.verbose {
            for line in &lines {
                self.note(&format!("< {line}")).await;
            }
        }
        let head: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        report.header_size += head.len();
        if self.arguments.include || self.arguments.head {
            self.write_body(head.as_bytes(), report, false).await?;
        }
        match self.arguments.dump_header.clone().as_deref() {
            None => {}
            Some("-") => {
                self.process
                    .stdio
                    .stdout
                    .write_all(head.as_bytes())
                    .await
                    .map_err(|err| CurlError::new(code::WRITE_ERROR, err.to_string()))?;
            }
            Some(file) => {
                let written = self.process.container.fs.append(&self.process.path(file), head.as_bytes());
                written.map_err(|err| CurlError::new(code::WRITE_ERROR, format!("Failed to open {file}: {err}")))?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self, response: Response<Incoming>, report: &mut Report) -> Result<(), CurlError> {
        let status = response.status();
        let failed = status.as_u16() >= 400;
        let error = || CurlError::new(code::HTTP_ERROR, format!("The requested URL returned error: {}", status.as_u16()));
        if failed && self.arguments.fail {
            self.drain(response).await;
            return Err(error());
        }
        let http2 = response.version() == Version::HTTP_2;
        let packed = self.arguments.compressed
            && response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
        let (mut body, mut kept) = (response.into_body(), Vec::new());
        // A file is there even if the body is empty.
        self.write_body(&[], report, true).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|err| CurlError::http(&err, http2, true))?;
            if let Some(data) = frame.data_ref() {
                report.downloaded += data.len() as u64;
                match packed {
                    true => kept.extend_from_slice(data),
                    false => self.write_body(data, report, false).await?,
                }
            }
        }
        if packed {
            let mut unpacked = Vec::new();
            let read = MultiGzDecoder::new(&kept[..]).take(MAX_UNPACKED).read_to_end(&mut unpacked);
            read.map_err(|err| CurlError::new(61, format!("Error while processing content unencoding: {err}")))?;
            self.write_body(&unpacked, report, false).await?;
        }
        self.note(&format!(
            "* Connection #{} to host {} left intact",
            self.connections.saturating_sub(1),
            host_name(&report.effective_url)
        ))
        .await;
        if failed && self.arguments.fail_with_body { Err(error()) } else { Ok(()) }
    }

    /// Reads a body that nobody wants to see, so that the connection can be used again.
    async fn drain(&mut self, response: Response<Incoming>) {
        /// Beyond this a new connection is cheaper.
        const PATIENCE: Duration = Duration::from_secs(1);
        let collected = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
        if !matches!(collected, Ok(Ok(_))) {
            self.connection = None;
        }
    }

    /// Writes to standard output or to the file of `-o`.
    async fn write_body(&mut self, bytes: &[u8], report: &mut Report, create: bool) -> Result<(), CurlError> {
        let failed =
            |err: std::io::Error| CurlError::new(code::WRITE_ERROR, format!("Failure writing output to destination: {err}"));
        match report.output.as_deref() {
            None | Some("-") => {
                self.process.stdio.stdout.write_all(bytes).await.map_err(failed)?;
                self.process.stdio.stdout.flush().await.map_err(failed)
            }
            Some(file) => {
                let name = match file {
                    "-O" => {
                        report.url.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
                    }
                    file => file.to_owned(),
                };
                let path = self.process.path(&name);
                let fs = &self.process.container.fs;
                if create && report.header_size > 0 && !(self.arguments.include || self.arguments.head) {
                    return fs.write(&path, Vec::new()).map_err(failed);
                }
                fs.append(&path, bytes).map_err(failed)
            }
        }
    }
}

/// A URL without a scheme is taken for HTTP's. A `://` further back is part of a query.
pub(super) fn with_scheme(text: &str) -> String {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        true => text.to_owned(),
        false => format!("http://{text}"),
    }
}

fn host_name(url: &str) -> String {
    Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

fn title_case(name: &str) -> String {
    let part = |part: &str| part[..1.min(part.len())].to_uppercase() + &part[1.min(part.len())..];
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}
