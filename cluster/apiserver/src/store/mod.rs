//! Where the objects are: in memory, under one revision counter, with a bounded history of changes per resource.
//!
//! One lock guards the tables, so that revisions are handed out in the order of the commits and a list at revision *n*
//! holds every change up to *n*. Watchers hold no queue: each is a cursor into its resource's [`History`], so a watcher that
//! does not read costs nothing and finds its place gone when it returns.

mod history;
mod journal;
mod object;
mod recovery;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde_json::Value;

pub(crate) use history::{Change, Event, Expired, Watcher, frame};
pub(crate) use object::{GroupResource, Key, Object};
pub use recovery::OpenError;

use history::History;
use journal::Journal;

/// The objects of one cluster.
pub(crate) struct Store {
    state: RwLock<State>,
    journal: Option<Mutex<Journal>>,
}

struct State {
    revision: u64,
    /// What was before this revision was in an earlier life: nobody remembers the changes.
    born: u64,
    tables: HashMap<GroupResource, Table>,
}

struct Table {
    objects: BTreeMap<Key, Arc<Object>>,
    history: Arc<History>,
}

impl Table {
    fn new(since: u64) -> Self {
        Self { objects: BTreeMap::new(), history: Arc::new(History::new(since)) }
    }
}

/// What a write believes to be in the store; another writer may have been faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Nothing has this key.
    Absent,
    /// The object is still at this revision.
    Revision(u64),
}

