//! One direction of a connection: a bounded buffer with one writer and one reader.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::ReadBuf;
use tokio::time::Instant;

/// A drained buffer larger than this is given back, so that thousands of idle connections cost little.
const KEEP: usize = 8 * 1024;

pub(super) struct Pipe {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Default)]
struct State {
    buffer: BytesMut,
    /// As many bytes at the head of the buffer have arrived.
    arrived: usize,
    /// The bytes behind them are still under way: when they arrive, and how many.
    under_way: VecDeque<(Instant, usize)>,
    end: Option<End>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How the writer finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// End of file, behind everything written.
    Finished,
    /// `ConnectionReset`, behind everything written: the writer went away without reading what it was sent.
    Aborted,
    /// `ConnectionReset` at once.
    Reset,
}

/// What a read came to.
pub(super) enum Read {
    /// Bytes were read, or the end of file was reached.
    Done(io::Result<()>),
    /// Nothing yet; the reader will be woken.
    Wait,
    /// Nothing yet; bytes arrive at this time.
    Until(Instant),
}

impl Pipe {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity: capacity.max(1) }
    }

    /// Reads what has arrived. While the link is `cut`, nothing does, not even the end of file.
    pub(super) fn read(&self, cx: &mut Context<'_>, target: &mut ReadBuf<'_>, cut: bool) -> Read {
        let mut state = self.state.lock();
        if state.end == Some(End::Reset) {
            return Read::Done(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if cut {
            state.wait_for_bytes(cx);
            return Read::Wait;
        }
        state.let_arrive();
        if target.remaining() == 0 {
            return Read::Done(Ok(()));
        }
        if state.arrived > 0 {
            let count = state.arrived.min(target.remaining());
            target.put_slice(&state.buffer[..count]);
            state.buffer.advance(count);
            state.arrived -= count;
            if state.buffer.is_empty() && state.buffer.capacity() > KEEP {
                state.buffer = BytesMut::new();
            }
            let writer = state.writer.take();
            drop(state);
            wake(writer);
            return Read::Done(Ok(()));
        }
        if let Some((when, _)) = state.under_way.front() {
            let when = *when;
            state.wait_for_bytes(cx);
            return Read::Until(when);
        }
        match state.end {
            Some(End::Finished) => Read::Done(Ok(())),
            Some(End::Aborted | End::Reset) => Read::Done(Err(io::ErrorKind::ConnectionReset.into())),
            None => {
                state.wait_for_bytes(cx);
                Read::Wait
            }
        }
    }

    /// Writes as much as fits, to arrive after `delay`. `sent` is called with the count while the pipe is still locked, so that
    /// whoever records the stream sees its bytes in order.
    pub(super) fn write(
        &self,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
        delay: Duration,
        sent: impl FnOnce(usize),
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        match state.end {
            Some(End::Reset) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(End::Finished | End::Aborted) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            None if state.reader_gone => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            None => {}
        }
        let space = self.capacity - state.buffer.len();
        let wanted: usize = data.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        if space == 0 {
            replace_waker(&mut state.writer, cx);
            return Poll::Pending;
        }
        let count = wanted.min(space);
        state.buffer.reserve(count);
        let mut left = count;
        for slice in data {
            let part = left.min(slice.len());
            state.buffer.extend_from_slice(&slice[..part]);
            left -= part;
        }
        state.send(count, delay);
        sent(count);
        let reader = state.reader.take();
        drop(state);
        wake(reader);
        Poll::Ready(Ok(count))
    }

    /// Ends the stream from the writer's side; true if it had not ended before.
    pub(super) fn end(&self, end: End, delay: Duration) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() && end != End::Reset {
            return false;
        }
        let first = state.end.is_none();
        state.end = Some(end);
        if end == End::Reset {
            state.buffer = BytesMut::new();
            state.under_way.clear();
            state.arrived = 0;
        } else {
            state.send(0, delay);
        }
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        wake(reader);
        wake(writer);
        first
    }

    /// The reader went away; true if it left bytes unread.
    pub(super) fn close_reader(&self) -> bool {
        let mut state = self.state.lock();
        state.reader_gone = true;
        let unread = !state.buffer.is_empty();
        state.buffer = BytesMut::new();
        state.under_way.clear();
        state.arrived = 0;
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        unread
    }

    /// Makes the reader look again: the link has changed.
    pub(super) fn wake_reader(&self) {
        let reader = self.state.lock().reader.take();
        wake(reader);
    }
}

impl State {
    /// Counts bytes just appended as arrived or as under way. A zero count with a delay holds back the end of file.
    fn send(&mut self, count: usize, delay: Duration) {
        match self.under_way.back() {
            None if delay.is_zero() => self.arrived += count,
            // Bytes never overtake each other, whatever the jitter.
            last => {
                let when = Instant::now() + delay;
                let when = last.map_or(when, |(earlier, _)| when.max(*earlier));
                self.under_way.push_back((when, count));
            }
        }
    }

    fn let_arrive(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some((when, count)) = self.under_way.front().copied()
            && when <= now
        {
            self.under_way.pop_front();
            self.arrived += count;
        }
    }

    fn wait_for_bytes(&mut self, cx: &Context<'_>) {
        replace_waker(&mut self.reader, cx);
    }
}

fn replace_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
