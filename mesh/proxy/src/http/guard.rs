//! A strict reading of HTTP/1.1 framing, ahead of the lenient parser: what could be read in two ways is not read at all.
//!
//! Refused: bare CR or LF, folded lines, white space before a colon, conflicting or malformed `content-length`, `content-length`
//! together with `transfer-encoding`, any transfer coding but `chunked`, more than one `host`.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a line ends without CRLF, or has a bare CR")]
    LineEnd,
    #[error("the request line is not one of a method, a target and a version")]
    RequestLine,
    #[error("a version of HTTP other than 1.0 and 1.1")]
    Version,
    #[error("a header line is folded, or its name is none")]
    HeaderLine,
    #[error("the content length is malformed or contradicts itself")]
    ContentLength,
    #[error("a transfer coding beside a content length, or more than one")]
    TransferEncoding,
    #[error("a transfer coding other than chunked")]
    UnknownCoding,
    #[error("more than one host")]
    DuplicateHost,
    #[error("a chunk is malformed")]
    Chunk,
    #[error("a line is too long")]
    TooLong,
}

impl Violation {
    /// Envoy's status, whose text is the body.
    fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RequestLine,
    Headers,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// Another protocol may follow: nothing is checked any more.
    Raw,
}

/// Follows requests through a connection's bytes.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    limit: usize,
    length: Option<u64>,
    chunked: bool,
    hosts: u8,
    upgrade: bool,
}

impl Framing {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: State::RequestLine, partial: Vec::new(), limit, length: None, chunked: false, hosts: 0, upgrade: false }
    }

    /// Whether a head has begun and not ended.
    fn in_head(&self) -> bool {
        self.state == State::Headers || (self.state == State::RequestLine && !self.partial.is_empty())
    }

    /// Whether an error can still be answered with a status.
    fn before_body(&self) -> bool {
        matches!(self.state, State::RequestLine | State::Headers)
    }

    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, mut data: &[u8]) -> Result<(), Violation> {
        while !data.is_empty() {
            match &mut self.state {
                State::Raw => return Ok(()),
                State::Body(remaining) | State::ChunkData(remaining) => {
                    let skipped = (*remaining).min(data.len() as u64);
                    *remaining -= skipped;
                    data = &data[skipped as usize..];
                    if *remaining == 0 {
                        self.state = if matches!(self.state, State::Body(_)) { State::RequestLine } else { State::ChunkEnd };
                    }
                }
                _ => {
                    let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
                        if self.partial.len() + data.len() > self.limit {
                            return Err(Violation::TooLong);
                        }
                        self.partial.extend_from_slice(data);
                        return Ok(());
                    };
                    let (line, rest) = data.split_at(end + 1);
                    data = rest;
                    if self.partial.is_empty() {
                        self.line(line)?;
                    } else {
                        self.partial.extend_from_slice(line);
                        let whole = std::mem::take(&mut self.partial);
                        self.line(&whole)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let line = line.strip_suffix(b"\r\n").ok_or(Violation::LineEnd)?;
        if line.contains(&b'\r') {
            return Err(Violation::LineEnd);
        }
        match self.state {
            // Empty lines before a request are allowed (RFC 9112 section 2.2).
            State::RequestLine if line.is_empty() => Ok(()),
            State::RequestLine => {
                request_line(line)?;
                self.length = None;
                self.chunked = false;
                self.hosts = 0;
                self.upgrade = line.starts_with(b"CONNECT ");
                self.state = State::Headers;
                Ok(())
            }
            State::Headers if line.is_empty() => self.end_of_head(),
            State::Headers => self.header(line),
            State::ChunkSize => {
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                let size = parse(digits, 16).ok_or(Violation::Chunk)?;
                self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                Ok(())
            }
            State::ChunkEnd if line.is_empty() => {
                self.state = State::ChunkSize;
                Ok(())
            }
            State::ChunkEnd => Err(Violation::Chunk),
            State::Trailers => {
                if line.is_empty() {
                    self.state = State::RequestLine;
                } else {
                    name_and_value(line)?;
                }
                Ok(())
            }
            State::Body(_) | State::ChunkData(_) | State::Raw => Ok(()),
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, value) = name_and_value(line)?;
        // The length tells most names apart before anything is compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(Violation::DuplicateHost);
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse(value, 10).ok_or(Violation::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(Violation::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::UnknownCoding);
                }
                if self.chunked {
                    return Err(Violation::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), Violation> {
        self.state = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Violation::TransferEncoding),
            _ if self.upgrade => State::Raw,
            (true, None) => State::ChunkSize,
            (false, None | Some(0)) => State::RequestLine,
            (false, Some(length)) => State::Body(length),
        };
        Ok(())
    }
}

/// Three parts with one space between them; visible ASCII only.
fn request_line(line: &[u8]) -> Result<(), Violation> {
    if line.iter().any(|byte| !matches!(byte, b' '..=b'~')) {
        return Err(Violation::RequestLine);
    }
    let mut parts = line.split(|byte| *byte == b' ');
    if !line.split(|byte| *byte == b' ').next().is_some_and(|method| method.iter().copied().all(is_token)) {
        return Err(Violation::RequestLine);
    }
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some([_, ..]), Some([_, ..]), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Ok(()),
        (Some([_, ..]), Some([_, ..]), None, None) => Err(Violation::Version),
        (Some([_, ..]), Some([_, ..]), Some(version), None) if version.starts_with(b"HTTP/") => Err(Violation::Version),
        _ => Err(Violation::RequestLine),
    }
}

/// What names are made of (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn name_and_value(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Violation::HeaderLine)?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Violation::HeaderLine);
    }
    Ok((name, value[1..].trim_ascii()))
}

