//! Configuration from the control plane: a stream that is opened again whenever it breaks. What the proxy has stays in effect.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use meshlab_net::Net;
use meshlab_proxy_config::discovery::{
    ControlMessage, MessageError, MessageReader, Node, ProxyMessage, Rejection, STREAM_PATH, Update, encode_message,
};
use meshlab_proxy_config::{Files, Log, ProxyConfig};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::backoff::Backoff;
use crate::control_plane::{ControlPlane, ControlPlaneError};

/// Why a stream ended.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    #[error("the control plane refused ({status}): {message}")]
    Refused { status: StatusCode, message: String },
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("the control plane closed the stream")]
    Closed,
}

/// What applying an update led to.
pub(crate) type Applied = Result<(), Vec<Rejection>>;

/// Follows the control plane for as long as the future lives; every configuration goes through `apply`.
pub(crate) async fn keep<N: Net, F: Files>(
    control_plane: ControlPlane<N, F>,
    node: Node,
    log: Log,
    seed: u64,
    apply: impl Fn(Arc<ProxyConfig>) -> Applied,
) {
    let mut backoff = Backoff::new(seed);
    let mut config = Arc::new(ProxyConfig::default());
    loop {
        let mut had_update = false;
        let ended = follow(&control_plane, &node, &log, &mut config, &mut had_update, &apply).await;
        if had_update {
            backoff.reset();
        }
        let pause = backoff.pause();
        log.warn("xdsproxy", format_args!("discovery stream ended: {ended}; connecting again in {pause:.0?}"));
        tokio::time::sleep(pause).await;
    }
}

/// One stream, until it ends.
async fn follow<N: Net, F: Files>(
    control_plane: &ControlPlane<N, F>,
    node: &Node,
    log: &Log,
    config: &mut Arc<ProxyConfig>,
    had_update: &mut bool,
    apply: &impl Fn(Arc<ProxyConfig>) -> Applied,
) -> StreamError {
    let (outgoing, incoming) = match open(control_plane, node).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    log.info("xdsproxy", format_args!("connected to upstream XDS server: {}", control_plane.address));
    let mut incoming = incoming;
    let mut reader = MessageReader::<ControlMessage>::default();
    loop {
        let data = match incoming.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return ControlPlaneError::Http(error).into(),
            None => return StreamError::Closed,
        };
        let messages = match reader.push(&data) {
            Ok(messages) => messages,
            Err(error) => return error.into(),
        };
        for ControlMessage::Update(update) in messages {
            *had_update = true;
            let answer = take(*update, config, log, apply);
            if outgoing.send(Ok(Frame::data(encode_message(&answer).into()))).await.is_err() {
                return StreamError::Closed;
            }
        }
    }
}

type Outgoing = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

async fn open<N: Net, F: Files>(
    control_plane: &ControlPlane<N, F>,
    node: &Node,
) -> Result<(Outgoing, hyper::body::Incoming), StreamError> {
    let mut sender = control_plane.connect().await?;
    let (outgoing, receiver) = mpsc::channel(4);
    let hello = encode_message(&ProxyMessage::Hello(Box::new(node.clone())));
    // There is room: nothing was sent yet.
    let _ = outgoing.try_send(Ok(Frame::data(hello.into())));
    let body = StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync();
    let response = sender.send_request(control_plane.request(STREAM_PATH, body)?).await.map_err(ControlPlaneError::Http)?;
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        let message = body.collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        return Err(StreamError::Refused { status: head.status, message });
    }
    Ok((outgoing, body))
}

/// Applies an update and says what came of it.
fn take(update: Update, config: &mut Arc<ProxyConfig>, log: &Log, apply: &impl Fn(Arc<ProxyConfig>) -> Applied) -> ProxyMessage {
    let version = update.version;
    *config = Arc::new(update.apply(config));
    match apply(config.clone()) {
        Ok(()) => ProxyMessage::Ack { version },
        Err(rejected) => {
            for rejection in &rejected {
                log.warn("xdsproxy", format_args!("rejected {}: {}", rejection.resource, rejection.message));
            }
            ProxyMessage::Nack { version, rejected }
        }
    }
}
