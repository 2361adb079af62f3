//! What both transports have in common: many streams on one connection, each a pair of bounded pipes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes a stream holds in each direction before its writer has to wait.
pub(crate) const PIPE: usize = 64 * 1024;
/// Bytes sent in one frame.
const CHUNK: usize = 16 * 1024;
/// Frames that may wait to be written to the connection.
pub(crate) const QUEUE: usize = 32;
/// How long a client may take to close the connection after it was told that all is done.
const LINGER: Duration = Duration::from_secs(5);

/// What is to be written to the connection.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// Nothing more comes on this stream.
    End(u32),
    /// A frame already encoded.
    Encoded(Bytes),
    /// The server has finished; nothing comes after this.
    Close,
}

/// A pipe inside the process: what is written into the first comes out of the second.
pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(PIPE)
}

/// The server's hold on an upgraded connection. Dropping it ends the connection at once.
pub(crate) struct Session {
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    /// Cancelled when the client is gone.
    pub(crate) gone: CancellationToken,
    pub(crate) stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Session {
    pub(crate) fn new(outgoing: mpsc::Sender<Outgoing>) -> Self {
        let stop = CancellationToken::new();
        Self { outgoing, gone: CancellationToken::new(), _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// Says that all is done and waits until the client has heard it.
    pub(crate) async fn close(self) {
        if self.outgoing.send(Outgoing::Close).await.is_ok() {
            // Cutting the connection at once could destroy what the client has not read yet.
            let _ = tokio::time::timeout(LINGER, self.gone.cancelled()).await;
        }
    }

    /// Opens the server's half of a stream. The task ends when everything written, and the end, was handed to the connection.
    pub(crate) fn writer(&self, stream: u32) -> (DuplexStream, JoinHandle<()>) {
        let (writer, source) = pipe();
        let pump = tokio::spawn(pump(source, stream, self.outgoing.clone(), None, self.stop.child_token()));
        (writer, pump)
    }
}

/// Sends what comes out of `source` as frames of one stream, as far as the client's window allows.
pub(crate) async fn pump(
    mut source: DuplexStream,
    stream: u32,
    outgoing: mpsc::Sender<Outgoing>,
    windows: Option<Windows>,
    stop: CancellationToken,
) {
    let forward = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            if !matches!(source.read_buf(&mut buffer).await, Ok(1..)) {
                break;
            }
            while !buffer.is_empty() {
                let mut size = buffer.len().min(CHUNK);
                if let Some(windows) = &windows {
                    size = windows.take(size).await;
                }
                if outgoing.send(Outgoing::Data(stream, buffer.split_to(size).freeze())).await.is_err() {
                    return;
                }
            }
        }
        let _ = outgoing.send(Outgoing::End(stream)).await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = forward => {}
    }
}

/// What bounds a stream: its own window, and that of the connection.
pub(crate) struct Windows {
    pub(crate) stream: Arc<Window>,
    pub(crate) connection: Arc<Window>,
}

impl Windows {
    async fn take(&self, wanted: usize) -> usize {
        let granted = self.stream.take(wanted).await;
        let size = self.connection.take(granted).await;
        self.stream.grow(u32::try_from(granted - size).unwrap_or(0));
        size
    }
}

/// How many bytes a peer is ready to take. A peer that never spoke of windows takes everything, and TCP alone slows us down:
/// kubectl's SPDY library knows no flow control and would never enlarge the window that the specification starts with.
pub(crate) struct Window {
    credit: Semaphore,
    enforced: Arc<AtomicBool>,
}

impl Window {
    pub(crate) fn new(initial: u32, enforced: Arc<AtomicBool>) -> Self {
        Self { credit: Semaphore::new(initial as usize), enforced }
    }

    /// Waits for credit and takes at most `wanted` of it.
    async fn take(&self, wanted: usize) -> usize {
        if !self.enforced.load(Ordering::Acquire) {
            return wanted;
        }
        let size = wanted.min(self.credit.available_permits().max(1));
        match self.credit.acquire_many(u32::try_from(size).unwrap_or(1)).await {
            Ok(permits) => permits.forget(),
            // A closed semaphore stands for a window without limit.
            Err(_) => return wanted,
        }
        size
    }

    /// The peer is ready for more. An absurd sum is cut off, as the specification's 31 bits are.
    pub(crate) fn grow(&self, delta: u32) {
        let room = (i32::MAX as usize).saturating_sub(self.credit.available_permits());
        self.credit.add_permits(room.min(delta as usize));
    }
}
