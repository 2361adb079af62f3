//! Envoy's command operators (`%REQ(X)%`, `%UPSTREAM_HOST%`), compiled.
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators>

use std::fmt::Write;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::Telemetry;
use crate::matching::header_name;
use crate::stream::StreamInfo;

/// What operators see.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) info: &'a StreamInfo,
    pub(crate) telemetry: &'a Telemetry,
    /// The request's headers while they are at hand; afterwards those that were captured are used.
    pub(crate) request_headers: Option<&'a HeaderMap>,
    pub(crate) response_headers: Option<&'a HeaderMap>,
}

/// A compiled format.
#[derive(Debug, Clone)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
    /// Written for what is absent: `-` in logs, nothing in headers.
    absent: &'static str,
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(String),
    Operator { operator: Operator, limit: Option<usize> },
}

#[derive(Debug, Clone)]
enum HeaderPlace {
    Method,
    Path,
    Authority,
    Scheme,
    Named(HeaderName),
}

#[derive(Debug, Clone)]
enum Operator {
    StartTime(Option<String>),
    Request(Vec<HeaderPlace>),
    RequestWithoutQuery(Vec<HeaderPlace>),
    Response(Vec<HeaderName>),
    Environment(String),
    Simple(Simple),
    /// Not known: shown as absent.
    Absent,
}

#[derive(Debug, Clone, Copy)]
enum Simple {
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamRemotePort,
    RequestedServerName,
    RouteName,
    PeerUriSan,
    LocalUriSan,
    PeerSubject,
    TlsVersion,
    UpstreamPeerUriSan,
    GrpcStatus,
    GrpcStatusNumber,
    AttemptCount,
    ConnectionId,
    StreamId,
}

impl Format {
    /// A log format.
    pub(crate) fn log(text: &str) -> Self {
        Self { pieces: parse(text), absent: "-" }
    }

    /// A header's value.
    pub(crate) fn header(text: &str) -> Self {
        Self { pieces: parse(text), absent: "" }
    }

    /// The headers that will be needed after the request has gone.
    pub(crate) fn captures(&self, request: &mut Vec<HeaderName>, response: &mut Vec<HeaderName>) {
        for piece in &self.pieces {
            match piece {
                Piece::Operator { operator: Operator::Request(places) | Operator::RequestWithoutQuery(places), .. } => {
                    request.extend(places.iter().filter_map(|place| match place {
                        HeaderPlace::Named(name) => Some(name.clone()),
                        _ => None,
                    }));
                }
                Piece::Operator { operator: Operator::Response(names), .. } => response.extend(names.iter().cloned()),
                _ => {}
            }
        }
    }

    pub(crate) fn write(&self, view: View<'_>, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Operator { operator, limit } => {
                    let start = out.len();
                    if !operator.write(view, out) {
                        out.push_str(self.absent);
                    }
                    if let Some(limit) = limit
                        && out.len() > start + limit
                    {
                        let mut end = start + limit;
                        while !out.is_char_boundary(end) {
                            end -= 1;
                        }
                        out.truncate(end);
                    }
                }
            }
        }
    }

    /// As a JSON value: an operator alone keeps its type, and is `null` when absent.
    pub(crate) fn write_json(&self, view: View<'_>, out: &mut String) {
        let mut text = String::new();
        if let [Piece::Operator { operator, .. }] = &self.pieces[..] {
            if !operator.write(view, &mut text) {
                out.push_str("null");
                return;
            }
            if operator.is_number() {
                out.push_str(&text);
                return;
            }
        } else {
            self.write(view, &mut text);
        }
        out.push_str(&serde_json::Value::String(text).to_string());
    }
}

