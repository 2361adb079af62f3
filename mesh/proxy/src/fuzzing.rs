//! The parsers of what peers send, for the fuzz targets in `fuzz/`.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use meshlab_proxy_config::{JwtRule, Origin, PathNormalization, SpanExporter, TelemetryConfig};

use crate::access::HttpAccess;
use crate::http::guard::Framing;
use crate::http::path::normalize;
use crate::listener::sniff::look;
use crate::tcp::peer_exchange::{Heard, hear};
use crate::telemetry::Telemetry;
use crate::telemetry::filter::Filter;
use crate::telemetry::grpc::MessageCounter;
use crate::telemetry::peer::{Peer, Peers};
use crate::telemetry::span::Context;
use crate::tls::peer::{PeerCertificate, namespace_and_account, principal, trust_domain};

/// What a connection begins with.
pub fn first_bytes(seen: &[u8]) {
    let _ = look(seen, false);
    let _ = look(seen, true);
}

/// HTTP/1 framing, whole and byte by byte.
///
/// # Panics
/// The verdict depends on how the bytes are cut.
pub fn http1_framing(bytes: &[u8]) {
    let limit = 4096;
    let whole = Framing::new(limit).feed(bytes);
    let mut framing = Framing::new(limit);
    let pieces = bytes.chunks(1).try_for_each(|piece| framing.feed(piece));
    assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?}, in pieces {pieces:?}");
}

/// gRPC's length-prefixed messages.
///
/// # Panics
/// The count depends on how the bytes are cut.
pub fn grpc_frames(bytes: &[u8]) {
    let whole = MessageCounter::default().feed(bytes);
    let mut counter = MessageCounter::default();
    for piece in bytes.chunks(1) {
        let _ = counter.feed(piece);
    }
    assert_eq!(whole, counter.feed(&[]));
}

/// `x-envoy-peer-metadata`, and the message that says the same over TCP.
///
/// # Panics
/// What was understood is not what is written, or a message is not as long as it announces.
pub fn peer_metadata(header: &[u8]) {
    use base64::Engine;
    if let Ok(Heard::Message(length)) = hear(header) {
        assert_eq!(hear(&header[..length]).ok(), Some(Heard::Message(length)));
    }
    let _ = Peer::from_exchange(header);
    let encoded = base64::engine::general_purpose::STANDARD.encode(header);
    for header in [header, encoded.as_bytes()] {
        if let Some(peer) = Peer::decode(header) {
            let written = peer.encode();
            assert!(Peer::decode(written.as_bytes()).is_none_or(|again| again == peer), "{written}");
        }
    }
}

/// The headers of a trace: one for each line.
pub fn trace_context(lines: &[u8]) {
    let names = ["traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"];
    let mut headers = HeaderMap::new();
    for (name, line) in names.into_iter().zip(lines.split(|byte| *byte == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    for exporter in [SpanExporter::Zipkin, SpanExporter::OtlpGrpc] {
        if let Some(context) = Context::extract(&headers, exporter, || true) {
            context.child().inject(&mut headers.clone(), exporter);
        }
    }
}

/// A token, where a rule looks for it.
///
/// # Panics
/// The rule of the fuzz target is wrong.
pub fn jwt(token: &str) {
    let rule = JwtRule {
        origin: Origin { kind: String::new(), namespace: String::new(), name: String::new(), path: String::new() },
        issuer: "i".to_owned(),
        audiences: vec!["a".to_owned()],
        jwks: Some(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"},{"kty":"RSA","n":"1f9N4w","e":"AQAB"}]}"#.to_owned()),
        from_headers: vec![("authorization".to_owned(), "Bearer ".to_owned())],
        from_params: vec!["token".to_owned()],
        from_cookies: vec!["token".to_owned()],
        output_payload_to_header: Some("x-payload".to_owned()),
        claim_to_headers: vec![("x-claim".to_owned(), "a.b".to_owned())],
        forward_original_token: false,
        timeout_ms: 0,
    };
    let config = meshlab_proxy_config::HttpAccess { jwt: vec![rule], ..Default::default() };
    let Ok(access) = HttpAccess::new(&config) else { panic!("the rule is good") };
    // The header and the claims as JSON spare the fuzzer base64.
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let readable = token.split('\n').map(encode).collect::<Vec<_>>().join(".");
    for token in [token, &readable] {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", format!("Bearer {token}")), ("cookie", token.to_owned())] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let _ = access.jwt.verify(&mut headers, &mut format!("/path?{token}&token={token}"));
    }
}

/// A key set, as an issuer publishes it.
pub fn jwks(text: &str) {
    let rule = JwtRule {
        origin: Origin { kind: String::new(), namespace: String::new(), name: String::new(), path: String::new() },
        issuer: "i".to_owned(),
        audiences: Vec::new(),
        jwks: Some(text.to_owned()),
        from_headers: vec![("authorization".to_owned(), "Bearer ".to_owned())],
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        claim_to_headers: Vec::new(),
        forward_original_token: false,
        timeout_ms: 0,
    };
    let config = meshlab_proxy_config::HttpAccess { jwt: vec![rule], ..Default::default() };
    let Ok(access) = HttpAccess::new(&config) else { return };
    // {"alg":"..."} with {"iss":"i"} and four bytes for a signature: every key is asked.
    for header in ["eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJFZERTQSJ9"] {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("Bearer {header}.eyJpc3MiOiJpIn0.AAAAAA")) {
            headers.insert(HeaderName::from_static("authorization"), value);
        }
        let _ = access.jwt.verify(&mut headers, &mut "/".to_owned());
    }
}

/// A peer's certificate, DER.
pub fn peer_certificate(der: &[u8]) {
    if let Some(peer) = PeerCertificate::parse(&der.into()) {
        let id = peer.spiffe_id.as_deref().unwrap_or_default();
        let _ = (principal(id), trust_domain(id), namespace_and_account(id));
    }
}

/// A path at every level of normalization.
pub fn request_path(path: &str) {
    for how in [
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ] {
        let _ = normalize(path, how);
    }
}

/// A log format and, after the first newline, its filter.
pub fn access_log_format(text: &str) {
    use meshlab_proxy_config::{AccessLog, LogFormat};
    let (format, filter) = text.split_once('\n').unwrap_or((text, ""));
    let _ = Filter::new(filter);
    let config = TelemetryConfig {
        access_logs: vec![AccessLog { format: LogFormat::Text(format.to_owned()), filter: None, client: None }],
        ..TelemetryConfig::default()
    };
    let _ = Telemetry::new(Arc::new(config), "node", &Peers::new(10));
}
