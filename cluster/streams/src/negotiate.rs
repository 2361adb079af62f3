//! Which protocol an upgrade request asks for, and the answer to it.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::header::{SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, Response, StatusCode};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::outcome::OutcomeFormat;
use crate::websocket::Encoding;
use crate::{PortForward, RemoteCommand, StreamError, WantedStreams, port_forward, remote_command};

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_STREAM_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

/// Ports one WebSocket can forward: each takes two of its 255 channels.
const MAX_PORTS: usize = 64;

/// Why a request cannot be upgraded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UpgradeError {
    /// It asks for no upgrade, or for another protocol.
    #[error("Upgrade request required: send \"Upgrade: websocket\" or \"Upgrade: SPDY/3.1\" over HTTP/1.1")]
    NotAnUpgrade,
    /// A header that the upgrade needs is missing or malformed.
    #[error("unable to upgrade: header {header} is required{expected}")]
    Header {
        /// Name of the header.
        header: &'static str,
        /// What it should be, as text to append.
        expected: &'static str,
    },
    /// Server and client have no protocol in common.
    #[error("unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {accepted:?}")]
    Protocol {
        /// What the client offers.
        offered: Vec<String>,
        /// What this server accepts.
        accepted: Vec<&'static str>,
    },
    /// The query parameter `ports` is missing or malformed.
    #[error("query parameter \"ports\" must list 1 to {MAX_PORTS} port numbers, got {0:?}")]
    Ports(String),
}

impl UpgradeError {
    /// The HTTP status code to answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Protocol { .. } => StatusCode::FORBIDDEN,
            Self::NotAnUpgrade | Self::Header { .. } | Self::Ports(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Headers to answer with: which protocols would have been accepted.
    pub fn headers(&self) -> HeaderMap {
        let accepted = match self {
            Self::Protocol { accepted, .. } => accepted.as_slice(),
            _ => &[],
        };
        accepted.iter().map(|protocol| (ACCEPTED_STREAM_PROTOCOLS, HeaderValue::from_static(protocol))).collect()
    }
}

/// An exec or attach request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteCommandUpgrade {
    answer: Answer,
    version: CommandProtocol,
}

/// A port-forward request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortForwardUpgrade {
    answer: Answer,
    version: ForwardProtocol,
}

/// The variants of exec and attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandProtocol {
    /// Channels are WebSocket messages. From v5 on a client can close its standard input.
    WebSocket { encoding: Encoding, outcome: OutcomeFormat, close_signal: bool },
    /// Channels are SPDY streams. Before v3 there is none for terminal sizes.
    Spdy { outcome: OutcomeFormat, resize: bool },
}

/// The variants of port-forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForwardProtocol {
    /// Two WebSocket channels for each of these ports.
    WebSocket { encoding: Encoding, ports: Vec<u16> },
    /// Two SPDY streams for each connection, bare or within WebSocket messages.
    Spdy { tunnelled: bool },
}

/// The protocols of exec and attach over WebSocket, with what they mean.
const WEBSOCKET_COMMANDS: &[(&str, CommandProtocol)] = &[
    ("v5.channel.k8s.io", websocket(Encoding::Binary, OutcomeFormat::Status, true)),
    ("v4.channel.k8s.io", websocket(Encoding::Binary, OutcomeFormat::Status, false)),
    ("v4.base64.channel.k8s.io", websocket(Encoding::Base64, OutcomeFormat::Status, false)),
    ("channel.k8s.io", websocket(Encoding::Binary, OutcomeFormat::Text, false)),
    ("base64.channel.k8s.io", websocket(Encoding::Base64, OutcomeFormat::Text, false)),
];

/// The protocols of exec and attach over SPDY. v5 differs from v4 in WebSocket messages only.
const SPDY_COMMANDS: &[(&str, CommandProtocol)] = &[
    ("v5.channel.k8s.io", CommandProtocol::Spdy { outcome: OutcomeFormat::Status, resize: true }),
    ("v4.channel.k8s.io", CommandProtocol::Spdy { outcome: OutcomeFormat::Status, resize: true }),
    ("v3.channel.k8s.io", CommandProtocol::Spdy { outcome: OutcomeFormat::Text, resize: true }),
    ("v2.channel.k8s.io", CommandProtocol::Spdy { outcome: OutcomeFormat::Text, resize: false }),
    ("channel.k8s.io", CommandProtocol::Spdy { outcome: OutcomeFormat::Text, resize: false }),
];

/// The protocols of port-forward over WebSocket.
const WEBSOCKET_FORWARDS: &[(&str, WebSocketForward)] = &[
    ("SPDY/3.1+portforward.k8s.io", WebSocketForward::Tunnel),
    ("v4.channel.k8s.io", WebSocketForward::Channels(Encoding::Binary)),
    ("v4.base64.channel.k8s.io", WebSocketForward::Channels(Encoding::Base64)),
];

/// The protocols of port-forward over SPDY.
const SPDY_FORWARDS: &[(&str, ())] = &[("portforward.k8s.io", ())];

