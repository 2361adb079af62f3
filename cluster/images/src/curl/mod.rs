//! `curl`, with the flags that the Istio documentation uses, curl's exit codes and its error lines.

mod arguments;
mod connection;
mod cookies;
mod error;
mod exchange;
mod glob;
mod report;

use std::time::{Duration, Instant};

use meshlab_program::{ExitCode, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::output::{Failure, MAX_INPUT, Outcome, complain, print};
use arguments::{Arguments, Data};
use connection::Connection;
use cookies::Jar;
use error::{CurlError, code};
use report::Report;

/// The version that `User-Agent` and `--version` give: the flags and words here are those of this one.
const VERSION: &str = "8.10.1";

/// Requests that one command line may expand to.
const MAX_URLS: usize = 10_000;

/// One run of curl.
struct Curl<'a> {
    process: &'a mut Process,
    arguments: Arguments,
    body: Vec<u8>,
    jar: Jar,
    /// The last connection, for the next request to the same place.
    connection: Option<Connection>,
    connections: usize,
}

/// The command.
pub(crate) async fn curl(process: &mut Process) -> Outcome {
    let arguments = match arguments::parse(&process.argv[1..]) {
        Ok(arguments) => arguments,
        Err(message) => {
            complain(process, &format!("curl: {message}\ncurl: try 'curl --help' for more information")).await;
            return Ok(code::USAGE);
        }
    };
    if arguments.version {
        print(process, format!("curl {VERSION} (meshlab) rustls\nProtocols: http https\nFeatures: HTTP2 SSL\n")).await?;
        return Ok(0);
    }
    if arguments.help {
        print(process, arguments::help()).await?;
        return Ok(0);
    }
    let body = match read_body(process, &arguments.data).await {
        Ok(body) => body,
        Err(failure) => {
            complain(process, &format!("curl: {}", failure.message)).await;
            return Ok(code::READ_ERROR);
        }
    };
    let jar = match &arguments.cookie_file {
        Some(file) => Jar::read(&process.container.fs.read_text(&process.path(file)).unwrap_or_default()),
        None => Jar::default(),
    };
    let mut curl = Curl { process, arguments, body, jar, connection: None, connections: 0 };
    let outcome = curl.run().await;
    if let Some(file) = curl.arguments.cookie_jar.clone() {
        let text = curl.jar.write();
        match file.as_str() {
            "-" => print(curl.process, text).await?,
            file => drop(curl.process.container.fs.write(&curl.process.path(file), text)),
        }
    }
    outcome
}

/// What another program learns of a transfer that it had curl make.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// curl's code and message.
    pub(crate) error: Option<(ExitCode, String)>,
    /// 0 where there was no response.
    pub(crate) status: u16,
    pub(crate) headers: Vec<String>,
    pub(crate) host: String,
}

impl Transfer {
    /// `404 Not Found`.
    pub(crate) fn status_line(&self) -> String {
        hyper::StatusCode::from_u16(self.status).map(|status| status.to_string()).unwrap_or_default()
    }
}

/// Makes one transfer for another program, which says itself what came of it.
pub(crate) async fn transfer(process: &mut Process, words: &[String]) -> Result<Transfer, Failure> {
    let arguments = arguments::parse(words).map_err(Failure::new)?;
    let body = read_body(process, &arguments.data).await?;
    let (url, output) = (arguments.urls.first().cloned().unwrap_or_default(), arguments.outputs.first().cloned());
    let mut curl = Curl { process, arguments, body, jar: Jar::default(), connection: None, connections: 0 };
    let mut report = Report::new(&url, output);
    let error = curl.fetch(&url, &mut report).await.err().map(|error| (error.code, error.message));
    process.stdio.stdout.flush().await?;
    let headers = report.headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    let host =
        url::Url::parse(&exchange::with_scheme(&url)).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    Ok(Transfer { error, status: report.status, headers: headers.collect(), host })
}

/// Joins the pieces of `-d` and its like.
async fn read_body(process: &mut Process, data: &[Data]) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    for (index, piece) in data.iter().enumerate() {
        if index > 0 && !matches!(piece, Data::Json(_)) {
            body.push(b'&');
        }
        match piece {
            Data::Text(text) | Data::Json(text) => body.extend(text.bytes()),
            Data::Encoded(name, text) => body.extend(encode(name, text.as_bytes()).bytes()),
            Data::File { name, keep_lines, encoded } => {
                let mut content = match name.as_str() {
                    "-" => {
                        let mut content = Vec::new();
                        (&mut process.stdio.stdin).take(MAX_INPUT).read_to_end(&mut content).await?;
                        content
                    }
                    name => {
                        let content = process.container.fs.read(&process.path(name));
                        content
                            .map_err(|_| Failure::new(format!("option -d: error encountered when reading a file: {name}")))?
                            .into()
                    }
                };
                if !keep_lines {
                    content.retain(|byte| !matches!(byte, b'\r' | b'\n'));
                }
                match encoded {
                    Some(field) => body.extend(encode(field, &content).bytes()),
                    None => body.extend(content),
                }
            }
        }
    }
    Ok(body)
}

