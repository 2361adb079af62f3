//! The two requests that proxies make: the configuration stream and certificate signing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use meshlab_proxy_config::Log;
use meshlab_proxy_config::discovery::{CertificateRequest, MessageReader, Node, ProxyMessage, Rejection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::hub::{Compiled, Connected, Hub, Message, World};
use crate::ca::{Authenticator, Authority, Identity};
use crate::http::{Body, Peer, json, read_body, text};
use crate::metrics::{self, Metrics};

/// A proxy that does not answer an update for so long is disconnected; it comes back and starts afresh.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// A proxy has to say who it is within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// What serving proxies needs.
pub(crate) struct Discovery<W: World> {
    pub(crate) hub: Arc<Hub<W>>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) authenticator: Authenticator,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Log,
    /// Streams are closed when istiod ends, so that proxies look for another one.
    pub(crate) shutdown: CancellationToken,
}

impl<W: World> Discovery<W> {
    async fn identify(&self, request: &Request<Incoming>, peer: &Peer) -> Result<Identity, Response<Body>> {
        let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        self.authenticator.identify(peer.identity.as_ref(), token).await.map_err(|error| {
            self.log.warn("ca", format_args!("authentication failure: {error}"));
            text(StatusCode::UNAUTHORIZED, error.to_string())
        })
    }
}