#[derive(Debug, Clone, Copy)]
enum WebSocketForward {
    Tunnel,
    Channels(Encoding),
}

const fn websocket(encoding: Encoding, outcome: OutcomeFormat, close_signal: bool) -> CommandProtocol {
    CommandProtocol::WebSocket { encoding, outcome, close_signal }
}

impl RemoteCommandUpgrade {
    /// Understands an exec or attach request.
    ///
    /// # Errors
    /// [`UpgradeError`] with the status code to answer with.
    pub fn negotiate<B>(request: &Request<B>) -> Result<Self, UpgradeError> {
        match Transport::of(request.headers())? {
            Transport::WebSocket { accept } => {
                let offered = list(request.headers(), &SEC_WEBSOCKET_PROTOCOL);
                if offered.is_empty() {
                    let version = websocket(Encoding::Binary, OutcomeFormat::Text, false);
                    return Ok(Self { answer: Answer::WebSocket { accept, protocol: None }, version });
                }
                let (protocol, version) = choose(offered, WEBSOCKET_COMMANDS)?;
                Ok(Self { answer: Answer::WebSocket { accept, protocol: Some(protocol) }, version })
            }
            Transport::Spdy => {
                let (protocol, version) = choose_stream_protocol(request.headers(), SPDY_COMMANDS)?;
                Ok(Self { answer: Answer::Spdy { protocol }, version })
            }
        }
    }

    /// The response to send before the connection is handed to [`RemoteCommandUpgrade::start`].
    pub fn response<B: Default>(&self) -> Response<B> {
        self.answer.response()
    }

    /// Takes the upgraded connection and waits until its streams are there.
    ///
    /// # Errors
    /// The client went away, or did not open its streams within 30 seconds.
    pub async fn start<IO>(self, io: IO, wanted: WantedStreams) -> Result<RemoteCommand, StreamError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        remote_command::start(io, self.version, wanted).await
    }
}

impl PortForwardUpgrade {
    /// Understands a port-forward request.
    ///
    /// # Errors
    /// [`UpgradeError`] with the status code to answer with.
    pub fn negotiate<B>(request: &Request<B>) -> Result<Self, UpgradeError> {
        match Transport::of(request.headers())? {
            Transport::WebSocket { accept } => {
                let offered = list(request.headers(), &SEC_WEBSOCKET_PROTOCOL);
                let (protocol, kind) = if offered.is_empty() {
                    (None, WebSocketForward::Channels(Encoding::Binary))
                } else {
                    let (protocol, kind) = choose(offered, WEBSOCKET_FORWARDS)?;
                    (Some(protocol), kind)
                };
                let version = match kind {
                    WebSocketForward::Tunnel => ForwardProtocol::Spdy { tunnelled: true },
                    WebSocketForward::Channels(encoding) => {
                        ForwardProtocol::WebSocket { encoding, ports: ports(request.uri().query().unwrap_or_default())? }
                    }
                };
                Ok(Self { answer: Answer::WebSocket { accept, protocol }, version })
            }
            Transport::Spdy => {
                let (protocol, ()) = choose_stream_protocol(request.headers(), SPDY_FORWARDS)?;
                Ok(Self { answer: Answer::Spdy { protocol }, version: ForwardProtocol::Spdy { tunnelled: false } })
            }
        }
    }

    /// The response to send before the connection is handed to [`PortForwardUpgrade::start`].
    pub fn response<B: Default>(&self) -> Response<B> {
        self.answer.response()
    }

    /// Takes the upgraded connection.
    pub async fn start<IO>(self, io: IO) -> PortForward
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        port_forward::start(io, self.version).await
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    WebSocket { accept: String, protocol: Option<&'static str> },
    Spdy { protocol: &'static str },
}

impl Answer {
    fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::WebSocket { accept, protocol } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                }
                if let Some(protocol) = protocol {
                    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
                }
            }
            Self::Spdy { protocol } => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
            }
        }
        response
    }
}

enum Transport {
    WebSocket { accept: String },
    Spdy,
}

