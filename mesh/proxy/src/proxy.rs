//! The proxy as its host holds it: started, configured, given an identity, drained, stopped.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::FutureExt;
use meshlab_net::Net;
use meshlab_proxy_config::ProxyConfig;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Upstreams;
use crate::cluster::stats::Counter;
use crate::drain::{Drain, DrainState};
use crate::identity::{CurrentIdentity, IdentityError, LoadedIdentity, WorkloadIdentity};
use crate::io::{Erased, Network};
use crate::options::{Limits, ProxyOptions};
use crate::snapshot::{ApplyErrors, Snapshot};
use crate::telemetry::export::SpanQueue;
use crate::telemetry::metrics::Metrics;
use crate::{admin, listener};

/// A running proxy, generic over the network it lives on: the same code serves a virtual pod and a Linux process.
pub struct Proxy<N: Net> {
    shared: Arc<Shared>,
    net: std::marker::PhantomData<fn() -> N>,
}

/// What every task of a proxy shares.
pub(crate) struct Shared {
    pub(crate) options: ProxyOptions,
    pub(crate) limits: Arc<Limits>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) identity: CurrentIdentity,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) counters: Counters,
    pub(crate) spans: SpanQueue,
    pub(crate) started: Instant,
    own_identity: ArcSwapOption<Arc<str>>,
    /// Only one change is made at a time.
    applying: Mutex<Sockets>,
    /// Where tasks are spawned, whatever thread a change comes from.
    runtime: tokio::runtime::Handle,
    pub(crate) drain: Arc<Drain>,
    connection_ids: AtomicU64,
    stopped: CancellationToken,
    configured: AtomicBool,
    pub(crate) log_level: AtomicU8,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Counters of the proxy itself.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_total: Counter,
    pub(crate) connections_overflow: Counter,
    pub(crate) no_filter_chain_match: Counter,
    pub(crate) tls_handshakes: Counter,
    pub(crate) tls_errors: Counter,
    pub(crate) spans_dropped: Counter,
    pub(crate) config_updates: Counter,
    pub(crate) config_rejected: Counter,
    pub(crate) malformed_requests: Counter,
}

/// The sockets that are bound, by address.
#[derive(Default)]
struct Sockets(AHashMap<SocketAddr, (CancellationToken, SocketAddr)>);

impl Shared {
    pub(crate) fn own_identity(&self) -> Option<Arc<str>> {
        self.own_identity.load().as_ref().map(|identity| Arc::clone(&**identity))
    }

    /// The address that the proxy has by its node id (`sidecar~10.244.0.7~…`).
    pub(crate) fn own_address(&self) -> Option<IpAddr> {
        self.options.node_id.split('~').nth(1)?.parse().ok()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.has_reached(DrainState::Draining)
    }

    /// Clients are asked to go as their requests end. New connections are still accepted.
    pub(crate) fn discourage(&self) {
        self.drain.advance(DrainState::Draining);
    }

    pub(crate) fn start_draining(&self) {
        self.discourage();
        for (stop, _) in self.applying.lock().0.values() {
            stop.cancel();
        }
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.drain.open_connections()
    }

    /// A configuration was applied, and nothing drains.
    pub(crate) fn is_ready(&self) -> bool {
        self.configured.load(Ordering::Acquire) && !self.is_draining()
    }
}