/// What to do with a key.
pub(crate) enum Write {
    /// Store this value.
    Put(Value),
    /// Remove the object, whose last state was this value.
    Delete(Value),
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// [`Expect::Absent`] met an object.
    #[error("the object exists")]
    Exists,
    /// [`Expect::Revision`] met another revision.
    #[error("the object has been modified")]
    Changed,
    /// [`Expect::Revision`] met nothing.
    #[error("the object is gone")]
    Missing,
    /// The journal cannot be written, so that nothing was changed.
    #[error("cannot write {path}: {source}; reads still work, writes will when there is room again")]
    Disk {
        /// The journal.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The objects of a resource at one revision, in the order of their keys.
pub(crate) struct Listing {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Arc<Object>>,
}

impl Store {
    /// An empty store, or the one that `directory` holds.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, OpenError> {
        let Some(directory) = directory else {
            return Ok(Self { state: RwLock::new(State { revision: 1, born: 0, tables: HashMap::new() }), journal: None });
        };
        let recovered = recovery::recover(directory)?;
        let revision = recovered.revision.max(1);
        let mut tables: HashMap<GroupResource, Table> = HashMap::new();
        for (resource, key, object) in recovered.objects {
            tables.entry(resource).or_insert_with(|| Table::new(revision)).objects.insert(key, Arc::new(object));
        }
        Ok(Self { state: RwLock::new(State { revision, born: revision, tables }), journal: Some(Mutex::new(recovered.journal)) })
    }

    /// The revision of the last commit.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// The object with this key.
    pub(crate) fn get(&self, resource: &GroupResource, key: &Key) -> Option<Arc<Object>> {
        self.state.read().tables.get(resource)?.objects.get(key).cloned()
    }

    /// The revision of the resource's last change, 0 if it never had one.
    pub(crate) fn newest(&self, resource: &GroupResource) -> u64 {
        self.state.read().tables.get(resource).map_or(0, |table| table.history.newest())
    }

    /// How many objects the resource has.
    pub(crate) fn count(&self, resource: &GroupResource) -> usize {
        self.state.read().tables.get(resource).map_or(0, |table| table.objects.len())
    }

    /// All objects of a resource, or those of a namespace.
    pub(crate) fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Listing {
        let state = self.state.read();
        Listing { revision: state.revision, objects: state.select(resource, namespace) }
    }

    /// The same as they were at an earlier revision.
    pub(crate) fn list_at(&self, resource: &GroupResource, namespace: Option<&str>, at: u64) -> Result<Listing, Expired> {
        let state = self.state.read();
        let Some(table) = state.tables.get(resource) else {
            let oldest = state.born;
            return if at < oldest {
                Err(Expired { requested: at, oldest })
            } else {
                Ok(Listing { revision: at, objects: Vec::new() })
            };
        };
        let later = table.history.since(at)?;
        if later.is_empty() {
            return Ok(Listing { revision: at, objects: state.select(resource, namespace) });
        }
        let mut objects: BTreeMap<Key, Arc<Object>> =
            state.select(resource, namespace).into_iter().map(|object| (object.key.clone(), object)).collect();
        drop(state);
        for event in
            later.iter().rev().filter(|event| namespace.is_none_or(|namespace| event.object.key.namespace() == namespace))
        {
            match &event.previous {
                Some(previous) => objects.insert(previous.key.clone(), previous.clone()),
                None => objects.remove(&event.object.key),
            };
        }
        Ok(Listing { revision: at, objects: objects.into_values().collect() })
    }

    /// Follows a resource from just after a revision.
    pub(crate) fn watch(&self, resource: &GroupResource, since: u64) -> Result<Watcher, Expired> {
        Watcher::new(self.history(resource), since)
    }

    /// Lists a resource and follows it from there.
    pub(crate) fn list_and_watch(&self, resource: &GroupResource, namespace: Option<&str>) -> (Listing, Watcher) {
        let history = self.history(resource);
        let listing = self.list(resource, namespace);
        let watcher = Watcher::from_now(history, listing.revision);
        (listing, watcher)
    }

    /// The newest revision at which a watcher that stands at `cursor` has missed nothing, for a bookmark.
    pub(crate) fn caught_up(&self, resource: &GroupResource, cursor: u64) -> Option<u64> {
        let state = self.state.read();
        let newest = state.tables.get(resource).map_or(0, |table| table.history.newest());
        (newest <= cursor).then_some(state.revision.max(cursor))
    }

    fn history(&self, resource: &GroupResource) -> Arc<History> {
        if let Some(table) = self.state.read().tables.get(resource) {
            return table.history.clone();
        }
        let mut state = self.state.write();
        let born = state.born;
        state.tables.entry(resource.clone()).or_insert_with(|| Table::new(born)).history.clone()
    }

    /// Writes one object if the expectation holds. The stored value carries its new `metadata.resourceVersion`.
    pub(crate) fn commit(
        &self,
        resource: &GroupResource,
        key: &Key,
        expect: Expect,
        write: Write,
    ) -> Result<Arc<Object>, CommitError> {
        let mut state = self.state.write();
        let revision = state.revision + 1;
        let born = state.born;
        let table = state.tables.entry(resource.clone()).or_insert_with(|| Table::new(born));
        let previous = table.objects.get(key).cloned();
        match (expect, &previous) {
            (Expect::Absent, None) => {}
            (Expect::Absent, Some(_)) => return Err(CommitError::Exists),
            (Expect::Revision(_), None) => return Err(CommitError::Missing),
            (Expect::Revision(expected), Some(current)) if current.revision == expected => {}
            (Expect::Revision(_), Some(_)) => return Err(CommitError::Changed),
        }
        let (change, value) = match write {
            Write::Put(value) if previous.is_some() => (Change::Modified, value),
            Write::Put(value) => (Change::Added, value),
            Write::Delete(value) => (Change::Deleted, value),
        };
        let object = Arc::new(Object::new(key.clone(), revision, value));
        if let Some(journal) = &self.journal {
            let mut journal = journal.lock();
            journal
                .append(resource, &object, change == Change::Deleted)
                .map_err(|source| CommitError::Disk { path: journal.path().display().to_string(), source })?;
        }
        match change {
            Change::Added | Change::Modified => table.objects.insert(key.clone(), object.clone()),
            Change::Deleted => table.objects.remove(key),
        };
        let history = table.history.clone();
        history.push(Event::new(change, object.clone(), previous));
        state.revision = revision;
        if let Some(journal) = &self.journal
            && journal.lock().wants_compaction()
        {
            let all = state.tables.iter();
            let all =
                all.flat_map(|(name, table)| table.objects.values().map(move |object| (name.clone(), object.clone()))).collect();
            journal.lock().compact(revision, all);
        }
        drop(state);
        history.announce();
        Ok(object)
    }

    /// Lets objects rest, forgets changes older than `age` and packs those that are not fresh, so that an idle cluster is a small one.
    pub(crate) fn forget_older_than(&self, age: Duration) {
        let state = self.state.read();
        let histories: Vec<Arc<History>> = state.tables.values().map(|table| table.history.clone()).collect();
        let objects: Vec<Arc<Object>> = state.tables.values().flat_map(|table| table.objects.values().cloned()).collect();
        drop(state);
        objects.iter().for_each(|object| object.rest());
        for history in histories {
            history.forget_older_than(age);
            history.pack_older_than(history::FRESH);
        }
    }

    /// From now on the journal has no room; what it wrote to is returned.
    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn fill_the_disk(&self) -> std::fs::File {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        self.journal.as_ref().unwrap().lock().write_to(full)
    }

    /// Gives the journal its file back.
    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn free_the_disk(&self, file: std::fs::File) {
        self.journal.as_ref().unwrap().lock().write_to(file);
    }

    /// Writes what the system still buffers to the disk and lets go of the data directory. Reads go on, writes fail.
    pub(crate) fn close(&self) {
        if let Some(journal) = &self.journal
            && let Err(error) = journal.lock().close()
        {
            tracing::warn!(%error, "cannot flush the journal");
        }
    }
}

impl State {
    fn select(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(table) = self.tables.get(resource) else { return Vec::new() };
        match namespace {
            None => table.objects.values().cloned().collect(),
            Some(namespace) => {
                let (first, end) = Key::namespace_range(namespace);
                table.objects.range((Bound::Included(first), Bound::Excluded(end))).map(|(_, object)| object.clone()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