impl Transport {
    fn of(headers: &HeaderMap) -> Result<Self, UpgradeError> {
        let lists = |name: &HeaderName, token: &str| list(headers, name).iter().any(|item| item.eq_ignore_ascii_case(token));
        if !lists(&CONNECTION, "upgrade") {
            return Err(UpgradeError::NotAnUpgrade);
        }
        if lists(&UPGRADE, SPDY) {
            return Ok(Self::Spdy);
        }
        if !lists(&UPGRADE, "websocket") {
            return Err(UpgradeError::NotAnUpgrade);
        }
        if !lists(&SEC_WEBSOCKET_VERSION, "13") {
            return Err(UpgradeError::Header { header: "Sec-WebSocket-Version", expected: " to be 13" });
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(UpgradeError::Header { header: "Sec-WebSocket-Key", expected: "" })?;
        Ok(Self::WebSocket { accept: derive_accept_key(key.as_bytes()) })
    }
}

/// The items of a comma-separated header that may be repeated.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

fn choose_stream_protocol<T: Copy>(
    headers: &HeaderMap,
    accepted: &[(&'static str, T)],
) -> Result<(&'static str, T), UpgradeError> {
    let offered = list(headers, &STREAM_PROTOCOL);
    if offered.is_empty() {
        return Err(UpgradeError::Header { header: "X-Stream-Protocol-Version", expected: "" });
    }
    choose(offered, accepted)
}

/// The first of the client's protocols that the server accepts.
fn choose<T: Copy>(offered: Vec<String>, accepted: &[(&'static str, T)]) -> Result<(&'static str, T), UpgradeError> {
    if let Some(chosen) = offered.iter().find_map(|offer| accepted.iter().find(|(name, _)| name == offer)) {
        return Ok(*chosen);
    }
    // A browser cannot set headers and sends its token as one more protocol, which must not come back in an error.
    let offered = offered.into_iter().filter(|name| !name.starts_with("base64url.bearer.")).collect();
    Err(UpgradeError::Protocol { offered, accepted: accepted.iter().map(|(name, _)| *name).collect() })
}

/// `ports=80,443` or `ports=80&ports=443`.
fn ports(query: &str) -> Result<Vec<u16>, UpgradeError> {
    let mut ports = Vec::new();
    for (_, value) in query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name == "ports") {
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        for item in value.split(',') {
            match item.trim().parse() {
                Ok(port) if port != 0 && ports.len() < MAX_PORTS => ports.push(port),
                _ => return Err(UpgradeError::Ports(value.into_owned())),
            }
        }
    }
    if ports.is_empty() { Err(UpgradeError::Ports(String::new())) } else { Ok(ports) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn websocket_request(uri: &str, protocols: &str) -> Request<()> {
        let request = Request::get(uri).header("Connection", "keep-alive, Upgrade").header("Upgrade", "WebSocket");
        let request = request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.header("Sec-WebSocket-Protocol", protocols).body(()).unwrap()
    }

    #[test]
    fn a_websocket_client_gets_the_first_protocol_that_both_know() {
        let request = websocket_request("/exec", "v9.channel.k8s.io, v5.channel.k8s.io, v4.channel.k8s.io");
        let upgrade = RemoteCommandUpgrade::negotiate(&request).unwrap();
        let response: Response<()> = upgrade.response();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(matches!(upgrade.version, CommandProtocol::WebSocket { close_signal: true, .. }));
    }

    #[test]
    fn a_spdy_client_offers_its_protocols_in_several_headers() {
        let request = Request::post("/exec").header("Connection", "Upgrade").header("Upgrade", "SPDY/3.1");
        let request = request.header("X-Stream-Protocol-Version", "v4.channel.k8s.io");
        let request = request.header("X-Stream-Protocol-Version", "v3.channel.k8s.io").body(()).unwrap();
        let response: Response<()> = RemoteCommandUpgrade::negotiate(&request).unwrap().response();
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
        assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    }

    #[test]
    fn port_forward_knows_tunnels_and_channels() {
        let tunnel = PortForwardUpgrade::negotiate(&websocket_request("/portforward", "SPDY/3.1+portforward.k8s.io")).unwrap();
        assert_eq!(tunnel.version, ForwardProtocol::Spdy { tunnelled: true });
        let request = websocket_request("/portforward?ports=80%2C443&ports=8080", "v5.channel.k8s.io,v4.channel.k8s.io");
        let channels = PortForwardUpgrade::negotiate(&request).unwrap();
        assert_eq!(channels.version, ForwardProtocol::WebSocket { encoding: Encoding::Binary, ports: vec![80, 443, 8080] });
    }

    #[test]
    fn what_cannot_be_upgraded_is_told_why() {
        let refuse = |request: Request<()>| {
            let error = RemoteCommandUpgrade::negotiate(&request).unwrap_err();
            format!("{} {error}", error.status().as_u16())
        };
        insta::assert_snapshot!(refuse(Request::get("/exec").body(()).unwrap()), @r#"400 Upgrade request required: send "Upgrade: websocket" or "Upgrade: SPDY/3.1" over HTTP/1.1"#);
        insta::assert_snapshot!(refuse(websocket_request("/exec", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v9")), @r#"403 unable to upgrade: unable to negotiate protocol: client supports ["v9"], server accepts ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"]"#);
        let bare = Request::post("/exec").header("Connection", "Upgrade").header("Upgrade", "SPDY/3.1").body(()).unwrap();
        insta::assert_snapshot!(refuse(bare), @"400 unable to upgrade: header X-Stream-Protocol-Version is required");
        let error = PortForwardUpgrade::negotiate(&websocket_request("/p?ports=80,x", "v4.channel.k8s.io")).unwrap_err();
        insta::assert_snapshot!(error, @r#"query parameter "ports" must list 1 to 64 port numbers, got "80,x""#);
    }
}
