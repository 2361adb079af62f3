//! The last changes of one resource, and cursors that follow them.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::object::{Key, Object};

/// Changes kept per resource. A thousand pods coming up make some eight thousand, in about two seconds; a watcher that is
/// this far behind gets 410 and lists again.
const CAPACITY: usize = 8192;

/// A change stays as it is for so long, for the watchers that follow closely; then it is packed.
pub(super) const FRESH: Duration = Duration::from_millis(250);

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// The `type` of a watch event.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) change: Change,
    /// The object after the change; for a deletion its last state, at the revision of the deletion.
    pub(crate) object: Arc<Object>,
    /// The object before the change.
    pub(crate) previous: Option<Arc<Object>>,
    at: Instant,
    frame: OnceLock<Bytes>,
}

impl Event {
    pub(super) fn new(change: Change, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { change, object, previous, at: Instant::now(), frame: OnceLock::new() }
    }

    /// The event as a line of a JSON watch stream in the storage version; written once, shared by every watcher.
    pub(crate) fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| frame(self.change.name(), &self.object.json())).clone()
    }
}

/// A change that all close watchers have seen, as JSON. The tree of a pod takes several times the memory of its text, most of it
/// in half-empty maps: kept as trees, the changes of a lab's first minute were a third of what the lab used.
#[derive(Clone)]
struct Packed {
    change: Change,
    key: Key,
    revision: u64,
    json: Bytes,
    /// Revision and JSON of the object before the change.
    previous: Option<(u64, Bytes)>,
    at: Instant,
}

impl Packed {
    fn new(event: &Event) -> Self {
        Self {
            change: event.change,
            key: event.object.key.clone(),
            revision: event.object.revision,
            json: event.object.json(),
            previous: event.previous.as_ref().map(|previous| (previous.revision, previous.json())),
            at: event.at,
        }
    }

    fn unpack(self) -> Event {
        let object = |revision, json| Arc::new(Object::from_json(self.key.clone(), revision, json));
        Event {
            change: self.change,
            object: object(self.revision, self.json.clone()),
            previous: self.previous.as_ref().map(|(revision, json)| object(*revision, json.clone())),
            at: self.at,
            frame: OnceLock::new(),
        }
    }
}

#[derive(Clone)]
enum Entry {
    Fresh(Arc<Event>),
    Packed(Packed),
}

impl Entry {
    fn revision(&self) -> u64 {
        match self {
            Self::Fresh(event) => event.object.revision,
            Self::Packed(packed) => packed.revision,
        }
    }

    fn at(&self) -> Instant {
        match self {
            Self::Fresh(event) => event.at,
            Self::Packed(packed) => packed.at,
        }
    }

    fn event(self) -> Arc<Event> {
        match self {
            Self::Fresh(event) => event,
            Self::Packed(packed) => Arc::new(packed.unpack()),
        }
    }
}

/// A line of a watch stream.
pub(crate) fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 32);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// A revision from which the history does not reach to the present any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired {
    /// What was asked for.
    pub(crate) requested: u64,
    /// The oldest revision that would do.
    pub(crate) oldest: u64,
}

/// The last changes of a resource.
pub(super) struct History {
    ring: RwLock<Ring>,
    newest: watch::Sender<u64>,
}

struct Ring {
    events: VecDeque<Entry>,
    /// How many of them, from the oldest on, are packed.
    packed: usize,
    /// Revision of the last change that was forgotten.
    forgotten: u64,
    /// Revision of the last change, forgotten or not.
    newest: u64,
}

impl History {
    /// A history that knows nothing of what was up to `since`.
    pub(super) fn new(since: u64) -> Self {
        let ring = Ring { events: VecDeque::new(), packed: 0, forgotten: since, newest: since };
        Self { ring: RwLock::new(ring), newest: watch::Sender::new(since) }
    }

    pub(super) fn push(&self, event: Event) {
        let mut ring = self.ring.write();
        if ring.events.len() == CAPACITY {
            ring.forget_first();
        }
        ring.newest = event.object.revision;
        ring.events.push_back(Entry::Fresh(Arc::new(event)));
        ring.pack(FRESH);
    }

    /// Wakes the watchers.
    pub(super) fn announce(&self) {
        let newest = self.newest();
        self.newest.send_if_modified(|announced| newest > std::mem::replace(announced, newest.max(*announced)));
    }

    pub(super) fn newest(&self) -> u64 {
        self.ring.read().newest
    }

    /// The changes after a revision.
    pub(super) fn since(&self, revision: u64) -> Result<Vec<Arc<Event>>, Expired> {
        let ring = self.ring.read();
        ring.check(revision)?;
        let first = ring.events.partition_point(|event| event.revision() <= revision);
        let events: Vec<Entry> = ring.events.range(first..).cloned().collect();
        drop(ring);
        Ok(events.into_iter().map(Entry::event).collect())
    }

    /// Keeps changes older than `age` as JSON alone.
    pub(super) fn pack_older_than(&self, age: Duration) {
        self.ring.write().pack(age);
    }

    pub(super) fn forget_older_than(&self, age: Duration) {
        let mut ring = self.ring.write();
        while ring.events.front().is_some_and(|event| event.at().elapsed() > age) {
            ring.forget_first();
        }
        if ring.events.is_empty() {
            ring.events.shrink_to_fit();
        }
    }
}

impl Ring {
    /// Whether every change after a revision is remembered.
    fn check(&self, revision: u64) -> Result<(), Expired> {
        if revision < self.forgotten {
            return Err(Expired { requested: revision, oldest: self.forgotten });
        }
        Ok(())
    }

    fn forget_first(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.forgotten = event.revision();
            self.packed = self.packed.saturating_sub(1);
        }
    }

    fn pack(&mut self, age: Duration) {
        while let Some(entry) = self.events.get_mut(self.packed)
            && entry.at().elapsed() >= age
        {
            if let Entry::Fresh(event) = entry {
                *entry = Entry::Packed(Packed::new(event));
            }
            self.packed += 1;
        }
    }
}

/// A place in a resource's history.
pub(crate) struct Watcher {
    history: Arc<History>,
    wake: watch::Receiver<u64>,
    cursor: u64,
}

impl Watcher {
    pub(super) fn new(history: Arc<History>, since: u64) -> Result<Self, Expired> {
        history.ring.read().check(since)?;
        Ok(Self::from_now(history, since))
    }

    pub(super) fn from_now(history: Arc<History>, since: u64) -> Self {
        let mut wake = history.newest.subscribe();
        wake.mark_changed();
        Self { history, wake, cursor: since }
    }

    /// The revision of the last change that was handed out.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Waits for changes and hands them out in order. Cancel safe.
    ///
    /// # Errors
    /// This watcher was too slow: changes it has not seen are forgotten.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        loop {
            // The sender lives as long as the history, which this watcher holds.
            if self.wake.changed().await.is_err() {
                return std::future::pending().await;
            }
            let events = self.history.since(self.cursor)?;
            if let Some(last) = events.last() {
                self.cursor = last.object.revision;
                return Ok(events);
            }
        }
    }
}
