//! gRPC: status codes, and counting messages as they pass.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Whether these are the headers of a gRPC message.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && matches!(value.get(16), None | Some(b'+' | b';' | b' '))
    })
}

/// The header, or trailer.
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The `grpc-status` of headers or trailers.
pub(crate) fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get(STATUS).map(HeaderValue::to_str)?.ok()?.trim().parse().ok()
}

/// How long a gRPC client waits.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The client's time limit; parts of milliseconds count as whole ones. A malformed one, and nothing, are none.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let milliseconds = match unit {
        "H" => number * 3_600_000,
        "M" => number * 60_000,
        "S" => number * 1000,
        "m" => number,
        "u" => number.div_ceil(1000),
        "n" => number.div_ceil(1_000_000),
        _ => return None,
    };
    (milliseconds > 0).then(|| crate::options::milliseconds(milliseconds))
}

/// A time limit as gRPC writes it: at most eight digits.
pub(crate) fn timeout_value(milliseconds: u64) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    let (number, unit) = [(1, 'm'), (1000, 'S'), (60_000, 'M'), (3_600_000, 'H')]
        .into_iter()
        .map(|(length, unit)| (milliseconds / length, unit))
        .find(|(number, _)| *number <= MOST)
        .unwrap_or((MOST, 'H'));
    HeaderValue::from_str(&format!("{number}{unit}")).unwrap_or_else(|_| HeaderValue::from_static("1m"))
}

/// The status that stands for an HTTP status (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>); 200 by
/// itself is unknown, too.
pub(crate) fn status_of_http(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The HTTP status that stands for a gRPC status, as Envoy counts and ejects by it.
pub(crate) fn http_of_status(status: u32) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// Counts the length-prefixed messages of a body.
#[derive(Debug, Default)]
pub(crate) struct MessageCounter {
    messages: u64,
    prefix: [u8; 5],
    prefix_length: usize,
    /// Bytes of the current message still to come.
    remaining: u64,
}

impl MessageCounter {
    /// Takes the next bytes and gives the number of messages begun so far.
    pub(crate) fn feed(&mut self, mut data: &[u8]) -> u64 {
        while !data.is_empty() {
            if self.remaining > 0 {
                let skipped = self.remaining.min(data.len() as u64);
                self.remaining -= skipped;
                data = &data[skipped as usize..];
                continue;
            }
            let wanted = (5 - self.prefix_length).min(data.len());
            self.prefix[self.prefix_length..self.prefix_length + wanted].copy_from_slice(&data[..wanted]);
            self.prefix_length += wanted;
            data = &data[wanted..];
            if self.prefix_length == 5 {
                self.messages += 1;
                self.prefix_length = 0;
                let [_, length @ ..] = self.prefix;
                self.remaining = u64::from(u32::from_be_bytes(length));
            }
        }
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let body = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 1], b"x"].concat();
        for step in 1..body.len() {
            let mut counter = MessageCounter::default();
            let counted = body.chunks(step).map(|chunk| counter.feed(chunk)).last();
            assert_eq!(counted, Some(3), "in pieces of {step}");
        }
    }
}
