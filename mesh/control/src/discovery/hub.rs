//! Who is connected, and what each of them should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;
use meshlab_proxy_config::ProxyConfig;
use meshlab_proxy_config::discovery::{Comparisons, ControlMessage, Node, Rejection, Update, encode_message};
use serde::Serialize;
use tokio::sync::watch;

/// A state of the cluster that configuration is compiled from.
pub(crate) trait World: Send + Sync + 'static {
    /// What proxies that get the same configuration have in common.
    type Class: Ord + Clone + Send + Sync + 'static;

    /// The class of a proxy.
    fn class(&self, node: &Node) -> Self::Class;

    /// Something to be said about a resource.
    type Note: Ord + Send + 'static;

    /// The configurations of some classes, in the same order, and what was noticed. Pure: equal worlds and classes give equal
    /// configurations.
    fn compile(&self, classes: &[Self::Class]) -> (Vec<Arc<ProxyConfig>>, BTreeSet<Self::Note>);
}

/// What came of a new state of the cluster.
pub(crate) struct Published<Note> {
    /// How many classes of proxies have a new configuration.
    pub(crate) changed: usize,
    /// What was noticed while compiling.
    pub(crate) notes: BTreeSet<Note>,
}

/// The configuration of a class, at one moment.
pub(crate) struct Compiled {
    /// Increases whenever the configuration changes.
    pub(crate) version: u64,
    pub(crate) config: Arc<ProxyConfig>,
    /// The message that leads here from an earlier version, made once for all proxies of the class.
    delta: Option<(u64, Arc<Message>)>,
    /// The message that leads here from nothing, for as long as some proxy has it and has not answered: newcomers of a class mostly
    /// come together, and to keep it for others would take more memory than what it is made from.
    complete: Mutex<Weak<Message>>,
    since: Instant,
}

/// An update, ready to be sent.
pub(crate) struct Message {
    pub(crate) bytes: Bytes,
    pub(crate) counts: [(&'static str, usize); 5],
}

impl Message {
    fn new(update: Update) -> Arc<Self> {
        let counts = update.counts();
        Arc::new(Self { bytes: encode_message(&ControlMessage::Update(Box::new(update))).into(), counts })
    }
}

impl Compiled {
    /// The message that leads here from `had`.
    pub(crate) fn message_from(&self, had: Option<&Self>) -> Arc<Message> {
        match (&self.delta, had) {
            (Some((from, message)), Some(had)) if *from == had.version => message.clone(),
            (_, Some(had)) => Message::new(Update::between(self.version, Some(&had.config), &self.config)),
            (_, None) => self.complete_message(),
        }
    }

    fn complete_message(&self) -> Arc<Message> {
        let mut complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(message) = complete.upgrade() {
            return message;
        }
        let message = Message::new(Update::between(self.version, None, &self.config));
        *complete = Arc::downgrade(&message);
        message
    }

    /// How long ago it became the configuration to have.
    pub(crate) fn age_seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }
}

/// What a proxy has said about what it got.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ProxyStatus {
    /// Version last sent.
    pub(crate) sent: u64,
    /// Version last accepted, in whole or in part.
    pub(crate) acked: u64,
    /// What it refused of that version.
    pub(crate) rejected: Vec<RejectedResource>,
}

/// See [`Rejection`].
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RejectedResource {
    pub(crate) resource: String,
    pub(crate) message: String,
}

impl From<Rejection> for RejectedResource {
    fn from(rejection: Rejection) -> Self {
        Self { resource: rejection.resource, message: rejection.message }
    }
}

/// A connected proxy. It is forgotten when this is dropped.
pub(crate) struct Connected<W: World> {
    id: u64,
    hub: Arc<Hub<W>>,
    /// What it should have.
    pub(crate) target: watch::Receiver<Option<Arc<Compiled>>>,
    status: Arc<Mutex<ProxyStatus>>,
}

