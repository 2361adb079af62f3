//! Streams as WebSocket messages: the first byte names the channel.

pub(crate) mod tunnel;

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::mux::{Outgoing, QUEUE, Session};

/// The largest message taken from a client; kubectl sends at most 32 KiB, kube-rs as much as it reads at once.
const MAX_MESSAGE: usize = 1024 * 1024;
const READ_BUFFER: usize = 16 * 1024;

/// In v5, a message on this channel closes the channel it names.
const CLOSE_CHANNEL: u8 = 255;

/// How a message carries its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Binary messages; the channel is a byte.
    Binary,
    /// Text messages; the channel is a digit, the rest base64.
    Base64,
}

/// Bytes of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChannelMessage {
    pub(crate) channel: u8,
    pub(crate) data: Bytes,
}

impl Encoding {
    /// Understands a message; nothing if it does not name a channel or is no base64.
    pub(crate) fn decode(self, mut message: Bytes) -> Option<ChannelMessage> {
        if message.is_empty() {
            return None;
        }
        let channel = message.split_to(1)[0];
        match self {
            Self::Binary => Some(ChannelMessage { channel, data: message }),
            Self::Base64 => {
                let channel = channel.checked_sub(b'0')?;
                Some(ChannelMessage { channel, data: BASE64.decode(&message).ok()?.into() })
            }
        }
    }

    pub(crate) fn encode(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(1 + data.len());
                message.extend_from_slice(&[channel]);
                message.extend_from_slice(data);
                Message::Binary(message.freeze())
            }
            Self::Base64 => Message::text(format!("{}{}", char::from(b'0'.saturating_add(channel)), BASE64.encode(data))),
        }
    }
}

/// Wraps an upgraded connection.
pub(crate) async fn accept<IO>(io: IO) -> WebSocketStream<IO>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Serves channels on `io`: what the client sends on one of `inbound` is written there, and its end is the pipe's end.
pub(crate) async fn serve<IO>(io: IO, encoding: Encoding, close_signal: bool, inbound: HashMap<u8, DuplexStream>) -> Session
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = accept(io).await.split();
    let (outgoing, queue) = mpsc::channel(QUEUE);
    let session = Session::new(outgoing);
    let (stop, gone) = (session.stop.clone(), session.gone.clone());
    let stop_reading = stop.clone();
    tokio::spawn(async move {
        let _gone = gone.drop_guard();
        tokio::select! {
            () = stop_reading.cancelled() => {}
            result = read_messages(stream, encoding, close_signal, inbound) => log("read", result),
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            result = write_messages(sink, encoding, queue) => log("written", result),
        }
    });
    session
}

fn log(what: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "WebSocket cannot be {what}");
    }
}

async fn read_messages<IO>(
    mut stream: SplitStream<WebSocketStream<IO>>,
    encoding: Encoding,
    close_signal: bool,
    mut inbound: HashMap<u8, DuplexStream>,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
        let bytes = match message? {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            // Answers to pings and closes are written by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => continue,
        };
        let Some(ChannelMessage { channel, data }) = encoding.decode(bytes) else { continue };
        if close_signal && channel == CLOSE_CHANNEL {
            if let Some(closed) = data.first() {
                inbound.remove(closed);
            }
        } else if let Some(pipe) = inbound.get_mut(&channel)
            && pipe.write_all(&data).await.is_err()
        {
            inbound.remove(&channel);
        }
    }
    Ok(())
}

async fn write_messages<IO>(
    mut sink: SplitSink<WebSocketStream<IO>, Message>,
    encoding: Encoding,
    mut queue: mpsc::Receiver<Outgoing>,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(outgoing) = queue.recv().await {
        match outgoing {
            Outgoing::Data(channel, data) => sink.send(encoding.encode(channel as u8, &data)).await?,
            Outgoing::Encoded(message) => sink.send(Message::Binary(message)).await?,
            // A server cannot close one channel; the client learns of the end by the status, or by the close of all.
            Outgoing::End(_) => {}
            Outgoing::Close => {
                let reason = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                return sink.send(Message::Close(Some(reason))).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_in_both_encodings(channel in 0_u8..10, data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let message = encoding.encode(channel, &data).into_data();
                let expected = ChannelMessage { channel, data: data.clone().into() };
                prop_assert_eq!(encoding.decode(message), Some(expected));
            }
        }

        #[test]
        fn arbitrary_messages_never_panic(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let _ = encoding.decode(data.clone().into());
            }
        }
    }
}
