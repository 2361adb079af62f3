//! CUSTOM policies: an external authorizer decides, over HTTP or over Envoy's gRPC service.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use meshlab_proxy_config::{AuthorizerProtocol, ExternalAuthorizer};

use super::CustomPolicy;
use crate::cluster::Cluster;
use crate::cluster::members::Choice;
use crate::flags::Flags;
use crate::http::body::{ClientBody, RequestBody};
use crate::http::edge;
use crate::http::local_reply::LocalReply;
use crate::matching::{MatchError, StringMatcher};
use crate::options::milliseconds;
use crate::snapshot::Snapshot;
use crate::stream::StreamInfo;

/// Longest answer of an authorizer that is passed on.
const MAXIMUM_ANSWER: usize = 1024 * 1024;

/// Whether an authorizer got a part of the body only.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// A compiled provider.
pub(crate) struct Authorizer {
    config: ExternalAuthorizer,
    include_request_headers: Vec<StringMatcher>,
    headers_to_upstream: Vec<StringMatcher>,
    headers_to_downstream: Vec<StringMatcher>,
}

/// What an authorizer's OK changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    set: Vec<(HeaderName, HeaderValue)>,
    append: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Changes {
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        for (name, value) in self.set {
            headers.insert(name, value);
        }
        for (name, value) in self.append {
            headers.append(name, value);
        }
        for name in self.remove {
            headers.remove(name);
        }
    }
}

impl Authorizer {
    pub(super) fn new(config: &ExternalAuthorizer) -> Result<Self, MatchError> {
        let compile = |matches: &[meshlab_proxy_config::StringMatch]| {
            matches.iter().map(StringMatcher::new).collect::<Result<Vec<_>, MatchError>>()
        };
        Ok(Self {
            include_request_headers: compile(&config.include_request_headers)?,
            headers_to_upstream: compile(&config.headers_to_upstream)?,
            headers_to_downstream: compile(&config.headers_to_downstream)?,
            config: config.clone(),
        })
    }
}

fn fits(matchers: &[StringMatcher], name: &HeaderName) -> bool {
    matchers.iter().any(|matcher| matcher.matches_ignoring_case(name.as_str()))
}

