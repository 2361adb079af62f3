//! The client's side of WebSocket.

use futures::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::SOON;

pub(super) struct WebSocketClient(pub(super) WebSocketStream<DuplexStream>);

impl WebSocketClient {
    pub(super) async fn new(io: DuplexStream) -> Self {
        Self(WebSocketStream::from_raw_socket(io, Role::Client, None).await)
    }

    pub(super) async fn send(&mut self, channel: u8, data: &[u8]) {
        self.0.send(Message::binary([&[channel], data].concat())).await.unwrap();
    }

    /// The next message that has content, as its channel and text; nothing once the server has closed the connection normally.
    pub(super) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match timeout(SOON, self.0.next()).await.expect("the server is silent")?.unwrap() {
                Message::Binary(bytes) if bytes.len() > 1 => return Some((bytes[0], bytes[1..].to_vec())),
                Message::Close(Some(reason)) => assert_eq!(u16::from(reason.code), 1000),
                _ => {}
            }
        }
    }

    /// Everything until the server closes, by channel.
    pub(super) async fn rest(&mut self) -> [String; 5] {
        let mut channels: [Vec<u8>; 5] = Default::default();
        while let Some((channel, data)) = self.next().await {
            channels[usize::from(channel)].extend(data);
        }
        channels.map(|bytes| String::from_utf8(bytes).unwrap())
    }
}