fn encode(name: &str, value: &[u8]) -> String {
    let encoded: String = percent_encoding::percent_encode(value, connection::UNRESERVED).to_string();
    if name.is_empty() { encoded } else { format!("{name}={encoded}") }
}

impl Curl<'_> {
    async fn run(&mut self) -> Outcome {
        let mut urls = Vec::new();
        for (index, url) in self.arguments.urls.iter().enumerate() {
            let expanded = if self.arguments.globoff { Ok(vec![url.clone()]) } else { glob::expand(url, MAX_URLS) };
            match expanded {
                Ok(expanded) => urls.extend(expanded.into_iter().map(|url| (url, self.arguments.outputs.get(index).cloned()))),
                Err(message) => {
                    complain(self.process, &format!("curl: (3) {message}")).await;
                    return Ok(code::URL);
                }
            }
        }
        if urls.is_empty() {
            complain(self.process, "curl: (2) no URL specified\ncurl: try 'curl --help' for more information").await;
            return Ok(code::USAGE);
        }
        let mut last = 0;
        for (url, output) in urls {
            last = self.fetch_with_retries(&url, output).await?;
        }
        Ok(last)
    }

    async fn fetch_with_retries(&mut self, url: &str, output: Option<String>) -> Outcome {
        let mut attempts_left = self.arguments.retry;
        let mut pause = Duration::from_secs(1);
        loop {
            let mut report = Report::new(url, output.clone());
            let result = self.fetch(url, &mut report).await;
            let error = result.err();
            if attempts_left > 0 && self.is_transient(error.as_ref(), report.status) {
                let wait = self.arguments.retry_delay.unwrap_or(pause);
                let seconds = wait.as_secs();
                let problem = error.map_or_else(|| format!("HTTP error {}", report.status), |error| error.to_string());
                self.warn(&format!(
                    "Warning: Problem: {problem}. Will retry in {seconds} second{}. {attempts_left} retr{} left.",
                    if seconds == 1 { "" } else { "s" },
                    if attempts_left == 1 { "y" } else { "ies" }
                ))
                .await;
                tokio::time::sleep(wait).await;
                pause *= 2;
                attempts_left -= 1;
                continue;
            }
            return self.conclude(error, &report).await;
        }
    }

    /// What `--retry` tries again: <https://curl.se/docs/manpage.html#--retry>.
    fn is_transient(&self, error: Option<&CurlError>, status: u16) -> bool {
        match error.map(|error| error.code) {
            Some(code::CONNECT) => self.arguments.retry_connrefused || self.arguments.retry_all_errors,
            Some(code::RESOLVE | code::TIMEOUT) => true,
            Some(code::HTTP_ERROR) | None => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Some(_) => self.arguments.retry_all_errors,
        }
    }

    async fn fetch(&mut self, url: &str, report: &mut Report) -> Result<(), CurlError> {
        match self.arguments.max_time {
            None => self.perform(url, report).await,
            Some(limit) => {
                let started = Instant::now();
                match tokio::time::timeout(limit, self.perform(url, report)).await {
                    Ok(result) => result,
                    Err(_) => {
                        self.connection = None;
                        let millis = started.elapsed().as_millis();
                        let message = match report.connected() {
                            true => format!(
                                "Operation timed out after {millis} milliseconds with {} bytes received",
                                report.downloaded
                            ),
                            false => format!("Connection timed out after {millis} milliseconds"),
                        };
                        Err(CurlError::new(code::TIMEOUT, message))
                    }
                }
            }
        }
    }

    async fn conclude(&mut self, error: Option<CurlError>, report: &Report) -> Outcome {
        let exit = error.as_ref().map_or(0, |error| error.code);
        let message = error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
        if let Some(error) = &error
            && (!self.arguments.silent || self.arguments.show_error)
        {
            complain(self.process, &format!("curl: ({}) {}", error.code, error.message)).await;
            if error.code == code::CERTIFICATE {
                complain(self.process, error::CERTIFICATE_HINT).await;
            }
        }
        if let Some(format) = self.arguments.write_out.clone() {
            let format = match format.strip_prefix('@') {
                Some(file) => self.process.container.fs.read_text(&self.process.path(file)).unwrap_or_default(),
                None => format,
            };
            let written = report.write_out(&format, exit, &message);
            print(self.process, written.stdout).await?;
            self.process.stdio.stderr.write_all(written.stderr.as_bytes()).await?;
        }
        self.process.stdio.stdout.flush().await?;
        Ok(exit)
    }

    /// A line of `-v`.
    async fn note(&mut self, line: &str) {
        if self.arguments.verbose {
            complain(self.process, line).await;
        }
    }

    async fn warn(&mut self, line: &str) {
        if !self.arguments.silent {
            complain(self.process, line).await;
        }
    }
}

#[cfg(test)]
mod tests;
