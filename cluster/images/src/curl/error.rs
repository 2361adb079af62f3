//! curl's errors: <https://curl.se/libcurl/c/libcurl-errors.html>.

use std::error::Error;
use std::io;

use meshlab_program::ExitCode;

/// Exit codes.
pub(super) mod code {
    use meshlab_program::ExitCode;

    pub(crate) const PROTOCOL: ExitCode = 1;
    pub(crate) const USAGE: ExitCode = 2;
    pub(crate) const URL: ExitCode = 3;
    pub(crate) const RESOLVE: ExitCode = 6;
    pub(crate) const CONNECT: ExitCode = 7;
    pub(crate) const PARTIAL: ExitCode = 18;
    pub(crate) const HTTP_ERROR: ExitCode = 22;
    pub(crate) const WRITE_ERROR: ExitCode = 23;
    pub(crate) const READ_ERROR: ExitCode = 26;
    pub(crate) const TIMEOUT: ExitCode = 28;
    pub(crate) const TLS: ExitCode = 35;
    pub(crate) const REDIRECTS: ExitCode = 47;
    pub(crate) const EMPTY: ExitCode = 52;
    pub(crate) const SEND: ExitCode = 55;
    pub(crate) const RECEIVE: ExitCode = 56;
    pub(crate) const OWN_CERTIFICATE: ExitCode = 58;
    pub(crate) const CERTIFICATE: ExitCode = 60;
    pub(crate) const CA_FILE: ExitCode = 77;
    pub(crate) const HTTP2: ExitCode = 92;
}

/// What follows a message about a certificate.
pub(super) const CERTIFICATE_HINT: &str = "More details here: https://curl.se/docs/sslcerts.html\n\n\
    curl failed to verify the legitimacy of the server and therefore could not\n\
    establish a secure connection to it. To learn more about this situation and\n\
    how to fix it, please visit the webpage mentioned above.";

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct CurlError {
    pub(super) code: ExitCode,
    pub(super) message: String,
}

impl CurlError {
    pub(super) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What an HTTP library's error means in curl's terms. `started`: part of the response is there already.
    pub(super) fn http(err: &hyper::Error, http2: bool, started: bool) -> Self {
        if let Some(io) = io_cause(err) {
            if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return Self::new(code::RECEIVE, format!("TLS read: {tls}"));
            }
            match io.kind() {
                io::ErrorKind::ConnectionReset => return Self::new(code::RECEIVE, "Recv failure: Connection reset by peer"),
                io::ErrorKind::BrokenPipe => return Self::new(code::SEND, "Send failure: Broken pipe"),
                _ => {}
            }
        }
        if started && !http2 {
            return Self::new(code::PARTIAL, "transfer closed with outstanding read data remaining");
        }
        if http2 {
            return Self::new(code::HTTP2, format!("HTTP/2 stream 1 was not closed cleanly: {}", innermost(err)));
        }
        if err.is_parse() {
            return Self::new(code::PROTOCOL, "Received HTTP/0.9 when not allowed");
        }
        Self::new(code::EMPTY, "Empty reply from server")
    }
}

fn io_cause(err: &hyper::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = err.source();
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = current.source();
    }
    None
}

fn innermost(err: &hyper::Error) -> String {
    let (mut text, mut cause): (String, Option<&(dyn Error + 'static)>) = (err.to_string(), err.source());
    while let Some(current) = cause {
        text = current.to_string();
        cause = current.source();
    }
    text
}
