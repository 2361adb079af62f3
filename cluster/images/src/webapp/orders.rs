//! What one request tells the app to do, in its query (`?status=503`) or in headers (`x-webapp-status: 503`).

use std::time::Duration;

use hyper::HeaderMap;

use super::config::{MAX_DELAY, parse_duration};

/// The prefix of the headers that give the same orders as the query.
const HEADER_PREFIX: &str = "x-webapp-";

/// The longest body that the app can be told to send.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// The most lines that the app can be told to stream.
const MAX_LINES: u32 = 10_000;

/// The most calls that one request can ask for.
const MAX_CALLS: usize = 16;

/// The orders of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// `status=503`: answer with this status.
    pub(super) status: Option<u16>,
    /// `delay=2s`: wait first.
    pub(super) delay: Duration,
    /// `stream=10`: so many lines, one at a time.
    pub(super) stream: Option<u32>,
    /// `interval=500ms`: between the lines of a stream (default 100ms).
    pub(super) interval: Option<Duration>,
    /// `bytes=N`: a body of so many bytes.
    pub(super) bytes: Option<usize>,
    /// `call=http://other/`: call this, too; can be repeated.
    pub(super) calls: Vec<String>,
}

impl Orders {
    /// Reads them; the error is for the client.
    pub(super) fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Self, String> {
        let mut orders = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            orders.take(&name, &value)?;
        }
        for (name, value) in headers {
            if let (Some(name), Ok(value)) = (name.as_str().strip_prefix(HEADER_PREFIX), value.to_str()) {
                orders.take(name, value)?;
            }
        }
        Ok(orders)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{name}={value:?} is not {expected}");
        match name {
            "status" => {
                let status = value.parse().ok().filter(|status| (200..600).contains(status));
                self.status = Some(status.ok_or_else(|| wrong("an HTTP status from 200 to 599"))?);
            }
            "delay" => {
                let expected = format!("a duration up to {}s, such as 250ms or 2s", MAX_DELAY.as_secs());
                self.delay = parse_duration(value).ok_or_else(|| wrong(&expected))?;
            }
            "interval" => self.interval = Some(parse_duration(value).ok_or_else(|| wrong("a duration such as 250ms or 2s"))?),
            "stream" => {
                let lines = value.parse().ok().filter(|lines| *lines <= MAX_LINES);
                self.stream = Some(lines.ok_or_else(|| wrong(&format!("a number of lines up to {MAX_LINES}")))?);
            }
            "bytes" => {
                let bytes = value.parse().ok().filter(|bytes| *bytes <= MAX_BYTES);
                self.bytes = Some(bytes.ok_or_else(|| wrong(&format!("a number of bytes up to {MAX_BYTES}")))?);
            }
            "call" if self.calls.len() == MAX_CALLS => return Err(format!("more than {MAX_CALLS} calls")),
            "call" => self.calls.push(value.to_owned()),
            // Anything else is the client's own.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_headers_give_the_same_orders() {
        let mut headers = HeaderMap::new();
        headers.insert("x-webapp-delay", "250ms".parse().unwrap());
        let orders = Orders::read(Some("status=503&call=http%3A%2F%2Fb%2F&user=jason"), &headers).unwrap();
        let expected =
            Orders { status: Some(503), delay: Duration::from_millis(250), calls: vec!["http://b/".into()], ..Orders::default() };
        assert_eq!(orders, expected);
    }

    #[test]
    fn an_order_that_makes_no_sense_is_named() {
        let error = |query| Orders::read(Some(query), &HeaderMap::new()).unwrap_err();
        insta::assert_snapshot!(error("status=99"), @r#"status="99" is not an HTTP status from 200 to 599"#);
        insta::assert_snapshot!(error("delay=1h"), @r#"delay="1h" is not a duration up to 300s, such as 250ms or 2s"#);
        insta::assert_snapshot!(error("bytes=99999999999"), @r#"bytes="99999999999" is not a number of bytes up to 67108864"#);
    }
}
