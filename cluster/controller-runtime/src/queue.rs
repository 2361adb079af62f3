//! A queue of keys to reconcile: a key stands in it once, and is never handled twice at a time.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::tasks::catch_panic;

/// First wait after a failure; doubles with every further one.
const FIRST_RETRY: Duration = Duration::from_millis(10);
/// Longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What a reconciliation asks for when it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Handle the key again after so long, even if nothing changes.
    pub again: Option<Duration>,
    /// Do not handle the key sooner than after so long, however often it is added: many changes become one reconciliation.
    pub rest: Duration,
}

impl Outcome {
    /// Handle the key again after so long.
    pub fn again(after: Duration) -> Self {
        Self { again: Some(after), ..Self::default() }
    }

    /// Leaves a pause that grows with the `work` (items) that a reconciliation has, so that a mass of changes costs a few passes
    /// and a single change costs no wait that a person could notice.
    #[must_use]
    pub fn resting(mut self, work: usize) -> Self {
        self.rest = Duration::from_micros(50) * u32::try_from(work).unwrap_or(u32::MAX);
        self
    }
}

/// The queue; cloning shares it.
pub struct WorkQueue<K> {
    state: Arc<Mutex<State<K>>>,
    wake: Arc<Notify>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), wake: self.wake.clone() }
    }
}

struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    running: HashSet<K>,
    /// Added while it was running.
    again: HashSet<K>,
    timers: BTreeMap<(Instant, u64), K>,
    timer_of: HashMap<K, (Instant, u64)>,
    rest_until: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

impl<K: Hash + Eq + Clone + Debug + Send + 'static> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq + Clone + Debug + Send + 'static> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            timers: BTreeMap::new(),
            timer_of: HashMap::new(),
            rest_until: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), wake: Arc::default() }
    }

    /// Adds a key, unless it waits already.
    pub fn add(&self, key: K) {
        self.state.lock().add(key, Instant::now());
        self.wake.notify_one();
    }

    /// Adds a key once `after` has passed; the earlier of two such times counts.
    pub fn add_after(&self, key: K, after: Duration) {
        self.state.lock().add_at(key, Instant::now() + after);
        self.wake.notify_one();
    }

    /// The next key to handle; [`WorkQueue::done`] must follow.
    async fn next(&self) -> K {
        loop {
            let until = {
                let mut state = self.state.lock();
                state.ripen(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.running.insert(key.clone());
                    return key;
                }
                state.timers.keys().next().map(|(at, _)| *at)
            };
            match until {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.wake.notified() => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    fn done(&self, key: K, outcome: Result<Outcome, ()>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.running.remove(&key);
        let again = match outcome {
            Ok(outcome) => {
                state.failures.remove(&key);
                if outcome.rest.is_zero() {
                    state.rest_until.remove(&key);
                } else {
                    state.rest_until.insert(key.clone(), now + outcome.rest);
                }
                outcome.again
            }
            Err(()) => {
                let failures = state.failures.entry(key.clone()).or_default();
                let wait = FIRST_RETRY.saturating_mul(1 << (*failures).min(16)).min(LAST_RETRY);
                *failures += 1;
                Some(wait)
            }
        };
        if state.again.remove(&key) {
            state.add(key.clone(), now);
        }
        if let Some(after) = again {
            state.add_at(key, now + after);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Hands keys to `handle`, at most `workers` at a time, for ever. A failure or a panic is logged and tried again later,
    /// with growing pauses.
    pub async fn run<E: Display>(&self, controller: &str, workers: usize, handle: impl AsyncHandler<K, E>) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                key = self.next(), if running.len() < workers => {
                    let work = catch_panic(handle.handle(key.clone()));
                    running.push(async move { (key, work.await) });
                }
                Some((key, result)) = running.next() => {
                    let outcome = match result {
                        Ok(Ok(outcome)) => Ok(outcome),
                        Ok(Err(error)) => {
                            tracing::debug!(controller, ?key, %error, "reconciliation failed");
                            Err(())
                        }
                        Err(panic) => {
                            tracing::error!(controller, ?key, panic, "reconciliation panicked");
                            Err(())
                        }
                    };
                    self.done(key, outcome);
                }
            }
        }
    }
}

/// An asynchronous function from a key to an [`Outcome`].
pub trait AsyncHandler<K, E> {
    /// Reconciles one key.
    fn handle(&self, key: K) -> impl Future<Output = Result<Outcome, E>> + Send;
}

impl<K, E, F, R> AsyncHandler<K, E> for F
where
    F: Fn(K) -> R,
    R: Future<Output = Result<Outcome, E>> + Send,
{
    fn handle(&self, key: K) -> impl Future<Output = Result<Outcome, E>> + Send {
        self(key)
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    fn add(&mut self, key: K, now: Instant) {
        if self.running.contains(&key) {
            self.again.insert(key);
            return;
        }
        match self.rest_until.get(&key) {
            Some(until) if *until > now => {
                let until = *until;
                self.add_at(key, until);
            }
            _ => self.push(key),
        }
    }

    fn push(&mut self, key: K) {
        self.rest_until.remove(&key);
        if let Some(timer) = self.timer_of.remove(&key) {
            self.timers.remove(&timer);
        }
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if self.queued.contains(&key) {
            return;
        }
        if let Some(timer) = self.timer_of.get(&key) {
            if timer.0 <= at {
                return;
            }
            self.timers.remove(timer);
        }
        self.sequence += 1;
        let timer = (at, self.sequence);
        self.timers.insert(timer, key.clone());
        self.timer_of.insert(key, timer);
    }

    /// Moves the keys whose time has come to the ready ones.
    fn ripen(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.timer_of.remove(&key);
            if self.running.contains(&key) {
                self.again.insert(key);
            } else {
                self.push(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_not_handled_twice_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err(), "it is still running");
        queue.done("a", Ok(Outcome::default()));
        assert_eq!(queue.next().await, "a");
        queue.done("a", Ok(Outcome::default()));
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer() {
        let queue = WorkQueue::new();
        let begin = Instant::now();
        queue.add(1);
        for _ in 0..3 {
            let key = queue.next().await;
            queue.done(key, Err(()));
        }
        queue.next().await;
        assert_eq!(begin.elapsed(), Duration::from_millis(10 + 20 + 40));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_gathers_many_changes_into_one_pass() {
        let queue = WorkQueue::new();
        queue.add(1);
        let key = queue.next().await;
        queue.done(key, Ok(Outcome { rest: Duration::from_millis(30), again: None }));
        let begin = Instant::now();
        queue.add(1);
        queue.add(1);
        queue.next().await;
        assert_eq!(begin.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_counts() {
        let queue = WorkQueue::new();
        let begin = Instant::now();
        queue.add_after(1, Duration::from_secs(5));
        queue.add_after(1, Duration::from_secs(2));
        queue.add_after(1, Duration::from_secs(9));
        queue.next().await;
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure_and_the_queue_goes_on() {
        let queue = WorkQueue::new();
        queue.add(1);
        let calls = std::sync::atomic::AtomicU32::new(0);
        let handle = |_: u32| {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                assert_ne!(call, 0, "the first call fails");
                Ok::<_, std::convert::Infallible>(Outcome::default())
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), queue.run("test", 1, handle)).await;
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