impl<W: World> Connected<W> {
    /// Notes what the proxy was sent or said.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProxyStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<W: World> Drop for Connected<W> {
    fn drop(&mut self) {
        self.hub.proxies.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Where a proxy's conversation learns what the proxy should have.
type Target = watch::Sender<Option<Arc<Compiled>>>;

struct Proxy {
    node: Arc<Node>,
    target: Target,
    status: Arc<Mutex<ProxyStatus>>,
}

/// All proxies and the configurations they should have.
pub(crate) struct Hub<W: World> {
    /// Held while something is compiled, so that worlds reach proxies in order.
    compiling: tokio::sync::Mutex<Compiling<W>>,
    proxies: Mutex<BTreeMap<u64, Proxy>>,
    next: AtomicU64,
    versions: AtomicU64,
}

struct Compiling<W: World> {
    world: Option<Arc<W>>,
    classes: BTreeMap<W::Class, Arc<Compiled>>,
}

impl<W: World> Default for Hub<W> {
    fn default() -> Self {
        Self {
            compiling: tokio::sync::Mutex::new(Compiling { world: None, classes: BTreeMap::new() }),
            proxies: Mutex::default(),
            next: AtomicU64::new(1),
            versions: AtomicU64::new(1),
        }
    }
}

impl<W: World> Hub<W> {
    /// A new state of the cluster: compiles what every connected class should have now and hands it to its proxies.
    pub(crate) async fn publish(&self, world: Arc<W>) -> Published<W::Note> {
        let mut compiling = self.compiling.lock().await;
        let targets = self.targets(&world);
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        let classes: Vec<_> = targets.iter().map(|(class, _)| class.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let mut tasks = tokio::task::JoinSet::new();
        for share in shares(classes) {
            let had: Vec<_> = share.iter().map(|class| compiling.classes.get(class).cloned()).collect();
            let world = world.clone();
            tasks.spawn_blocking(move || {
                let (configs, notes) = world.compile(&share);
                let mut comparisons = Comparisons::default();
                let mut now = Vec::with_capacity(configs.len());
                for (config, had) in configs.iter().zip(&had) {
                    now.push(advance(config, had.as_ref(), version, &mut comparisons));
                }
                (share.into_iter().zip(now), notes)
            });
        }
        let (mut compiled, mut notes) = (BTreeMap::new(), BTreeSet::new());
        while let Some(done) = tasks.join_next().await {
            // If compiling panics, those proxies keep what they have; the next state of the cluster is a new attempt.
            let Ok((share, noticed)) = done else { continue };
            compiled.extend(share);
            notes.extend(noticed);
        }
        for (class, target) in &targets {
            let Some(now) = compiled.get(class) else { continue };
            target.send_if_modified(|had| {
                let changed = had.as_ref().is_none_or(|had| had.version != now.version);
                if changed {
                    *had = Some(now.clone());
                }
                changed
            });
        }
        let changed = compiled.values().filter(|now| now.version == version).count();
        *compiling = Compiling { world: Some(world), classes: compiled };
        Published { changed, notes }
    }

    fn targets(&self, world: &W) -> Vec<(W::Class, Target)> {
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        proxies.values().map(|proxy| (world.class(&proxy.node), proxy.target.clone())).collect()
    }

    /// Takes in a proxy. Its target is set at once if there is a world already, else with the first one.
    pub(crate) async fn connect(self: &Arc<Self>, node: Node) -> Connected<W> {
        let mut compiling = self.compiling.lock().await;
        let mut compiled = None;
        if let Some(world) = compiling.world.clone() {
            let class = world.class(&node);
            compiled = compiling.classes.get(&class).cloned();
            if compiled.is_none() {
                let version = self.versions.fetch_add(1, Ordering::Relaxed);
                let compile = move || (world.compile(std::slice::from_ref(&class)).0.pop(), class);
                if let Ok((Some(config), class)) = tokio::task::spawn_blocking(compile).await {
                    let now = advance(&config, None, version, &mut Comparisons::default());
                    compiling.classes.insert(class, now.clone());
                    compiled = Some(now);
                }
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, target) = watch::channel(compiled);
        let status = Arc::new(Mutex::new(ProxyStatus::default()));
        let proxy = Proxy { node: Arc::new(node), target: sender, status: status.clone() };
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner).insert(id, proxy);
        Connected { id, hub: self.clone(), target, status }
    }

    /// Every connected proxy, with what it should have and what it said, by name.
    pub(crate) fn proxies(&self) -> Vec<(Arc<Node>, Option<Arc<Compiled>>, ProxyStatus)> {
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |proxy: &Proxy| proxy.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all: Vec<_> =
            proxies.values().map(|proxy| (proxy.node.clone(), proxy.target.borrow().clone(), status(proxy))).collect();
        all.sort_by_key(|(node, _, _)| node.name());
        all
    }
}

/// The classes, divided among the machine's cores.
fn shares<T>(mut classes: Vec<T>) -> Vec<Vec<T>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let size = classes.len().div_ceil(cores).max(1);
    let mut shares = Vec::new();
    while !classes.is_empty() {
        let rest = classes.split_off(size.min(classes.len()));
        shares.push(std::mem::replace(&mut classes, rest));
    }
    shares
}

/// What a class has after `had`: the same, if the new configuration is equal, so that nobody is told.
fn advance<'a>(
    new: &'a Arc<ProxyConfig>,
    had: Option<&'a Arc<Compiled>>,
    version: u64,
    comparisons: &mut Comparisons<'a>,
) -> Arc<Compiled> {
    let (config, since) = (new.clone(), Instant::now());
    let complete = Mutex::default();
    let Some(had) = had else { return Arc::new(Compiled { version, config, delta: None, complete, since }) };
    let update = Update::from_old(version, &had.config, new, comparisons);
    if update.is_empty() {
        return had.clone();
    }
    let delta = Some((had.version, Message::new(update)));
    Arc::new(Compiled { version, config, delta, complete, since })
}

#[cfg(test)]
mod tests {
    use meshlab_proxy_config::Endpoints;

