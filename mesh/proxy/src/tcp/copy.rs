//! Copying between two streams, each direction closed for itself.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What was copied, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    pub(crate) from_client: u64,
    pub(crate) from_upstream: u64,
    pub(crate) idle: bool,
    pub(crate) client_error: bool,
    pub(crate) upstream_error: bool,
}

/// Small to begin with: most connections are idle (ztunnel's measurement, see its copy.rs).
const SMALL: usize = 2 * 1024;
const LARGE: usize = 16 * 1024;
/// The buffer grows after so many bytes.
const GROW_AFTER: u64 = 128 * 1024;

struct OneWay {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    total: u64,
    finished_reading: bool,
    need_flush: bool,
    done: bool,
}

enum Side {
    Reading,
    Writing,
}

impl OneWay {
    fn new() -> Self {
        Self {
            buffer: vec![0; SMALL].into(),
            start: 0,
            end: 0,
            total: 0,
            finished_reading: false,
            need_flush: false,
            done: false,
        }
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W, activity: &AtomicU64) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            while self.start < self.end {
                let written = ready!(Pin::new(&mut *writer).poll_write(cx, &self.buffer[self.start..self.end]))
                    .map_err(|_| Side::Writing)?;
                if written == 0 {
                    return Poll::Ready(Err(Side::Writing));
                }
                self.start += written;
                self.total += written as u64;
                self.need_flush = true;
                activity.fetch_add(1, Ordering::Relaxed);
            }
            if self.finished_reading {
                ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(|_| Side::Writing)?;
                ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(|_| Side::Writing)?;
                self.done = true;
                continue;
            }
            if self.total > GROW_AFTER && self.buffer.len() < LARGE {
                self.buffer = vec![0; LARGE].into();
            }
            let mut space = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *reader).poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) => {
                    self.start = 0;
                    self.end = space.filled().len();
                    self.finished_reading = self.end == 0;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::Reading)),
                Poll::Pending => {
                    // TLS keeps what it has until it is flushed.
                    if self.need_flush {
                        ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(|_| Side::Writing)?;
                        self.need_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// When copying ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// When both directions have ended: TCP.
    Both,
    /// When the upstream has: an upgraded HTTP stream is over with its response.
    Upstream,
}

/// Copies until the end, until one direction fails, or until nothing has moved for `idle`.
pub(crate) async fn copy_both<A, B>(client: &mut A, upstream: &mut B, idle: Option<Duration>, end: End) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let (mut there, mut back) = (OneWay::new(), OneWay::new());
    let mut copied = Copied::default();
    let activity = Arc::new(AtomicU64::new(0));
    {
        let copying = poll_fn(|cx| {
            let outcome = there.poll(cx, client, upstream, &activity);
            if let Poll::Ready(Err(side)) = outcome {
                return Poll::Ready(Err((side, true)));
            }
            match back.poll(cx, upstream, client, &activity) {
                Poll::Ready(Err(side)) => Poll::Ready(Err((side, false))),
                Poll::Ready(Ok(())) if outcome.is_ready() || end == End::Upstream => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        });
        let result = match idle {
            None => Some(copying.await),
            Some(limit) => {
                tokio::select! {
                    biased;
                    result = copying => Some(result),
                    () = inactive(&activity, limit) => None,
                }
            }
        };
        match result {
            None => copied.idle = true,
            Some(Ok(())) => {}
            Some(Err((Side::Reading, true) | (Side::Writing, false))) => copied.client_error = true,
            Some(Err((Side::Writing, true) | (Side::Reading, false))) => copied.upstream_error = true,
        }
    }
    copied.from_client = there.total;
    copied.from_upstream = back.total;
    copied
}

/// Ends when nothing has moved for `limit`.
async fn inactive(activity: &AtomicU64, limit: Duration) {
    loop {
        let before = activity.load(Ordering::Relaxed);
        tokio::time::sleep_until(Instant::now() + limit).await;
        if activity.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_direction_is_closed_for_itself() {
        let (mut client, mut proxy_client) = duplex(64);
        let (mut proxy_upstream, mut upstream) = duplex(64);
        let copying = tokio::spawn(async move { copy_both(&mut proxy_client, &mut proxy_upstream, None, End::Both).await });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        upstream.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question", "the upstream sees the client's end");
        upstream.write_all(b"answer").await.unwrap();
        drop(upstream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer", "and can still answer");
        let copied = copying.await.unwrap();
        assert_eq!((copied.from_client, copied.from_upstream), (8, 6));
    }

    #[tokio::test]
    async fn an_idle_connection_ends() {
        let (_client, mut proxy_client) = duplex(64);
        let (mut proxy_upstream, _upstream) = duplex(64);
        assert!(copy_both(&mut proxy_client, &mut proxy_upstream, Some(Duration::from_millis(20)), End::Both).await.idle);
    }
}