/// Text that is not an operator stays as it is.
fn parse(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        literal.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let Some(end) = operator_end(rest) else {
            literal.push('%');
            continue;
        };
        let operator = parse_operator(&rest[..end]);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(operator);
        rest = &rest[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

/// Where an operator ends; a `%` in its parentheses (a time format) does not end it.
fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '%' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn parse_operator(text: &str) -> Piece {
    let (body, limit) = match text.rsplit_once(':') {
        Some((body, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (body, digits.parse().ok())
        }
        _ => (text, None),
    };
    let (name, argument) = match body.split_once('(') {
        Some((name, argument)) => (name, argument.strip_suffix(')')),
        None => (body, None),
    };
    use Simple as S;
    let simple = |simple| Operator::Simple(simple);
    let operator = match (name, argument) {
        // Envoy's own digits of fractions of seconds.
        ("START_TIME", format) => {
            Operator::StartTime(format.map(|format| format.replace("%E3S", "%S%.3f").replace("%E6S", "%S%.6f")))
        }
        ("REQ", Some(names)) => Operator::Request(places(names)),
        ("REQ_WITHOUT_QUERY", Some(names)) => Operator::RequestWithoutQuery(places(names)),
        ("RESP", Some(names)) => Operator::Response(names.split('?').filter_map(|name| header_name(name).ok()).collect()),
        ("ENVIRONMENT", Some(name)) => Operator::Environment(name.to_owned()),
        ("PROTOCOL", _) => simple(S::Protocol),
        ("RESPONSE_CODE", _) => simple(S::ResponseCode),
        ("RESPONSE_FLAGS", _) => simple(S::ResponseFlags),
        ("RESPONSE_CODE_DETAILS", _) => simple(S::ResponseCodeDetails),
        ("CONNECTION_TERMINATION_DETAILS", _) => simple(S::ConnectionTerminationDetails),
        ("UPSTREAM_TRANSPORT_FAILURE_REASON", _) => simple(S::UpstreamTransportFailureReason),
        ("BYTES_RECEIVED", _) => simple(S::BytesReceived),
        ("BYTES_SENT", _) => simple(S::BytesSent),
        ("DURATION", _) => simple(S::Duration),
        ("UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS", _) => simple(S::UpstreamHost),
        ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", _) => simple(S::UpstreamCluster),
        ("UPSTREAM_LOCAL_ADDRESS", _) => simple(S::UpstreamLocalAddress),
        ("DOWNSTREAM_LOCAL_ADDRESS", _) => simple(S::DownstreamLocalAddress),
        ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", _) => simple(S::DownstreamLocalAddressWithoutPort),
        ("DOWNSTREAM_LOCAL_PORT", _) => simple(S::DownstreamLocalPort),
        ("DOWNSTREAM_REMOTE_ADDRESS", _) => simple(S::DownstreamRemoteAddress),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", _) => simple(S::DownstreamRemoteAddressWithoutPort),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", _) => simple(S::DownstreamDirectRemoteAddress),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", _) => simple(S::DownstreamDirectRemoteAddressWithoutPort),
        ("DOWNSTREAM_REMOTE_PORT", _) => simple(S::DownstreamRemotePort),
        ("REQUESTED_SERVER_NAME", _) => simple(S::RequestedServerName),
        ("ROUTE_NAME", _) => simple(S::RouteName),
        ("DOWNSTREAM_PEER_URI_SAN", _) => simple(S::PeerUriSan),
        ("DOWNSTREAM_LOCAL_URI_SAN", _) => simple(S::LocalUriSan),
        ("DOWNSTREAM_PEER_SUBJECT", _) => simple(S::PeerSubject),
        ("DOWNSTREAM_TLS_VERSION", _) => simple(S::TlsVersion),
        ("UPSTREAM_PEER_URI_SAN", _) => simple(S::UpstreamPeerUriSan),
        ("GRPC_STATUS", _) => simple(S::GrpcStatus),
        ("GRPC_STATUS_NUMBER", _) => simple(S::GrpcStatusNumber),
        ("UPSTREAM_REQUEST_ATTEMPT_COUNT", _) => simple(S::AttemptCount),
        ("CONNECTION_ID", _) => simple(S::ConnectionId),
        ("STREAM_ID", _) => simple(S::StreamId),
        _ => Operator::Absent,
    };
    Piece::Operator { operator, limit }
}

fn places(names: &str) -> Vec<HeaderPlace> {
    names
        .split('?')
        .filter_map(|name| match name.to_ascii_lowercase().as_str() {
            ":method" => Some(HeaderPlace::Method),
            ":path" => Some(HeaderPlace::Path),
            ":authority" | "host" => Some(HeaderPlace::Authority),
            ":scheme" => Some(HeaderPlace::Scheme),
            name => header_name(name).ok().map(HeaderPlace::Named),
        })
        .collect()
}

impl View<'_> {
    pub(crate) fn request_header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        match self.request_headers {
            Some(headers) => headers.get(name),
            None => captured(&self.telemetry.request_captures, &self.info.request_captures, name),
        }
    }

    pub(crate) fn response_header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        match self.response_headers {
            Some(headers) => headers.get(name),
            None => captured(&self.telemetry.response_captures, &self.info.response_captures, name),
        }
    }
}

