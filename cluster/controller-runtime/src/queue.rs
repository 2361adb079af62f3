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
/// Longest wait while a failure is young: what a starting lab waits for, such as a webhook's pod, comes within a second or two.
const EARLY_RETRY: Duration = Duration::from_millis(100);
/// Failures in a row that count as young.
const EARLY_FAILURES: u32 = 30;
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
        Self { state: Arc::new(Mutex::new(State::new())), wake: Arc::default() }
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
                if let Some(key) = state.take(Instant::now()) {
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
        self.state.lock().done(key, outcome, Instant::now());
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

/// How long to wait after so many earlier failures in a row.
fn retry_after(failures: u32) -> Duration {
    match failures.checked_sub(EARLY_FAILURES) {
        None => (FIRST_RETRY * (1 << failures.min(4))).min(EARLY_RETRY),
        Some(late) => (EARLY_RETRY * (1 << late.min(10))).min(LAST_RETRY),
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
    fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            timers: BTreeMap::new(),
            timer_of: HashMap::new(),
            rest_until: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        }
    }

    /// The next key whose time has come.
    fn take(&mut self, now: Instant) -> Option<K> {
        self.ripen(now);
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: K, outcome: Result<Outcome, ()>, now: Instant) {
        self.running.remove(&key);
        let again = match outcome {
            Ok(outcome) => {
                self.failures.remove(&key);
                if outcome.rest.is_zero() {
                    self.rest_until.remove(&key);
                } else {
                    self.rest_until.insert(key.clone(), now + outcome.rest);
                }
                outcome.again
            }
            Err(()) => {
                let failures = self.failures.entry(key.clone()).or_default();
                let wait = retry_after(*failures);
                *failures += 1;
                Some(wait)
            }
        };
        if self.again.remove(&key) {
            self.add(key.clone(), now);
        }
        if let Some(after) = again {
            self.add_at(key, now + after);
        }
    }

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

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_key_waits_once_and_is_not_handled_twice_at_a_time() {
        let (mut state, now) = (State::new(), Instant::now());
        state.add("a", now);
        state.add("a", now);
        assert_eq!(state.take(now), Some("a"));
        state.add("a", now);
        assert_eq!(state.take(now), None, "it is still running");
        state.done("a", Ok(Outcome::default()), now);
        assert_eq!(state.take(now), Some("a"));
        state.done("a", Ok(Outcome::default()), now);
        assert_eq!(state.take(now), None);
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let (mut state, mut now) = (State::new(), Instant::now());
        state.add(1, now);
        for wait in [10, 20, 40] {
            assert_eq!(state.take(now), Some(1));
            state.done(1, Err(()), now);
            assert_eq!(state.take(now + (wait - 1) * MS), None);
            now += wait * MS;
        }
        assert_eq!([4, 29, 30, 33, 99].map(retry_after).map(|wait| wait.as_millis()), [100, 100, 100, 800, 10_000]);
    }

    #[test]
    fn a_rest_gathers_many_changes_into_one_pass() {
        let (mut state, now) = (State::new(), Instant::now());
        state.add(1, now);
        state.take(now);
        state.done(1, Ok(Outcome { rest: 30 * MS, again: None }), now);
        state.add(1, now + MS);
        state.add(1, now + 2 * MS);
        assert_eq!(state.take(now + 29 * MS), None);
        assert_eq!(state.take(now + 30 * MS), Some(1));
        state.done(1, Ok(Outcome::default()), now + 31 * MS);
        assert_eq!(state.take(now + 99 * MS), None);
    }

    #[test]
    fn the_earlier_of_two_times_counts() {
        let (mut state, now) = (State::new(), Instant::now());
        for after in [5, 2, 9] {
            state.add_at(1, now + after * MS);
        }
        assert_eq!(state.take(now + MS), None);
        assert_eq!(state.take(now + 2 * MS), Some(1));
        state.done(1, Ok(Outcome::default()), now + 3 * MS);
        assert_eq!(state.take(now + 99 * MS), None);
    }

    #[tokio::test]
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
        let handled_again = async {
            while calls.load(std::sync::atomic::Ordering::Relaxed) < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = queue.run("test", 1, handle) => {}
            () = handled_again => {}
        }
    }
}
