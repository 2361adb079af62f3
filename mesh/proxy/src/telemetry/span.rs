//! Spans, and the headers that carry a trace from hop to hop.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use meshlab_proxy_config::SpanExporter;
use rand::Rng;

/// Which end of a call a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// The caller's proxy.
    Client,
    /// The called workload's proxy.
    Server,
}

/// A finished span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Of the whole trace.
    pub trace_id: u128,
    /// Of this span.
    pub span_id: u64,
    /// Of the span that this one is part of; `None` at the root.
    pub parent_id: Option<u64>,
    /// `reviews.default.svc.cluster.local:80/*` (fact 50).
    pub name: String,
    /// Which end.
    pub kind: SpanKind,
    /// `productpage.default`.
    pub service: String,
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Envoy's tags (`http.status_code`, `upstream_cluster`, `response_flags`, …) and those configured.
    pub tags: BTreeMap<String, String>,
    /// The request failed.
    pub error: bool,
}

/// What is carried from hop to hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    pub(crate) parent_id: Option<u64>,
    pub(crate) sampled: bool,
}

const B3: HeaderName = HeaderName::from_static("b3");
const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl Context {
    /// A new trace.
    pub(crate) fn root(sampled: bool) -> Self {
        let mut rng = rand::rng();
        Self { trace_id: rng.random::<u128>().max(1), span_id: rng.random::<u64>().max(1), parent_id: None, sampled }
    }

    /// A span within this one.
    pub(crate) fn child(self) -> Self {
        Self { span_id: rand::rng().random::<u64>().max(1), parent_id: Some(self.span_id), ..self }
    }

    /// The caller's context: the exporter's own headers first, the other format's else. `default_sampled` decides when the caller
    /// left it open.
    pub(crate) fn extract(headers: &HeaderMap, exporter: SpanExporter, default_sampled: impl Fn() -> bool) -> Option<Self> {
        let b3 = || extract_b3(headers, &default_sampled);
        let w3c = || extract_w3c(headers);
        match exporter {
            SpanExporter::Zipkin => b3().or_else(w3c),
            SpanExporter::OtlpGrpc | SpanExporter::OtlpHttp => w3c().or_else(b3),
        }
    }

    /// Puts this context into a request.
    pub(crate) fn inject(self, headers: &mut HeaderMap, exporter: SpanExporter) {
        match exporter {
            SpanExporter::Zipkin => {
                // In one buffer that is shared from the beginning: a copy for a retry then allocates nothing.
                let mut text = BytesMut::with_capacity(64);
                text.extend_from_slice(&digits((self.trace_id >> 64) as u64));
                text.extend_from_slice(&digits(self.trace_id as u64));
                text.extend_from_slice(&digits(self.span_id));
                text.extend_from_slice(&digits(self.parent_id.unwrap_or_default()));
                let mut trace = text.split_to(32);
                if self.trace_id >> 64 == 0 {
                    trace.advance(16);
                }
                set(headers, TRACE_ID, trace.freeze());
                set(headers, SPAN_ID, text.split_to(16).freeze());
                match self.parent_id {
                    Some(_) => set(headers, PARENT_ID, text.freeze()),
                    None => drop(headers.remove(PARENT_ID)),
                }
                headers.insert(SAMPLED, HeaderValue::from_static(if self.sampled { "1" } else { "0" }));
            }
            SpanExporter::OtlpGrpc | SpanExporter::OtlpHttp => {
                let mut value = *b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-00";
                value[3..19].copy_from_slice(&digits((self.trace_id >> 64) as u64));
                value[19..35].copy_from_slice(&digits(self.trace_id as u64));
                value[36..52].copy_from_slice(&digits(self.span_id));
                value[54] += u8::from(self.sampled);
                set(headers, TRACEPARENT, Bytes::copy_from_slice(&value));
            }
        }
    }
}

/// Every request that is traced or could have been passes here: formatting by `fmt` was a hundredth of its CPU.
fn digits(mut number: u64) -> [u8; 16] {
    let mut digits = [b'0'; 16];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
    digits
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Bytes) {
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        headers.insert(name, value);
    }
}

fn hexadecimal(text: &str, lengths: &[usize]) -> Option<u128> {
    if !lengths.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().filter(|id| *id != 0)
}

fn extract_b3(headers: &HeaderMap, default_sampled: impl Fn() -> bool) -> Option<Context> {
    if let Some(single) = headers.get(B3).and_then(|value| value.to_str().ok()) {
        let mut parts = single.split('-');
        let trace_id = hexadecimal(parts.next()?, &[16, 32])?;
        let span_id = hexadecimal(parts.next()?, &[16])? as u64;
        let sampled = match parts.next() {
            Some("1" | "d") => true,
            Some("0") => false,
            _ => default_sampled(),
        };
        return Some(Context { trace_id, span_id, parent_id: None, sampled });
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let trace_id = hexadecimal(text(TRACE_ID)?, &[16, 32])?;
    let span_id = hexadecimal(text(SPAN_ID)?, &[16])? as u64;
    let parent_id = text(PARENT_ID).and_then(|id| hexadecimal(id, &[16])).map(|id| id as u64);
    let sampled = match text(SAMPLED) {
        Some("1" | "true") => true,
        Some("0" | "false") => false,
        _ => default_sampled(),
    };
    Some(Context { trace_id, span_id, parent_id, sampled })
}

fn extract_w3c(headers: &HeaderMap) -> Option<Context> {
    let mut parts = headers.get(TRACEPARENT)?.to_str().ok()?.split('-');
    let version = parts.next()?;
    if version.len() != 2 || version == "ff" {
        return None;
    }
    let trace_id = hexadecimal(parts.next()?, &[32])?;
    let span_id = hexadecimal(parts.next()?, &[16])? as u64;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    Some(Context { trace_id, span_id, parent_id: None, sampled: flags & 1 == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_50_zipkin_uses_b3_headers_and_otlp_w3c() {
        let mut headers = HeaderMap::new();
        let context = Context { trace_id: 0xabc, span_id: 0xdef, parent_id: Some(1), sampled: true };
        context.inject(&mut headers, SpanExporter::Zipkin);
        assert_eq!(headers["x-b3-traceid"], "0000000000000abc");
        assert_eq!(headers["x-b3-parentspanid"], "0000000000000001");
        assert_eq!(Context::extract(&headers, SpanExporter::Zipkin, || false), Some(context));
        headers.clear();
        context.inject(&mut headers, SpanExporter::OtlpHttp);
        assert_eq!(headers["traceparent"], "00-00000000000000000000000000000abc-0000000000000def-01");
        assert_eq!(Context::extract(&headers, SpanExporter::OtlpGrpc, || false), Some(Context { parent_id: None, ..context }));
    }

    #[test]
    fn malformed_trace_headers_are_no_context() {
        for bad in ["", "00-0-0-01", "ff-00000000000000000000000000000abc-0000000000000def-01", "zz"] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_str(bad).unwrap());
            assert_eq!(Context::extract(&headers, SpanExporter::OtlpHttp, || true), None, "{bad}");
        }
    }
}
