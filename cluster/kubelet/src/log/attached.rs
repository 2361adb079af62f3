//! Clients attached to a container: they see what it writes as it writes it, and it waits for those who are slow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Piece, Stream};

/// Bytes written ahead of an attached client before the container has to wait for it: a pipe's room.
const AHEAD: usize = 64 << 10;

/// The clients attached to a container; cloning shares them.
#[derive(Clone, Default)]
pub(super) struct AttachedClients(Arc<Mutex<Vec<Arc<Queue>>>>);

impl AttachedClients {
    /// One more client, who sees `first` and everything from now on.
    pub(super) fn add(&self, first: Option<Piece>) -> Attached {
        let queue = Arc::new(Queue::default());
        first.into_iter().for_each(|piece| queue.push(piece));
        self.0.lock().push(queue.clone());
        Attached(queue)
    }

    /// Gives every client the piece, once all of them have room for it.
    pub(super) fn poll_send(&self, stream: Stream, bytes: &[u8], context: &Context<'_>) -> Poll<()> {
        let mut clients = self.0.lock();
        clients.retain(|queue| !queue.state.lock().closed);
        if clients.is_empty() {
            return Poll::Ready(());
        }
        if clients.iter().any(|queue| queue.wait_for_room(context)) {
            return Poll::Pending;
        }
        let bytes = Bytes::copy_from_slice(bytes);
        clients.iter().for_each(|queue| queue.push((stream, bytes.clone())));
        Poll::Ready(())
    }

    /// The container has ended: clients see what they have not seen yet, and then the end.
    pub(super) fn end(&self) {
        for queue in self.0.lock().drain(..) {
            queue.close();
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// By either side.
    closed: bool,
    reader: Option<Waker>,
    writers: Vec<Waker>,
}

impl Queue {
    /// Whether there is no room yet; then the task is woken when there is.
    fn wait_for_room(&self, context: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        let full = state.bytes >= AHEAD && !state.closed;
        if full && !state.writers.iter().any(|writer| writer.will_wake(context.waker())) {
            state.writers.push(context.waker().clone());
        }
        full
    }

    fn push(&self, piece: Piece) {
        let mut state = self.state.lock();
        state.bytes += piece.1.len();
        state.pieces.push_back(piece);
        state.reader.take().into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.reader.take().into_iter().chain(state.writers.drain(..)).for_each(Waker::wake);
    }
}

/// An attached client's end. Dropping it lets the container go on without.
pub(crate) struct Attached(Arc<Queue>);

impl Attached {
    /// The next piece of output; `None` when the container has ended.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        std::future::poll_fn(|context| {
            let mut state = self.0.state.lock();
            if let Some(piece) = state.pieces.pop_front() {
                state.bytes -= piece.1.len();
                state.writers.drain(..).for_each(Waker::wake);
                return Poll::Ready(Some(piece));
            }
            if state.closed {
                return Poll::Ready(None);
            }
            state.reader = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.close();
    }
}
