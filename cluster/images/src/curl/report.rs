//! What came of a transfer, and `-w`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::{HeaderMap, Version};

/// Times since the start, as `%{time_…}` gives them.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) name_lookup: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) app_connect: Option<Duration>,
    pub(super) pre_transfer: Option<Duration>,
    pub(super) start_transfer: Option<Duration>,
    pub(super) redirect: Option<Duration>,
}

/// What came of a transfer.
#[derive(Debug)]
pub(super) struct Report {
    started: Instant,
    pub(super) url: String,
    pub(super) effective_url: String,
    pub(super) output: Option<String>,
    pub(super) method: String,
    /// 0 until there is a response.
    pub(super) status: u16,
    pub(super) version: Option<Version>,
    pub(super) headers: HeaderMap,
    pub(super) header_size: usize,
    pub(super) downloaded: u64,
    pub(super) uploaded: usize,
    pub(super) redirects: usize,
    pub(super) redirect_url: String,
    pub(super) connects: usize,
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    pub(super) verify_result: u32,
    pub(super) times: Times,
}

/// What `-w` writes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Report {
    pub(super) fn new(url: &str, output: Option<String>) -> Self {
        Self {
            started: Instant::now(),
            url: url.to_owned(),
            effective_url: url.to_owned(),
            output,
            method: "GET".to_owned(),
            status: 0,
            version: None,
            headers: HeaderMap::new(),
            header_size: 0,
            downloaded: 0,
            uploaded: 0,
            redirects: 0,
            redirect_url: String::new(),
            connects: 0,
            remote: None,
            local: None,
            verify_result: 0,
            times: Times::default(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn connected(&self) -> bool {
        self.times.connect.is_some()
    }

    /// Renders a format: `%{name}`, `%header{name}`, `%%`, `\n`.
    pub(super) fn write_out(&self, format: &str, exit: i32, message: &str) -> Written {
        let (mut written, mut to_stderr, mut rest) = (Written::default(), false, format);
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let mut text = c.to_string();
            if c == '\\' {
                let escaped = rest.chars().next();
                rest = &rest[escaped.map_or(0, char::len_utf8)..];
                text = match escaped {
                    Some('n') => "\n".to_owned(),
                    Some('t') => "\t".to_owned(),
                    Some('r') => "\r".to_owned(),
                    Some(other) => format!("\\{other}"),
                    None => "\\".to_owned(),
                };
            } else if c == '%' {
                if let Some(after) = rest.strip_prefix('%') {
                    rest = after;
                } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                    rest = after;
                    match name {
                        "stderr" | "stdout" => {
                            to_stderr = name == "stderr";
                            continue;
                        }
                        // curl says this, too, and goes on.
                        name => {
                            text = self
                                .variable(name, exit, message)
                                .unwrap_or_else(|| format!("curl: unknown --write-out variable: '{name}'\n"))
                        }
                    }
                } else if let Some((name, after)) = rest.strip_prefix("header{").and_then(|inner| inner.split_once('}')) {
                    rest = after;
                    let value = self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
                    text = value.unwrap_or_default();
                }
            }
            if to_stderr { &mut written.stderr } else { &mut written.stdout }.push_str(&text);
        }
        written
    }

    fn variable(&self, name: &str, exit: i32, message: &str) -> Option<String> {
        let time = |duration: Option<Duration>| format!("{:.6}", duration.unwrap_or_default().as_secs_f64());
        let address = |address: Option<SocketAddr>| address.map(|address| address.ip().to_string()).unwrap_or_default();
        let port = |address: Option<SocketAddr>| address.map_or(0, |address| address.port()).to_string();
        let url = url::Url::parse(&self.effective_url).ok();
        Some(match name {
            "http_code" | "response_code" => format!("{:03}", self.status),
            "http_version" => match self.version {
                Some(Version::HTTP_2) => "2",
                Some(Version::HTTP_10) => "1.0",
                Some(_) => "1.1",
                None => "0",
            }
            .to_owned(),
            "http_connect" => "000".to_owned(),
            "size_download" => self.downloaded.to_string(),
            "size_upload" => self.uploaded.to_string(),
            "size_header" => self.header_size.to_string(),
            "speed_download" => format!("{:.0}", self.downloaded as f64 / self.elapsed().as_secs_f64().max(1e-6)),
            "url" => self.url.clone(),
            "url_effective" => self.effective_url.clone(),
            "scheme" => url?.scheme().to_owned(),
            "method" => self.method.clone(),
            "num_redirects" => self.redirects.to_string(),
            "num_connects" => self.connects.to_string(),
            "num_headers" => self.headers.len().to_string(),
            "redirect_url" => self.redirect_url.clone(),
            "remote_ip" => address(self.remote),
            "remote_port" => port(self.remote),
            "local_ip" => address(self.local),
            "local_port" => port(self.local),
            "content_type" => self
                .headers
                .get("content-type")
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .unwrap_or_default(),
            "filename_effective" => self.output.clone().unwrap_or_default(),
            "ssl_verify_result" => self.verify_result.to_string(),
            "exitcode" => exit.to_string(),
            "errormsg" => message.to_owned(),
            "time_namelookup" => time(self.times.name_lookup),
            "time_connect" => time(self.times.connect),
            "time_appconnect" => time(self.times.app_connect),
            "time_pretransfer" => time(self.times.pre_transfer),
            "time_starttransfer" => time(self.times.start_transfer),
            "time_redirect" => time(self.times.redirect),
            "time_total" => time(Some(self.elapsed())),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_rendered() {
        let mut report = Report::new("http://a/", None);
        report.status = 503;
        report.headers.insert("x-version", "v2".parse().unwrap());
        let written = report.write_out(r"%{http_code} %header{x-version}\n100%%%{stderr}%{exitcode}", 22, "");
        assert_eq!(written, Written { stdout: "503 v2\n100%".to_owned(), stderr: "22".to_owned() });
        assert_eq!(report.write_out("%{nonesuch}", 0, "").stdout, "curl: unknown --write-out variable: 'nonesuch'\n");
        assert_eq!(Report::new("http://a/", None).write_out("%{http_code}", 7, "").stdout, "000");
    }
}