#[expect(clippy::too_many_arguments, reason = "the parts of a request, which the authorizer is asked about")]
/// Asks the authorizer of `policy`. Changes to the request if it agrees, the answer to the client if not.
pub(crate) async fn ask(
    policy: &CustomPolicy,
    snapshot: &Snapshot,
    info: &StreamInfo,
    method: &Method,
    path: &str,
    authority: &HeaderValue,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Changes, LocalReply> {
    let authorizer = &policy.authorizer;
    let config = &authorizer.config;
    let limit = milliseconds(config.timeout_ms.max(1));
    let question = async {
        let cluster = snapshot.clusters.get(&config.cluster).ok_or("cluster not found")?;
        match config.protocol {
            AuthorizerProtocol::Http => authorizer.ask_http(cluster, method, path, authority, headers, body).await,
            AuthorizerProtocol::Grpc => authorizer.ask_grpc(cluster, info, method, path, authority, headers, &body).await,
        }
    };
    let failure = match tokio::time::timeout(limit, question).await {
        Ok(Ok(verdict)) => return verdict,
        Ok(Err(reason)) => reason,
        Err(_) => "timeout".to_owned(),
    };
    tracing::debug!(cluster = %config.cluster, %failure, "external authorizer gave no answer");
    if config.fail_open {
        return Ok(Changes::default());
    }
    let status = if (400..600).contains(&config.status_on_error) { config.status_on_error } else { 403 };
    Err(LocalReply::new(status, "ext_authz_error").flag(Flags::UNAUTHORIZED_EXTERNAL_SERVICE))
}

fn denied(status: u16) -> LocalReply {
    LocalReply::new(status, "ext_authz_denied").flag(Flags::UNAUTHORIZED_EXTERNAL_SERVICE)
}

impl Authorizer {
    /// What of the body is sent along: all of it, or nothing where the provider does not want it. A longer one is refused, as
    /// Envoy does when no part of a message is allowed.
    pub(crate) async fn buffer(&self, body: &mut ClientBody, headers: &HeaderMap) -> Result<Bytes, LocalReply> {
        let limit = self.config.max_body_bytes as usize;
        if limit == 0 || headers.contains_key(header::UPGRADE) {
            return Ok(Bytes::new());
        }
        match body.read_ahead(limit).await {
            Ok(Some(whole)) => Ok(whole),
            Ok(None) => Err(LocalReply::new(413, "request_payload_too_large").body("Payload Too Large")),
            Err(_) => Err(LocalReply::new(400, "downstream_remote_reset").close()),
        }
    }

    async fn ask_http(
        &self,
        cluster: &Arc<Cluster>,
        method: &Method,
        path: &str,
        authority: &HeaderValue,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Result<Changes, LocalReply>, String> {
        let target = format!("{}{path}", self.config.path_prefix);
        let length = body.len();
        let mut request = Request::new(if body.is_empty() { RequestBody::Empty } else { RequestBody::Whole(Some(body)) });
        *request.method_mut() = method.clone();
        *request.uri_mut() = target.parse().map_err(|_| "the path cannot be sent")?;
        request.headers_mut().insert(header::HOST, authority.clone());
        for (name, value) in headers {
            // Envoy always sends this one along.
            if *name == header::AUTHORIZATION || fits(&self.include_request_headers, name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        let sent = request.headers_mut();
        sent.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        // As Envoy's own client does.
        sent.insert(edge::INTERNAL, HeaderValue::from_static("true"));
        sent.insert(edge::EXPECTED_TIMEOUT, HeaderValue::from(self.config.timeout_ms));
        if length > 0 {
            sent.insert(PARTIAL_BODY, HeaderValue::from_static("false"));
        }
        let started = Instant::now();
        let host = choose(cluster).await?;
        let mut connection = cluster.http1(&host).await.map_err(|error| format!("{error:?}"))?;
        let response = connection.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let service_time = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (parts, body) = response.into_parts();
        let body = collect(body).await?;
        cluster.release(&host, connection);
        let status = parts.status.as_u16();
        if status == 200 {
            let set = parts
                .headers
                .iter()
                .filter(|(name, _)| fits(&self.headers_to_upstream, name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            return Ok(Ok(Changes { set, ..Changes::default() }));
        }
        if status >= 500 {
            return Err(format!("status {status}"));
        }
        let mut reply = denied(status).body(String::from_utf8_lossy(&body).into_owned());
        for (name, value) in &parts.headers {
            let always = [header::LOCATION, header::WWW_AUTHENTICATE, header::PROXY_AUTHENTICATE, header::SET_COOKIE];
            let kept = if self.headers_to_downstream.is_empty() {
                *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING && *name != header::CONNECTION
            } else {
                fits(&self.headers_to_downstream, name) || always.contains(name)
            };
            if kept {
                reply.headers.append(name, value.clone());
            }
        }
        if self.headers_to_downstream.is_empty() {
            reply.headers.insert(edge::SERVICE_TIME, HeaderValue::from(service_time));
        }
        Ok(Err(reply))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a request, which the authorizer is asked about")]
    async fn ask_grpc(
        &self,
        cluster: &Arc<Cluster>,
        info: &StreamInfo,
        method: &Method,
        path: &str,
        authority: &HeaderValue,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Result<Changes, LocalReply>, String> {
        let message = proto::check_request(info, method, path, authority, headers, body);
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority =
            Authority::try_from(cluster.config.service.host.as_str()).ok().or_else(|| Some(Authority::from_static("ext-authz")));
        uri.path_and_query = Some(PathAndQuery::from_static("/envoy.service.auth.v3.Authorization/Check"));
        let mut request = Request::new(RequestBody::Whole(Some(framed.into())));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|error| error.to_string())?;
        let sent = request.headers_mut();
        sent.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        sent.insert(header::TE, HeaderValue::from_static("trailers"));
        let host = choose(cluster).await?;
        let connection = cluster.http2(&host).await.map_err(|error| format!("{error:?}"))?;
        let response = connection.sender.clone().send_request(request).await.map_err(|error| error.to_string())?;
        let in_head = crate::telemetry::grpc::status(response.headers());
        let collected = Limited::new(response.into_body(), MAXIMUM_ANSWER).collect().await.map_err(|error| error.to_string())?;
        let status = in_head.or_else(|| collected.trailers().and_then(crate::telemetry::grpc::status));
        if status != Some(0) {
            return Err(format!("gRPC status {status:?}"));
        }
        let mut body = collected.to_bytes();
        if body.len() < 5 {
            return Err("the answer is empty".to_owned());
        }
        body.advance(5);
        proto::verdict(&body).ok_or_else(|| "the answer is not a CheckResponse".to_owned())
    }
}

async fn choose(cluster: &Arc<Cluster>) -> Result<Arc<crate::cluster::host::Host>, String> {
    cluster.warmed().await;
    cluster.choose(Choice::default()).ok_or_else(|| "no healthy upstream".to_owned())
}

async fn collect(body: hyper::body::Incoming) -> Result<Bytes, String> {
    Ok(Limited::new(body, MAXIMUM_ANSWER).collect().await.map_err(|error| error.to_string())?.to_bytes())
}

/// The few messages of `envoy.service.auth.v3` that are needed, in protobuf's wire format.
mod proto {
    use super::{Changes, HeaderMap, HeaderName, HeaderValue, LocalReply, Method, StreamInfo, denied};
    use crate::telemetry::wire::{Reader, bytes_field, varint_field};

    fn address(ip: std::net::SocketAddr) -> Vec<u8> {
        // Address.socket_address = 1; SocketAddress.address = 2, port_value = 3.
        let mut socket = bytes_field(2, ip.ip().to_string().as_bytes());
        socket.extend(varint_field(3, u64::from(ip.port())));
        bytes_field(1, &socket)
    }

    /// AttributeContext.Peer: address = 1, principal = 4.
    fn peer(ip: std::net::SocketAddr, principal: Option<&str>) -> Vec<u8> {
        let mut peer = bytes_field(1, &address(ip));
        peer.extend(principal.map(|principal| bytes_field(4, principal.as_bytes())).unwrap_or_default());
        peer
    }

    pub(super) fn check_request(
        info: &StreamInfo,
        method: &Method,
        path: &str,
        authority: &HeaderValue,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Vec<u8> {
        let connection = &info.connection;
        // HttpRequest: id = 1, method = 2, headers = 3, path = 4, host = 5, scheme = 6, protocol = 10, body = 11.
        let mut http = bytes_field(2, method.as_str().as_bytes());
        let pseudo = [(":method", method.as_str().as_bytes()), (":path", path.as_bytes()), (":authority", authority.as_bytes())];
        let named = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        for (name, value) in pseudo.into_iter().chain(named) {
            let mut entry = bytes_field(1, name.as_bytes());
            entry.extend(bytes_field(2, String::from_utf8_lossy(value).as_bytes()));
            http.extend(bytes_field(3, &entry));
        }
        http.extend(bytes_field(4, path.as_bytes()));
        http.extend(bytes_field(5, authority.as_bytes()));
        if !body.is_empty() {
            http.extend(bytes_field(11, String::from_utf8_lossy(body).as_bytes()));
        }
        if let Some(facts) = &info.http {
            http.extend(bytes_field(6, facts.scheme.as_bytes()));
            http.extend(bytes_field(10, crate::telemetry::format::protocol_name(facts.version).as_bytes()));
        }
        // AttributeContext: source = 1, destination = 2, request = 4; Request.http = 2. CheckRequest.attributes = 1.
        let local = connection.tls.as_ref().and_then(|tls| tls.local_identity.as_deref());
        let mut context = bytes_field(1, &peer(connection.peer, connection.peer_identity()));
        context.extend(bytes_field(2, &peer(connection.local, local)));
        context.extend(bytes_field(4, &bytes_field(2, &http)));
        bytes_field(1, &context)
    }

    /// HeaderValueOption: header = 1 (key = 1, value = 2, raw_value = 3), append = 2 (BoolValue), append_action = 3.
    fn header_option(bytes: &[u8]) -> Option<(HeaderName, HeaderValue, bool)> {
        let (mut name, mut value, mut append) = (None, None, false);
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next() {
            match (field.number, field.bytes) {
                (1, Some(header)) => {
                    let mut inner = Reader::new(header);
                    while let Some(field) = inner.next() {
                        match (field.number, field.bytes) {
                            (1, Some(key)) => name = HeaderName::from_bytes(key).ok(),
                            (2 | 3, Some(text)) if !text.is_empty() => value = HeaderValue::from_bytes(text).ok(),
                            _ => {}
                        }
                    }
                }
                (2, Some(flag)) => append = Reader::new(flag).next().is_some_and(|field| field.value == 1),
                _ => {}
            }
        }
        Some((name?, value?, append))
    }

    /// CheckResponse: status = 1, denied_response = 2, ok_response = 3.
    pub(super) fn verdict(bytes: &[u8]) -> Option<Result<Changes, LocalReply>> {
        let (mut code, mut ok, mut refused) = (0, None, None);
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next() {
            match (field.number, field.bytes) {
                (1, Some(status)) => {
                    let mut inner = Reader::new(status);
                    while let Some(field) = inner.next() {
                        if field.number == 1 {
                            code = field.value;
                        }
                    }
                }
                (2, Some(response)) => refused = Some(response),
                (3, Some(response)) => ok = Some(response),
                _ => {}
            }
        }
        if reader.failed() {
            return None;
        }
        if code == 0 {
            // OkHttpResponse: headers = 2, headers_to_remove = 5.
            let mut changes = Changes::default();
            let mut reader = Reader::new(ok.unwrap_or_default());
            while let Some(field) = reader.next() {
                match (field.number, field.bytes) {
                    (2, Some(option)) => {
                        if let Some((name, value, append)) = header_option(option) {
                            if append { changes.append.push((name, value)) } else { changes.set.push((name, value)) }
                        }
                    }
                    (5, Some(name)) => changes.remove.extend(HeaderName::from_bytes(name).ok()),
                    _ => {}
                }
            }
            return Some(Ok(changes));
        }
        // DeniedHttpResponse: status = 1 (HttpStatus.code = 1), headers = 2, body = 3.
        let mut reply = denied(403);
        let mut reader = Reader::new(refused.unwrap_or_default());
        while let Some(field) = reader.next() {
            match (field.number, field.bytes) {
                (1, Some(status)) => {
                    let code = Reader::new(status).next().map_or(403, |field| field.value);
                    reply.status = u16::try_from(code).ok().filter(|code| (200..600).contains(code)).unwrap_or(403);
                }
                (2, Some(option)) => {
                    if let Some((name, value, _)) = header_option(option) {
                        reply.headers.append(name, value);
                    }
                }
                (3, Some(body)) => reply.body = String::from_utf8_lossy(body).into_owned().into(),
                _ => {}
            }
        }
        Some(Err(reply))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_of_an_authorizer_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = super::proto::verdict(&bytes);
        }
    }
}