fn parse(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    // from_str_radix takes a sign, HTTP does not.
    if text.is_empty() || !text.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(text, radix).ok()
}

/// A stream whose requests are checked as they are read.
pub(crate) struct Guarded<S> {
    inner: S,
    framing: Framing,
    head_timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    refused: Option<Violation>,
    server: &'static str,
    /// An answer on its way out.
    answer: VecDeque<u8>,
}

impl<S> Guarded<S> {
    /// `server` is what the proxy calls itself where it refuses.
    pub(crate) fn new(inner: S, max_head_bytes: usize, head_timeout: Duration, server: &'static str) -> Self {
        let framing = Framing::new(max_head_bytes);
        Self { inner, framing, head_timeout, deadline: None, refused: None, server, answer: VecDeque::new() }
    }

    /// The parser answers what was refused without saying anything: its answer is replaced with Envoy's.
    fn replace(&mut self, bytes: &[u8]) -> bool {
        const SILENT: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n";
        let Some(violation) = self.refused else { return false };
        if !bytes.starts_with(SILENT) {
            return false;
        }
        let status = violation.status();
        let text = status.canonical_reason().unwrap_or_default();
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
        let answer = format!(
            "HTTP/1.1 {} {text}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\ndate: {date}\r\nserver: {}\r\nconnection: close\r\n\r\n{text}",
            status.as_u16(),
            text.len(),
            self.server,
        );
        self.answer.extend(answer.as_bytes());
        true
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.answer.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, self.answer.as_slices().0))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.answer.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes thrown away after a refusal: closing a socket with unread bytes resets it, and the client would not see the answer.
const DISCARDED: usize = 256 * 1024;

impl<S: AsyncRead + Unpin> Guarded<S> {
    fn discard(&mut self, cx: &mut Context<'_>) {
        let mut scratch = [0; 4096];
        let mut discarded = 0;
        while discarded < DISCARDED {
            let mut space = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => discarded += space.filled().len(),
                _ => return,
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Pending => {
                // A slow client: the timer only runs while the rest of a head is waited for.
                if this.framing.in_head() {
                    let limit = this.head_timeout;
                    let deadline = this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                    ready!(deadline.as_mut().poll(cx));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request's head took too long")));
                }
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                if let Err(violation) = this.framing.feed(&buf.filled()[before..]) {
                    tracing::debug!(%violation, "malformed HTTP/1.1");
                    this.refused = Some(violation);
                    if !this.framing.before_body() {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                    }
                    // A NUL is nowhere allowed in a head: the parser answers 400 and closes. When the head is too long it says 431
                    // by itself, since all of it is there.
                    if violation != Violation::TooLong {
                        buf.set_filled(before);
                        this.discard(cx);
                        buf.put_slice(&[0]);
                    }
                }
                if !this.framing.in_head() {
                    this.deadline = None;
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.replace(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [first, ..] = bufs
            && self.replace(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[u8] =
        b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\nx: y\r\n\r\n\
        PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n\n\nGET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[test]
    fn well_formed_requests_pass_however_they_are_cut() {
        for step in 1..GOOD.len() {
            let mut framing = Framing::new(1024);
            for piece in GOOD.chunks(step) {
                assert_eq!(framing.feed(piece), Ok(()), "in pieces of {step}");
            }
            assert_eq!(framing.state, State::RequestLine, "in pieces of {step}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let cases: [(&str, Violation); 18] = [
            ("nonsense\r\n", Violation::RequestLine),
            ("GET /a b HTTP/1.1\r\n", Violation::RequestLine),
            ("GET /\u{e9} HTTP/1.1\r\n", Violation::RequestLine),
            ("GET /\r\n", Violation::Version),
            ("GET / HTTP/3.7\r\n", Violation::Version),
            ("GET / HTTP/1.1\r\n@x: y\r\n", Violation::HeaderLine),
            ("GET / HTTP/1.1\nhost: x\r\n\r\n", Violation::LineEnd),
            ("GET / HTTP/1.1\r\nhost: x\rinjected: y\r\n\r\n", Violation::LineEnd),
            ("GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n", Violation::HeaderLine),
            ("GET / HTTP/1.1\r\nhost : x\r\n\r\n", Violation::HeaderLine),
            ("GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", Violation::DuplicateHost),
            ("GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", Violation::ContentLength),
            ("GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", Violation::ContentLength),
            ("GET / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n", Violation::ContentLength),
            ("GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", Violation::TransferEncoding),
            ("GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Violation::UnknownCoding),
            ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc", Violation::Chunk),
            ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n", Violation::Chunk),
        ];
        for (request, violation) in cases {
            assert_eq!(Framing::new(1024).feed(request.as_bytes()), Err(violation), "{request:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..50) {
            let mut framing = Framing::new(64);
            let _ = bytes.chunks(step).try_for_each(|piece| framing.feed(piece));
        }
    }
}