fn captured<'a>(names: &[HeaderName], values: &'a [Option<HeaderValue>], name: &HeaderName) -> Option<&'a HeaderValue> {
    let index = names.iter().position(|captured| captured == name)?;
    values.get(index)?.as_ref()
}

fn push_decimal(mut number: u64, out: &mut String) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(digits[start..].iter().map(|digit| char::from(*digit)));
}

fn push_header(value: &HeaderValue, out: &mut String) {
    match value.to_str() {
        Ok(text) => out.push_str(text),
        Err(_) => out.push_str(&String::from_utf8_lossy(value.as_bytes())),
    }
}

impl HeaderPlace {
    fn write(&self, view: View<'_>, out: &mut String, without_query: bool) -> bool {
        let http = view.info.http.as_ref();
        let text = match self {
            Self::Method => http.map(|http| http.method.as_str()),
            Self::Path => http.map(|http| http.path.as_str()),
            Self::Authority => http.map(|http| http.authority.as_str()),
            Self::Scheme => http.map(|http| http.scheme),
            Self::Named(name) => {
                let Some(value) = view.request_header(name) else { return false };
                push_header(value, out);
                return true;
            }
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else { return false };
        out.push_str(if without_query { text.split('?').next().unwrap_or(text) } else { text });
        true
    }
}

impl Operator {
    fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Simple(
                Simple::ResponseCode
                    | Simple::BytesReceived
                    | Simple::BytesSent
                    | Simple::Duration
                    | Simple::GrpcStatusNumber
                    | Simple::AttemptCount
                    | Simple::ConnectionId
                    | Simple::DownstreamLocalPort
                    | Simple::DownstreamRemotePort
            )
        )
    }

    /// Writes the value; `false` if there is none.
    fn write(&self, view: View<'_>, out: &mut String) -> bool {
        match self {
            Self::StartTime(format) => write_time(view.info.started_at, format.as_deref(), out),
            Self::Request(places) => places.iter().any(|place| place.write(view, out, false)),
            Self::RequestWithoutQuery(places) => places.iter().any(|place| place.write(view, out, true)),
            Self::Response(names) => match names.iter().find_map(|name| view.response_header(name)) {
                Some(value) => {
                    push_header(value, out);
                    true
                }
                None => false,
            },
            Self::Environment(name) => match view.telemetry.environment.get(name) {
                Some(value) => {
                    out.push_str(value);
                    true
                }
                None => false,
            },
            Self::Simple(simple) => simple.write(view, out).is_some(),
            Self::Absent => false,
        }
    }
}

