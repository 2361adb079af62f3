//! Bodies as they pass: straight through, kept for a retry, or made here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::telemetry::grpc::MessageCounter;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    #[error("the response took longer than the route allows")]
    Timeout,
    #[error("the stream was idle for too long")]
    Idle,
    #[error("the request was given up for another attempt")]
    Superseded,
}

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    messages: AtomicU64,
    ended: AtomicBool,
    finished: Notify,
}

impl Progress {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.finished.notify_waiters();
    }

    /// Waits for the body's end.
    pub(crate) async fn wait(&self) {
        let finished = self.finished.notified();
        tokio::pin!(finished);
        finished.as_mut().enable();
        if !self.ended() {
            finished.await;
        }
    }
}

/// A client's body, of which a beginning may have been read already.
pub(crate) struct ClientBody {
    beginning: Option<Bytes>,
    incoming: Incoming,
}

impl ClientBody {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self { beginning: None, incoming }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.beginning.is_none() && self.incoming.is_end_stream()
    }

    /// Reads the whole body ahead, up to `limit` bytes; it can still be sent afterwards. `None` if it is longer.
    pub(crate) async fn read_ahead(&mut self, limit: usize) -> Result<Option<Bytes>, hyper::Error> {
        let mut read = BytesMut::new();
        let mut whole = true;
        while !self.incoming.is_end_stream() {
            match self.incoming.frame().await {
                None => break,
                Some(Err(error)) => return Err(error),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        read.extend_from_slice(data);
                    }
                }
            }
            if read.len() > limit {
                whole = false;
                break;
            }
        }
        let read = read.freeze();
        self.beginning = (!read.is_empty()).then(|| read.clone());
        Ok(whole.then_some(read))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.beginning.take() {
            Some(beginning) => Poll::Ready(Some(Ok(Frame::data(beginning)))),
            None => Pin::new(&mut self.incoming).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.beginning.as_ref().map_or(0, |beginning| beginning.len() as u64);
        match self.incoming.size_hint().exact() {
            Some(exact) => SizeHint::with_exact(exact + ahead),
            None => SizeHint::default(),
        }
    }
}

/// The client's body, counted.
pub(crate) struct Counted {
    incoming: ClientBody,
    progress: Arc<Progress>,
    grpc: Option<MessageCounter>,
}

impl Counted {
    pub(crate) fn new(incoming: ClientBody, grpc: bool) -> Self {
        Self { incoming, progress: Arc::default(), grpc: grpc.then(MessageCounter::default) }
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(self.incoming.poll(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if let Some(counter) = &mut self.grpc {
                        self.progress.messages.store(counter.feed(data), Ordering::Relaxed);
                    }
                }
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.progress.end();
                }
            }
            Some(Err(_)) => {}
            None => self.progress.end(),
        }
        Poll::Ready(frame)
    }
}

/// What is sent to an upstream.
pub(crate) enum RequestBody {
    Empty,
    Whole(Option<Bytes>),
    /// The same, of a length that the receiver is not told ahead.
    Chunked(Option<Bytes>),
    /// Sent once.
    Streamed(Box<Counted>),
    /// Sent again on a retry.
    Replayed(ReplayReader),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) | Self::Chunked(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(counted) => counted.poll(cx).map_err(BodyError::Hyper),
            Self::Replayed(reader) => reader.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) | Self::Chunked(bytes) => bytes.is_none(),
            Self::Streamed(counted) => counted.incoming.is_end_stream(),
            Self::Replayed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Chunked(_) => SizeHint::default(),
            Self::Streamed(counted) => counted.incoming.size_hint(),
            Self::Replayed(reader) => reader.length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// A request body that is remembered while it is sent, up to a limit, so that it can be sent again.
#[derive(Clone)]
pub(crate) struct Replay {
    state: Arc<Mutex<ReplayState>>,
    progress: Arc<Progress>,
    length: Option<u64>,
}

struct ReplayState {
    source: Counted,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    limit: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// It grew beyond the limit: what was kept is gone.
    abandoned: bool,
    /// The attempt that may read now.
    generation: u32,
    /// Who wants a copy of the whole body once it is there (`None` if it grew too long).
    copies: Vec<oneshot::Sender<Option<Bytes>>>,
}

/// One attempt's reading of a [`Replay`].
pub(crate) struct ReplayReader {
    state: Arc<Mutex<ReplayState>>,
    position: usize,
    generation: u32,
    trailers_sent: bool,
    length: Option<u64>,
}

impl Replay {
    pub(crate) fn new(source: Counted, limit: usize) -> Self {
        let progress = source.progress();
        let length = source.incoming.size_hint().exact();
        let state = ReplayState {
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            limit,
            trailers: None,
            ended: false,
            abandoned: false,
            generation: 0,
            copies: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), progress, length }
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Whether it can be read from its start.
    pub(crate) fn is_whole(&self) -> bool {
        !self.state.lock().abandoned
    }

    /// A reading from the start. Earlier ones end.
    pub(crate) fn read(&self) -> ReplayReader {
        let mut state = self.state.lock();
        state.generation += 1;
        ReplayReader {
            state: self.state.clone(),
            position: 0,
            generation: state.generation,
            trailers_sent: false,
            length: self.length,
        }
    }

    /// The whole body, once it has been read by an attempt.
    pub(crate) fn copy(&self) -> oneshot::Receiver<Option<Bytes>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        state.copies.push(sender);
        if state.ended || state.abandoned {
            state.give_copies();
        }
        receiver
    }
}

impl ReplayState {
    fn give_copies(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        let whole = (!self.abandoned).then(|| {
            let mut whole = BytesMut::with_capacity(self.kept_bytes);
            self.kept.iter().for_each(|chunk| whole.extend_from_slice(chunk));
            whole.freeze()
        });
        for copy in self.copies.drain(..) {
            // Nobody waits for it any more: fine.
            let _ = copy.send(whole.clone());
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.give_copies();
    }

    fn keep(&mut self, data: &Bytes) {
        if self.abandoned {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > self.limit {
            self.abandoned = true;
            self.kept = Vec::new();
            self.give_copies();
        } else {
            self.kept.push(data.clone());
        }
    }
}

impl ReplayReader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.lock();
        if state.generation != self.generation {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(chunk) = state.kept.get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if state.ended {
            let trailers = if self.trailers_sent { None } else { state.trailers.clone() };
            self.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        match ready!(state.source.poll(cx)) {
            None => {
                state.end();
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let data = data.clone();
                    state.keep(&data);
                    self.position = state.kept.len();
                } else if let Some(trailers) = frame.trailers_ref() {
                    state.trailers = Some(trailers.clone());
                    self.trailers_sent = true;
                }
                if state.source.progress.ended() {
                    state.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}