    use super::*;

    /// A world in which every namespace has its own cluster, besides one that all share.
    struct Toy {
        shared: &'static str,
        private: BTreeMap<String, &'static str>,
    }

    impl World for Toy {
        type Class = String;

        fn class(&self, node: &Node) -> String {
            node.namespace.clone()
        }

        type Note = String;

        fn compile(&self, namespaces: &[String]) -> (Vec<Arc<ProxyConfig>>, BTreeSet<String>) {
            let config = |namespace: &String| {
                let names = [Some(self.shared), self.private.get(namespace).copied()];
                let endpoints = names.into_iter().flatten().map(|name| (name.to_owned(), Arc::new(Endpoints::default())));
                Arc::new(ProxyConfig { endpoints: endpoints.collect(), ..ProxyConfig::default() })
            };
            (namespaces.iter().map(config).collect(), namespaces.iter().cloned().collect())
        }
    }

    fn toy(shared: &'static str, private: &[(&str, &'static str)]) -> Arc<Toy> {
        Arc::new(Toy { shared, private: private.iter().map(|(ns, name)| ((*ns).to_owned(), *name)).collect() })
    }

    fn node(namespace: &str) -> Node {
        Node { namespace: namespace.into(), pod: "web".into(), ..Node::default() }
    }

    fn names(compiled: &Option<Arc<Compiled>>) -> Vec<String> {
        compiled.as_ref().map(|compiled| compiled.config.endpoints.keys().cloned().collect()).unwrap_or_default()
    }

    #[tokio::test]
    async fn only_classes_that_changed_are_told() {
        let hub = Arc::new(Hub::default());
        let (mut a, mut b) = (hub.connect(node("a")).await, hub.connect(node("b")).await);
        assert!(a.target.borrow().is_none(), "nothing is known yet");
        let published = hub.publish(toy("x", &[("a", "pa")])).await;
        assert_eq!((published.changed, published.notes.len()), (2, 2));
        assert_eq!(names(&a.target.borrow_and_update()), ["pa", "x"]);
        assert_eq!(names(&b.target.borrow_and_update()), ["x"]);
        assert_eq!(hub.publish(toy("x", &[("a", "pa2")])).await.changed, 1);
        assert!(a.target.has_changed().unwrap() && !b.target.has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_newcomer_gets_the_configuration_of_its_class() {
        let hub = Arc::new(Hub::default());
        hub.publish(toy("x", &[])).await;
        let first = hub.connect(node("a")).await;
        let second = hub.connect(node("a")).await;
        let (first, second) = (first.target.borrow().clone().unwrap(), second.target.borrow().clone().unwrap());
        assert!(Arc::ptr_eq(&first, &second), "compiled once");
    }

    #[tokio::test]
    async fn the_delta_is_made_once_and_fits_whoever_has_the_version_before() {
        let hub = Arc::new(Hub::default());
        hub.publish(toy("x", &[])).await;
        let mut proxy = hub.connect(node("a")).await;
        let first = proxy.target.borrow_and_update().clone().unwrap();
        hub.publish(toy("y", &[])).await;
        let second = proxy.target.borrow_and_update().clone().unwrap();
        hub.publish(toy("z", &[])).await;
        let third = proxy.target.borrow_and_update().clone().unwrap();
        let shared = |to: &Compiled, from| Arc::ptr_eq(&to.message_from(from), &to.message_from(from));
        assert!(shared(&third, Some(&second)));
        assert!(!shared(&third, Some(&first)), "a proxy that skipped a version gets a message of its own");
        let text = String::from_utf8(third.message_from(Some(&first)).bytes.to_vec()).unwrap();
        assert!(text.contains("\"z\"") && text.contains("\"removed\":[\"x\"]") && !text.contains("complete"), "{text}");
        let complete = third.message_from(None);
        assert!(String::from_utf8(complete.bytes.to_vec()).unwrap().contains("\"complete\":true"));
        assert!(Arc::ptr_eq(&complete, &third.message_from(None)), "newcomers share it while the first has not answered");
    }

    #[tokio::test]
    async fn a_proxy_that_leaves_is_forgotten() {
        let hub = Arc::new(Hub::<Toy>::default());
        let proxy = hub.connect(node("a")).await;
        assert_eq!(hub.proxies().len(), 1);
        drop(proxy);
        assert!(hub.proxies().is_empty());
    }
}
