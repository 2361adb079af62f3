//! A cache of all objects of one kind, kept up to date by a watch.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{TryStreamExt, pin_mut};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long to wait before a broken watch is opened again. The API server is in the same process: it either answers or is gone.
const RETRY: Duration = Duration::from_millis(200);

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::new(object.meta().namespace.as_deref().unwrap_or_default(), object.meta().name.as_deref().unwrap_or_default())
    }

    /// The key of this namespace and name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { write!(f, "{}", self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Called with the old and the new object; at least one of them is there.
type Handler<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// All objects of kind `K`, cached. Cloning shares the cache.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<K> {
    store: RwLock<BTreeMap<String, BTreeMap<String, Arc<K>>>>,
    /// Held while a change is applied and announced, so that handlers see changes one at a time and in order.
    dispatch: Mutex<Dispatch<K>>,
    synced: watch::Sender<bool>,
}

struct Dispatch<K> {
    handlers: Vec<Handler<K>>,
    /// The latest resource version that the watch has shown.
    seen: u64,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Begins to watch. The watch ends when `stop` is cancelled.
    pub fn start(api: Api<K>, stop: CancellationToken) -> Self {
        let inner = Arc::new(Inner {
            store: RwLock::default(),
            dispatch: Mutex::new(Dispatch { handlers: Vec::new(), seen: 0 }),
            synced: watch::Sender::new(false),
        });
        let informer = Self { inner };
        let watching = informer.clone();
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(watching.follow(api)).await;
        });
        informer
    }

    async fn follow(&self, api: Api<K>) {
        let stream = watcher::watcher(api, watcher::Config::default());
        pin_mut!(stream);
        let mut listed: Option<BTreeMap<Key, Arc<K>>> = None;
        loop {
            match stream.try_next().await {
                Ok(Some(Event::Init)) => listed = Some(BTreeMap::new()),
                Ok(Some(Event::InitApply(object))) => {
                    let object = slim(object);
                    if let Some(listed) = &mut listed {
                        listed.insert(Key::of(&object), Arc::new(object));
                    }
                }
                Ok(Some(Event::InitDone)) => {
                    if let Some(listed) = listed.take() {
                        self.replace(listed);
                    }
                    self.inner.synced.send_replace(true);
                }
                Ok(Some(Event::Apply(object))) => self.apply(slim(object), Source::Watch),
                Ok(Some(Event::Delete(object))) => self.remove(&object),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(kind = K::kind(&()).as_ref(), %error, "watch broke, opening it again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits until the first list is in the cache.
    pub async fn synced(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.inner.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.inner.store.read().get(namespace)?.get(name).cloned()
    }

    /// One object by its key.
    pub fn at(&self, key: &Key) -> Option<Arc<K>> {
        self.get(&key.namespace, &key.name)
    }

    /// All objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner.store.read().get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.store.read().values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Calls `handler` with every object there is, and from then on with every change, one at a time and in order.
    /// A handler must return at once and must not call [`Informer::observe`] or [`Informer::on_change`].
    pub fn on_change(&self, handler: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        let mut dispatch = self.inner.dispatch.lock();
        for object in self.all() {
            handler(None, Some(&object));
        }
        dispatch.handlers.push(Box::new(handler));
    }

    /// Puts the answer of a create, update or patch into the cache at once, unless the watch has shown something newer.
    pub fn observe(&self, object: K) {
        self.apply(slim(object), Source::Answer);
    }

    fn apply(&self, object: K, source: Source) {
        let mut dispatch = self.inner.dispatch.lock();
        let version = version(&object);
        let key = Key::of(&object);
        let old = self.at(&key);
        let known = old.as_ref().map(|old| self::version(old.as_ref()));
        let newer = match (source, known) {
            (_, Some(known)) => version > known,
            (Source::Watch, None) => true,
            // Older than the watch and not in the cache: it was deleted since.
            (Source::Answer, None) => version > dispatch.seen,
        };
        if source == Source::Watch {
            dispatch.seen = dispatch.seen.max(version);
        }
        if newer {
            let object = Arc::new(object);
            self.inner.store.write().entry(key.namespace).or_default().insert(key.name, object.clone());
            announce(&dispatch.handlers, old.as_ref(), Some(&object));
        }
    }

    fn remove(&self, object: &K) {
        let mut dispatch = self.inner.dispatch.lock();
        dispatch.seen = dispatch.seen.max(version(object));
        let key = Key::of(object);
        let same = self.at(&key).is_some_and(|known| known.meta().uid == object.meta().uid);
        if same && let Some(old) = self.take(&key) {
            announce(&dispatch.handlers, Some(&old), None);
        }
    }

    fn take(&self, key: &Key) -> Option<Arc<K>> {
        let mut store = self.inner.store.write();
        let objects = store.get_mut(&key.namespace)?;
        let old = objects.remove(&key.name);
        if objects.is_empty() {
            store.remove(&key.namespace);
        }
        old
    }

    fn replace(&self, listed: BTreeMap<Key, Arc<K>>) {
        let mut dispatch = self.inner.dispatch.lock();
        for known in self.all() {
            let key = Key::of(known.as_ref());
            if !listed.contains_key(&key) && version(known.as_ref()) <= dispatch.seen {
                self.take(&key);
                announce(&dispatch.handlers, Some(&known), None);
            }
        }
        for (key, object) in listed {
            let listed_version = version(object.as_ref());
            dispatch.seen = dispatch.seen.max(listed_version);
            let old = self.at(&key);
            if old.as_ref().is_none_or(|old| version(old.as_ref()) < listed_version) {
                self.inner.store.write().entry(key.namespace).or_default().insert(key.name, object.clone());
                announce(&dispatch.handlers, old.as_ref(), Some(&object));
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Watch,
    Answer,
}

fn announce<K>(handlers: &[Handler<K>], old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
    for handler in handlers {
        handler(old, new);
    }
}

/// Kubernetes says that resource versions are opaque; this cluster's own are one growing counter.
fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// No controller reads managed fields, and they are most of a small object's bytes.
fn slim<K: Resource>(mut object: K) -> K {
    object.managed_fields_mut().clear();
    object.meta_mut().managed_fields = None;
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn informer() -> Informer<ConfigMap> {
        Informer {
            inner: Arc::new(Inner {
                store: RwLock::default(),
                dispatch: Mutex::new(Dispatch { handlers: Vec::new(), seen: 0 }),
                synced: watch::Sender::new(false),
            }),
        }
    }

    fn object(name: &str, version: u64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.namespace = Some("ns".into());
        object.metadata.uid = Some(name.into());
        object.metadata.resource_version = Some(version.to_string());
        object
    }

    fn version_of(informer: &Informer<ConfigMap>, name: &str) -> Option<u64> {
        informer.get("ns", name).map(|object| version(object.as_ref()))
    }

    #[test]
    fn an_answer_is_readable_at_once_and_the_watch_does_not_take_it_back() {
        let informer = informer();
        informer.observe(object("a", 5));
        assert_eq!(version_of(&informer, "a"), Some(5));
        informer.apply(object("a", 4), Source::Watch);
        assert_eq!(version_of(&informer, "a"), Some(5));
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_object_back() {
        let informer = informer();
        informer.apply(object("a", 5), Source::Watch);
        informer.remove(&object("a", 6));
        informer.observe(object("a", 5));
        assert_eq!(version_of(&informer, "a"), None);
    }

    #[test]
    fn a_new_list_removes_what_is_gone_and_tells_the_handlers() {
        let informer = informer();
        informer.apply(object("a", 1), Source::Watch);
        informer.apply(object("b", 2), Source::Watch);
        let changes = Arc::new(Mutex::new(Vec::new()));
        let log = changes.clone();
        informer.on_change(move |old, new| {
            log.lock().push((old.map(|o| version(o.as_ref())), new.map(|o| version(o.as_ref()))));
        });
        informer.replace([object("b", 3)].into_iter().map(|o| (Key::of(&o), Arc::new(o))).collect());
        assert_eq!(*changes.lock(), [(None, Some(1)), (None, Some(2)), (Some(1), None), (Some(2), Some(3))]);
        assert_eq!(informer.all().len(), 1);
    }
}