impl<N: Net> Proxy<N> {
    /// Starts a proxy on `net`. It listens nowhere until it is configured, except for the administration interface.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(net: N, options: ProxyOptions) -> Self {
        let network: Arc<dyn Network> = Arc::new(Erased(net));
        let limits = Arc::new(options.limits.clone());
        let metrics = Arc::new(Metrics::new(limits.max_metric_series));
        let identity = CurrentIdentity::default();
        let (spans, queue) = SpanQueue::new();
        let upstreams = Arc::new(Upstreams {
            network: network.clone(),
            limits: limits.clone(),
            identity: identity.clone(),
            metrics: metrics.clone(),
        });
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::empty(&options.node_id, &metrics)),
            options,
            limits,
            network,
            identity,
            metrics,
            upstreams,
            counters: Counters::default(),
            spans,
            started: Instant::now(),
            own_identity: ArcSwapOption::empty(),
            applying: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            drain: Drain::new(),
            connection_ids: AtomicU64::new(1),
            stopped: CancellationToken::new(),
            configured: AtomicBool::new(false),
            log_level: AtomicU8::new(admin::DEFAULT_LEVEL),
            tasks: Mutex::default(),
        });
        let exporter = tokio::spawn(crate::telemetry::export::run(Arc::downgrade(&shared), queue));
        shared.tasks.lock().push(exporter);
        if let Some(address) = shared.options.admin_address {
            let task = tokio::spawn(admin::serve(shared.clone(), address, shared.stopped.clone()));
            shared.tasks.lock().push(task);
        }
        Self { shared, net: std::marker::PhantomData }
    }

    /// Takes over a configuration. What has not changed goes on untouched; a resource that is bad keeps its last good state.
    ///
    /// # Errors
    /// The resources that were rejected, and why. All others took effect.
    pub fn apply(&self, config: Arc<ProxyConfig>) -> Result<(), ApplyErrors> {
        let shared = &self.shared;
        let _runtime = shared.runtime.enter();
        let mut sockets = shared.applying.lock();
        let (next, mut errors) = shared.snapshot.load().next(&config, shared);
        let next = Arc::new(next);
        for cluster in next.clusters.values() {
            cluster.start();
        }
        shared.snapshot.store(next.clone());
        if !shared.is_draining() {
            self.bind(&mut sockets, &next, &mut errors);
        }
        shared.counters.config_updates.increment();
        shared.configured.store(true, Ordering::Release);
        if errors.0.is_empty() {
            return Ok(());
        }
        shared.counters.config_rejected.increment();
        Err(errors)
    }

    /// Opens the sockets that are wanted and closes those that are not. A socket stays when only its listener changes.
    fn bind(&self, sockets: &mut Sockets, snapshot: &Snapshot, errors: &mut ApplyErrors) {
        let shared = &self.shared;
        sockets.0.retain(|address, (stop, _)| {
            let wanted = snapshot.bound.contains_key(address);
            if !wanted {
                stop.cancel();
            }
            wanted
        });
        for (address, listener) in &snapshot.bound {
            if sockets.0.contains_key(address) {
                continue;
            }
            let listening = shared.network.listen(*address).now_or_never();
            match listening {
                Some(Ok(socket)) => {
                    let stop = shared.stopped.child_token();
                    sockets.0.insert(*address, (stop.clone(), socket.local_addr()));
                    tokio::spawn(listener::accept(shared.clone(), socket, *address, stop));
                }
                Some(Err(error)) => {
                    errors.0.insert(format!("listener/{}", listener.name), format!("cannot listen on {address}: {error}"));
                }
                None => {
                    let reason = format!("cannot listen on {address}: the network did not answer at once");
                    errors.0.insert(format!("listener/{}", listener.name), reason);
                }
            }
        }
    }

    /// The address a listener is really bound to; its port is known only then if it was configured as 0.
    pub fn bound_address(&self, listener: &str) -> Option<SocketAddr> {
        let snapshot = self.shared.snapshot.load();
        let address = snapshot.listeners.get(listener)?.config.address;
        self.shared.applying.lock().0.get(&address).map(|(_, bound)| *bound)
    }

    /// Takes over a new certificate. Handshakes from now on use it; open connections go on with the old one.
    ///
    /// # Errors
    /// The certificate, its key or the roots cannot be used; the old ones stay.
    pub fn set_identity(&self, identity: WorkloadIdentity) -> Result<(), IdentityError> {
        let loaded = LoadedIdentity::load(identity)?;
        let name = self.shared.metrics.peers.name(&loaded.spiffe_id);
        self.shared.own_identity.store(Some(Arc::new(name)));
        self.shared.identity.store(Some(Arc::new(loaded)));
        Ok(())
    }

    /// All metrics in Prometheus' text format, `istio_*` and `envoy_*`.
    pub fn metrics(&self) -> String {
        admin::stats::prometheus(&self.shared)
    }

    /// The stock of named counters and gauges as `/stats` prints them.
    pub fn stats(&self) -> String {
        admin::stats::text(&self.shared, None)
    }

    /// The configuration in effect.
    pub fn config(&self) -> Arc<ProxyConfig> {
        self.shared.snapshot.load().config.clone()
    }

    /// Whether a configuration was applied and the proxy is not draining.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Asks clients to go (`connection: close`, GOAWAY) as their requests end, and goes on accepting: the application may need its
    /// proxy to finish what it does, and clients that do not know yet that it is going must not be refused.
    pub fn start_draining(&self) {
        self.shared.discourage();
    }

    /// Connections of clients that are open.
    pub fn active_connections(&self) -> usize {
        self.shared.open_connections()
    }

    /// Takes no new connections, asks clients to go, and waits for what is under way, at most for `limit`.
    pub fn drain(&self, limit: Duration) -> impl Future<Output = ()> + Send + use<N> {
        let shared = self.shared.clone();
        async move {
            shared.start_draining();
            let deadline = tokio::time::Instant::now() + limit;
            let mut poll = tokio::time::interval(Duration::from_millis(10));
            while shared.open_connections() > 0 {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => break,
                    _ = poll.tick() => {}
                }
            }
        }
    }

    /// Stops at once: every socket is closed, what is under way is cut.
    pub async fn stop(self) {
        self.shared.start_draining();
        self.shared.drain.advance(DrainState::Forced);
        self.shared.stopped.cancel();
        let tasks = std::mem::take(&mut *self.shared.tasks.lock());
        for task in tasks {
            task.abort();
            // It was aborted: there is nothing to learn from how it ended.
            let _ = task.await;
        }
    }
}

impl<N: Net> Drop for Proxy<N> {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
        self.shared.drain.advance(DrainState::Forced);
        for task in self.shared.tasks.lock().drain(..) {
            task.abort();
        }
    }
}
