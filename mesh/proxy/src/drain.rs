//! Draining: how connections learn that the proxy is going, without anything that they would share while they serve.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use ahash::AHashMap;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// How far draining has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum DrainState {
    Serving,
    /// Clients are asked to go.
    Draining,
    /// What is left is cut.
    Forced,
}

/// The state, and the connections that are to hear of it.
pub(crate) struct Drain {
    state: AtomicU8,
    connections: Mutex<AHashMap<u64, Weak<Control>>>,
}

/// One connection's own copy of the state.
struct Control {
    state: AtomicU8,
    waker: AtomicWaker,
}

/// A connection that is counted, and told, until this is dropped.
pub(crate) struct Registration {
    id: u64,
    control: Arc<Control>,
    drain: Arc<Drain>,
}

impl Drain {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(DrainState::Serving as u8), connections: Mutex::default() })
    }

    pub(crate) fn has_reached(&self, wanted: DrainState) -> bool {
        self.state.load(Ordering::Acquire) >= wanted as u8
    }

    /// Goes on to `state`; there is no way back.
    pub(crate) fn advance(&self, state: DrainState) {
        self.state.fetch_max(state as u8, Ordering::AcqRel);
        // Who registers after this reads the new state; who has registered before is in the table.
        for control in self.connections.lock().values().filter_map(Weak::upgrade) {
            control.state.fetch_max(state as u8, Ordering::AcqRel);
            control.waker.wake();
        }
    }

    pub(crate) fn register(self: &Arc<Self>, id: u64) -> Registration {
        let control = Arc::new(Control { state: AtomicU8::new(0), waker: AtomicWaker::new() });
        let mut connections = self.connections.lock();
        control.state.store(self.state.load(Ordering::Acquire), Ordering::Release);
        connections.insert(id, Arc::downgrade(&control));
        Registration { id, control, drain: self.clone() }
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.connections.lock().len()
    }
}

impl Registration {
    /// Waits until draining has gone further than `known`, and gives how far. Only the task that serves the connection may wait.
    pub(crate) async fn beyond(&self, known: DrainState) -> DrainState {
        poll_fn(|cx| {
            let next = || match self.control.state.load(Ordering::Acquire) {
                state if state <= known as u8 => None,
                state if state == DrainState::Draining as u8 => Some(DrainState::Draining),
                _ => Some(DrainState::Forced),
            };
            if let Some(state) = next() {
                return Poll::Ready(state);
            }
            self.control.waker.register(cx.waker());
            next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Waits for a state. Only the task that serves the connection may wait.
    pub(crate) async fn reached(&self, wanted: DrainState) {
        poll_fn(|cx| {
            let reached = || self.control.state.load(Ordering::Acquire) >= wanted as u8;
            if reached() {
                return Poll::Ready(());
            }
            self.control.waker.register(cx.waker());
            if reached() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.drain.connections.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_hear_of_draining_whether_they_came_before_or_after() {
        let drain = Drain::new();
        let before = drain.register(1);
        let waiting = tokio::spawn(async move {
            before.reached(DrainState::Draining).await;
            before
        });
        tokio::task::yield_now().await;
        drain.advance(DrainState::Draining);
        let before = waiting.await.unwrap();
        let after = drain.register(2);
        after.reached(DrainState::Draining).await;
        assert_eq!(drain.open_connections(), 2);
        drop((before, after));
        assert_eq!(drain.open_connections(), 0);
        assert!(drain.has_reached(DrainState::Draining) && !drain.has_reached(DrainState::Forced));
    }
}