impl Simple {
    fn write(self, view: View<'_>, out: &mut String) -> Option<()> {
        let info = view.info;
        let connection = &info.connection;
        let not_empty = |text: &str| (!text.is_empty()).then_some(());
        macro_rules! number {
            ($value:expr) => {{
                // Writing to a string cannot fail.
                let _ = write!(out, "{}", $value);
                return Some(());
            }};
        }
        // The numbers of every line, without what `fmt` does for any number.
        macro_rules! decimal {
            ($value:expr) => {{
                push_decimal(u64::from($value), out);
                return Some(());
            }};
        }
        let text: &str = match self {
            Self::Protocol => protocol_name(info.http.as_ref()?.version),
            Self::ResponseCode => decimal!(info.status),
            Self::ResponseFlags => number!(info.flags),
            Self::ResponseCodeDetails => {
                not_empty(&info.details)?;
                &info.details
            }
            Self::ConnectionTerminationDetails => info.termination_details.as_deref()?,
            Self::UpstreamTransportFailureReason => info.transport_failure.as_deref()?,
            Self::BytesReceived => decimal!(info.bytes_received),
            Self::BytesSent => decimal!(info.bytes_sent),
            Self::Duration => number!(info.started.elapsed().as_millis()),
            Self::UpstreamHost => &info.host.as_ref()?.address_text,
            Self::UpstreamCluster => &info.cluster.as_ref()?.name,
            Self::UpstreamLocalAddress => &info.upstream.as_ref()?.local_text,
            Self::DownstreamLocalAddress => &connection.local_text,
            Self::DownstreamLocalAddressWithoutPort => number!(connection.local.ip()),
            Self::DownstreamLocalPort => number!(connection.local.port()),
            // Of a client behind trusted proxies the port is not known.
            Self::DownstreamRemoteAddress => match info.remote {
                Some(remote) => number!(SocketAddr::new(remote, 0)),
                None => &connection.peer_text,
            },
            Self::DownstreamRemoteAddressWithoutPort => number!(info.remote.unwrap_or(connection.peer.ip())),
            Self::DownstreamDirectRemoteAddress => &connection.peer_text,
            Self::DownstreamDirectRemoteAddressWithoutPort => number!(connection.peer.ip()),
            Self::DownstreamRemotePort => number!(connection.peer.port()),
            Self::RequestedServerName => connection.server_name.as_deref()?,
            Self::RouteName => {
                let name = &info.route.as_ref()?.name;
                not_empty(name)?;
                name
            }
            Self::PeerUriSan => connection.tls.as_ref()?.certificate.as_ref()?.uri_names.first()?,
            Self::LocalUriSan => connection.tls.as_ref()?.local_identity.as_deref()?,
            Self::PeerSubject => &connection.tls.as_ref()?.certificate.as_ref()?.subject,
            Self::TlsVersion => connection.tls.as_ref()?.version,
            Self::UpstreamPeerUriSan => info.upstream.as_ref()?.peer_certificate.as_ref()?.uri_names.first()?,
            Self::GrpcStatus => grpc_name(info.grpc_status_in_effect()?),
            Self::GrpcStatusNumber => number!(info.grpc_status_in_effect()?),
            Self::AttemptCount => number!(info.attempts),
            Self::ConnectionId => number!(connection.id),
            Self::StreamId => info.http.as_ref()?.request_id.as_ref()?.to_str().ok()?,
        };
        out.push_str(text);
        Some(())
    }
}

/// `HTTP/1.1`, as logs write it.
pub(crate) fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn grpc_name(status: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(status as usize).copied().unwrap_or("InvalidCode")
}

fn write_time(time: std::time::SystemTime, format: Option<&str>, out: &mut String) -> bool {
    let Ok(timestamp) = jiff::Timestamp::try_from(time) else { return false };
    let Some(format) = format else {
        // The default is in every line of Istio's logs. Writing to a string cannot fail.
        let _ = write!(out, "{timestamp:.3}");
        return true;
    };
    match jiff::fmt::strtime::format(format, &timestamp.to_zoned(jiff::tz::TimeZone::UTC)) {
        Ok(text) => {
            out.push_str(&text);
            true
        }
        Err(_) => false,
    }
}