/// Signs a workload certificate.
pub(crate) async fn certificate<W: World>(
    discovery: Arc<Discovery<W>>,
    request: Request<Incoming>,
    peer: Peer,
) -> Response<Body> {
    discovery.metrics.count(&metrics::CSRS, []);
    let identity = match discovery.identify(&request, &peer).await {
        Ok(identity) => identity,
        Err(response) => {
            discovery.metrics.count(&metrics::CSR_AUTHENTICATION_FAILURES, []);
            return response;
        }
    };
    let asked = match read_body(request.into_body()).await {
        Ok(body) => serde_json::from_slice::<CertificateRequest>(&body),
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let ttl = (asked.validity_s > 0).then(|| Duration::from_secs(asked.validity_s));
    match discovery.authority.sign(&asked.csr, &identity.to_string(), ttl) {
        Ok(issued) => {
            discovery.metrics.count(&metrics::CSR_SUCCESSES, []);
            json(&issued)
        }
        Err(error) => {
            discovery.metrics.count(&metrics::CSR_SIGNING_ERRORS, [error.kind()]);
            discovery.log.error("ca", format_args!("CSR signing error for {identity}: {error}"));
            text(StatusCode::BAD_REQUEST, error.to_string())
        }
    }
}

/// Opens a configuration stream.
pub(crate) async fn stream<W: World>(discovery: Arc<Discovery<W>>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
    let identity = match discovery.identify(&request, &peer).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    // One update is under way at a time, so one place is enough.
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    tokio::spawn(async move {
        let log = discovery.log.clone();
        let proxy = Conversation { incoming: request.into_body(), reader: MessageReader::default(), outgoing: sender };
        if let Err(reason) = converse(&discovery, identity, proxy).await {
            log.warn("ads", format_args!("ADS: {reason}"));
        }
    });
    Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
}

struct Conversation {
    incoming: Incoming,
    reader: MessageReader<ProxyMessage>,
    outgoing: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
}

impl Conversation {
    /// The next messages; `None` when the proxy has left.
    async fn receive(&mut self) -> Result<Option<Vec<ProxyMessage>>, String> {
        match self.incoming.frame().await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                self.reader.push(&data).map(Some).map_err(|error| error.to_string())
            }
            // A connection that breaks is a proxy that left.
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// The first message, and what came with it.
    async fn hello(&mut self) -> Result<Option<Node>, String> {
        while let Some(messages) = self.receive().await? {
            match messages.into_iter().next() {
                None => {}
                Some(ProxyMessage::Hello(node)) => return Ok(Some(*node)),
                Some(_) => return Err("a proxy has to begin with hello".into()),
            }
        }
        Ok(None)
    }
}

async fn converse<W: World>(discovery: &Discovery<W>, identity: Identity, mut proxy: Conversation) -> Result<(), String> {
    let hello = tokio::time::timeout(HELLO_TIMEOUT, proxy.hello()).await;
    let Some(node) = hello.map_err(|_| format!("{identity} connected and said nothing"))?? else { return Ok(()) };
    // A workload gets the configuration of its own namespace only, whatever it says it is.
    if node.namespace != identity.namespace || node.service_account != identity.service_account {
        return Err(format!(
            "{identity} claims to be {}/{}; its token or certificate does not allow it",
            node.namespace, node.service_account
        ));
    }
    let name = node.name();
    let connected = discovery.hub.connect(node).await;
    discovery.log.info("ads", format_args!("ADS: new connection for node:{name}"));
    let ended = push_until_gone(discovery, &name, connected, &mut proxy).await;
    discovery.log.info("ads", format_args!("ADS: {name} terminated"));
    ended
}

/// An update that a proxy has been sent and has not answered.
struct Awaited {
    target: Arc<Compiled>,
    /// Kept for others of its class that are sent the same.
    _message: Arc<Message>,
    deadline: tokio::time::Instant,
}

async fn push_until_gone<W: World>(
    discovery: &Discovery<W>,
    name: &str,
    mut connected: Connected<W>,
    proxy: &mut Conversation,
) -> Result<(), String> {
    let mut had: Option<Arc<Compiled>> = None;
    let mut awaited: Option<Awaited> = None;
    connected.target.mark_changed();
    loop {
        let deadline = awaited.as_ref().map(|awaited| awaited.deadline);
        tokio::select! {
            changed = connected.target.changed(), if awaited.is_none() => {
                if changed.is_err() {
                    return Ok(());
                }
                let Some(target) = connected.target.borrow_and_update().clone() else { continue };
                if had.as_ref().is_some_and(|had| had.version == target.version) {
                    continue;
                }
                let message = target.message_from(had.as_deref());
                count_push(discovery, name, &message.counts, message.bytes.len());
                connected.update(|status| status.sent = target.version);
                if proxy.outgoing.send(Ok(Frame::data(message.bytes.clone()))).await.is_err() {
                    return Ok(());
                }
                awaited = Some(Awaited { target, _message: message, deadline: tokio::time::Instant::now() + ACK_TIMEOUT });
            }
            messages = proxy.receive() => {
                let Some(messages) = messages? else { return Ok(()) };
                for message in messages {
                    if let Some(answered) = hear(discovery, name, &connected, message, awaited.as_ref().map(|awaited| &awaited.target))? {
                        had = Some(answered);
                        awaited = None;
                    }
                }
            }
            () = discovery.shutdown.cancelled() => return Ok(()),
            () = sleep_until(deadline) => return Err(format!("{name} did not answer an update within {ACK_TIMEOUT:?}; disconnecting it")),
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Takes an answer; returns the configuration it is the answer to.
fn hear<W: World>(
    discovery: &Discovery<W>,
    name: &str,
    connected: &Connected<W>,
    message: ProxyMessage,
    awaited: Option<&Arc<Compiled>>,
) -> Result<Option<Arc<Compiled>>, String> {
    let (version, rejected) = match message {
        ProxyMessage::Hello(_) => return Err(format!("{name} said hello twice")),
        ProxyMessage::Ack { version } => (version, Vec::new()),
        ProxyMessage::Nack { version, rejected } => (version, rejected),
    };
    let Some(awaited) = awaited.filter(|awaited| awaited.version == version) else {
        return Err(format!("{name} answered version {version}, which was not asked"));
    };
    discovery.metrics.observe(&metrics::CONVERGENCE_TIME, awaited.age_seconds());
    for rejection in &rejected {
        discovery.metrics.count(&metrics::REJECTS, [rejected_type(rejection)]);
        discovery.log.warn("ads", format_args!("ADS: ACK ERROR {name} {}: {}", rejection.resource, rejection.message));
    }
    connected.update(|status| {
        status.acked = version;
        status.rejected = rejected.into_iter().map(Into::into).collect();
    });
    Ok(Some(awaited.clone()))
}

/// Envoy's short name for the type of a refused resource; what has none keeps its own.
fn rejected_type(rejection: &Rejection) -> &str {
    match rejection.resource.split([' ', '/']).next().unwrap_or_default() {
        "cluster" => "cds",
        "listener" => "lds",
        "route" => "rds",
        other => other,
    }
}

fn count_push<W: World>(discovery: &Discovery<W>, name: &str, counts: &[(&'static str, usize)], bytes: usize) {
    for (kind, count) in counts.iter().filter(|(_, count)| *count > 0) {
        let label = kind.to_lowercase();
        discovery.metrics.count(&metrics::PUSHES, [&label]);
        discovery.log.info("ads", format_args!("{kind}: PUSH for node:{name} resources:{count} size:{bytes}B"));
    }
}
