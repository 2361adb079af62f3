//! Streams between processes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// What a pipe holds until its writer has to wait, as on Linux.
const PIPE_BYTES: usize = 64 << 10;

/// The end of a pipe that is written to. Dropping it is the reader's end of file.
pub type PipeWriter = DuplexStream;

/// The end of a pipe that is read from. Dropping it is the writer's `BrokenPipe`.
pub type PipeReader = DuplexStream;

/// A pipe with bounded room.
pub fn pipe() -> (PipeWriter, PipeReader) {
    tokio::io::duplex(PIPE_BYTES)
}

/// A stream that several processes use in turn or at the same time, as they use an inherited file descriptor. It closes when
/// the last clone is dropped, never by `shutdown`.
pub struct Shared<T>(Arc<Inner<T>>);

struct Inner<T> {
    stream: Mutex<T>,
    waiting: Arc<Waiting>,
}

/// Everybody who waits for the stream: it remembers only one waker itself.
#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        for waker in std::mem::take(&mut *self.0.lock()) {
            waker.wake();
        }
    }
}

impl<T> Shared<T> {
    /// Makes a stream shareable.
    pub fn new(stream: T) -> Self {
        Self(Arc::new(Inner { stream: Mutex::new(stream), waiting: Arc::default() }))
    }

    fn poll<R>(&self, context: &Context<'_>, poll: impl FnOnce(&mut T, &mut Context<'_>) -> Poll<R>) -> Poll<R> {
        let mut stream = self.0.stream.lock();
        {
            let mut waiting = self.0.waiting.0.lock();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
        }
        let wake_all = Waker::from(self.0.waiting.clone());
        let result = poll(&mut stream, &mut Context::from_waker(&wake_all));
        if result.is_ready() {
            // Others may have been waiting for the same readiness on our account.
            drop(stream);
            wake_all.wake();
        }
        result
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Shared<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(context, |stream, context| Pin::new(stream).poll_read(context, buffer))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Shared<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(context, |stream, context| Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, |stream, context| Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}
