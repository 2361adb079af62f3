//! A byte stream within WebSocket messages, cut anywhere.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::mux::PIPE;

/// The bytes that the client sends and gets in binary messages. When the returned stream is dropped, the WebSocket is closed.
pub(crate) async fn open<IO>(io: IO) -> DuplexStream
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let (mut sink, mut stream) = super::accept(io).await.split();
    let (mut from_server, mut to_server) = tokio::io::split(theirs);
    let incoming = async move {
        while let Some(message) = stream.next().await {
            if let Message::Binary(bytes) = message?
                && to_server.write_all(&bytes).await.is_err()
            {
                break;
            }
        }
        let _ = to_server.shutdown().await;
        Ok::<(), Error>(())
    };
    let outgoing = async move {
        let mut buffer = bytes::BytesMut::with_capacity(PIPE);
        loop {
            buffer.reserve(PIPE / 2);
            match from_server.read_buf(&mut buffer).await {
                Ok(1..) => sink.send(Message::Binary(buffer.split().freeze())).await?,
                _ => break,
            }
        }
        sink.send(Message::Close(None)).await
    };
    tokio::spawn(async move {
        if let Err(error) = tokio::try_join!(incoming, outgoing) {
            tracing::debug!(%error, "WebSocket tunnel ended");
        }
    });
    ours
}
