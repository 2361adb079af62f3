//! The client's side of SPDY.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::SOON;
use crate::spdy::{DataFrame, Frame, HeaderCompressor, Headers};

pub(super) struct SpdyClient<IO> {
    pub(super) io: IO,
    compressor: HeaderCompressor,
    input: BytesMut,
    /// What came on each stream, and whether it ended.
    pub(super) received: HashMap<u32, (Vec<u8>, bool)>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> SpdyClient<IO> {
    pub(super) fn new(io: IO) -> Self {
        let compressor = HeaderCompressor::new().unwrap();
        Self { io, compressor, input: BytesMut::new(), received: HashMap::new() }
    }

    pub(super) async fn send(&mut self, frame: Frame) {
        self.io.write_all(&frame.encode()).await.unwrap();
    }

    pub(super) async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let headers = Headers(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        let headers = self.compressor.encode(&headers).unwrap();
        self.send(Frame::SynStream { stream, fin: false, unidirectional: false, headers }).await;
    }

    pub(super) async fn data(&mut self, stream: u32, data: &[u8], fin: bool) {
        self.send(Frame::Data(DataFrame { stream, fin, data: Bytes::copy_from_slice(data) })).await;
    }

    /// The next frame; nothing once the server has closed the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::parse(&mut self.input).unwrap() {
                if let Frame::Data(DataFrame { stream, fin, data }) = &frame {
                    let (bytes, ended) = self.received.entry(*stream).or_default();
                    assert!(!*ended, "data after the end of stream {stream}");
                    bytes.extend_from_slice(data);
                    *ended = *fin;
                }
                return Some(frame);
            }
            let read = timeout(SOON, self.io.read_buf(&mut self.input)).await.expect("the server is silent").unwrap();
            if read == 0 {
                return None;
            }
        }
    }

    /// Reads until the server has ended this stream, and gives what came on it.
    pub(super) async fn until_end_of(&mut self, stream: u32) -> String {
        while !self.received.get(&stream).is_some_and(|(_, ended)| *ended) {
            assert!(self.next().await.is_some(), "the connection ended before stream {stream}");
        }
        String::from_utf8(self.received[&stream].0.clone()).unwrap()
    }
}
