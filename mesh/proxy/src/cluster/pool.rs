//! Connections to an endpoint: idle HTTP/1.1 ones are kept, an HTTP/2 one is shared.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Cluster;
use super::breaker::{Permit, Resource};
use super::connect::{self, ConnectError, Transport};
use super::host::Host;
use super::stats::ClusterStats;
use crate::http::body::RequestBody;
use crate::options::{HYPER_MAX_HEADERS, milliseconds};
use crate::tls::client::Inner;
use crate::tls::peer::PeerCertificate;

/// Stacks of idle connections: more than there are threads that could have one in hand at once, on most machines.
const STACKS: usize = 16;

/// The connections of one host.
#[derive(Default)]
pub(crate) struct Pool {
    idle: OnceLock<Box<Idle>>,
    /// Connections there are, idle or not.
    open: AtomicU32,
    shared: ArcSwapOption<Multiplexed>,
    connecting: tokio::sync::Mutex<()>,
    /// Requests that wait because the cluster has all the connections it may have.
    waiting: AtomicU32,
    freed: Notify,
}

/// Idle connections. A stack that somebody else has in hand is passed over, so that nobody ever waits for it.
#[derive(Default)]
struct Idle {
    stacks: [Mutex<Vec<Http1>>; STACKS],
    occupied: AtomicUsize,
    /// The stack that was used last: as long as nobody is in the way, the connection used last is used next.
    hint: AtomicUsize,
}

/// What is known of an upstream connection.
pub(crate) struct ConnectionFacts {
    pub(crate) local_text: String,
    pub(crate) peer_certificate: Option<Arc<PeerCertificate>>,
    pub(crate) mesh: bool,
    /// Our own identity and the upstream's, as metrics keep them.
    pub(crate) principals: Option<(Arc<str>, Arc<str>)>,
}

/// A connection for one request at a time.
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    pub(crate) facts: Arc<ConnectionFacts>,
    served: u32,
    idle_since: Instant,
}

/// A connection for many.
pub(crate) struct Multiplexed {
    pub(crate) sender: http2::SendRequest<RequestBody>,
    pub(crate) facts: Arc<ConnectionFacts>,
    served: AtomicU32,
}

/// Why a pool has no connection to give.
#[derive(Debug, Clone)]
pub(crate) enum PoolError {
    /// A circuit breaker is open.
    Overflow,
    Connect(ConnectError),
}

impl From<ConnectError> for PoolError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

/// How idle connections are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// Stacks that somebody else has in hand are passed over.
    Quick,
    /// Nothing is passed over: the caller is about to wait, and must not miss what is there.
    Thorough,
}

impl Idle {
    fn pop(&self, search: Search) -> Option<Http1> {
        if self.occupied.load(Ordering::Acquire) == 0 {
            return None;
        }
        let start = self.hint.load(Ordering::Relaxed);
        for offset in 0..STACKS {
            let index = (start + offset) % STACKS;
            let stack = match search {
                Search::Quick => self.stacks[index].try_lock(),
                Search::Thorough => Some(self.stacks[index].lock()),
            };
            if let Some(connection) = stack.and_then(|mut stack| stack.pop()) {
                self.occupied.fetch_sub(1, Ordering::AcqRel);
                return Some(connection);
            }
        }
        None
    }

    fn push(&self, connection: Http1) {
        self.occupied.fetch_add(1, Ordering::AcqRel);
        let mut index = self.hint.load(Ordering::Relaxed);
        loop {
            if let Some(mut stack) = self.stacks[index].try_lock() {
                stack.push(connection);
                self.hint.store(index, Ordering::Relaxed);
                return;
            }
            index = (index + 1) % STACKS;
        }
    }

    fn retain(&self, mut keep: impl FnMut(&Http1) -> bool) {
        for stack in &self.stacks {
            let mut stack = stack.lock();
            let before = stack.len();
            stack.retain(&mut keep);
            self.occupied.fetch_sub(before - stack.len(), Ordering::AcqRel);
        }
    }
}

/// A connection's place in the breaker's count; it frees the place, and wakes who waits for one, when the connection ends.
struct Occupancy {
    _permit: Permit,
    cluster: Weak<Cluster>,
    /// They outlive the cluster.
    stats: Arc<ClusterStats>,
    host: Arc<Host>,
}

impl Drop for Occupancy {
    fn drop(&mut self) {
        self.host.pool.open.fetch_sub(1, Ordering::Relaxed);
        self.host.stats.cx_active.decrement();
        self.stats.upstream_cx_active.decrement();
        self.stats.upstream_cx_destroy.increment();
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.wake_waiting();
        }
    }
}

/// A number of requests that wait, less one when dropped.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(crate) fn wake_waiting(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.freed.notify_one();
        }
    }

    /// Closes idle connections that have been idle for too long.
    pub(crate) fn close_idle(&self, limit: Duration) {
        if let Some(idle) = self.idle.get() {
            idle.retain(|connection| connection.idle_since.elapsed() < limit && !connection.sender.is_closed());
        }
    }

    /// Closes all idle connections; those in use are closed after their request.
    pub(crate) fn close_all(&self) {
        if let Some(idle) = self.idle.get() {
            idle.retain(|_| false);
        }
        self.shared.store(None);
    }

    async fn pop_usable(&self, idle_timeout_ms: u64, search: Search) -> Option<Http1> {
        let idle = self.idle.get()?;
        loop {
            let mut connection = idle.pop(search)?;
            let expired = idle_timeout_ms > 0 && connection.idle_since.elapsed() >= milliseconds(idle_timeout_ms);
            // A connection is put back as soon as its response has ended; its task may have to catch up with that.
            if !expired
                && !connection.sender.is_closed()
                && (connection.sender.is_ready() || connection.sender.ready().await.is_ok())
            {
                return Some(connection);
            }
        }
    }

    fn occupy(cluster: &Arc<Cluster>, host: &Arc<Host>) -> Option<Occupancy> {
        let permit = match cluster.breaker.acquire(Resource::Connections) {
            Some(permit) => permit,
            None if host.pool.open.load(Ordering::Relaxed) == 0 => cluster.breaker.acquire_beyond(Resource::Connections),
            None => {
                cluster.stats.upstream_cx_overflow.increment();
                return None;
            }
        };
        host.pool.open.fetch_add(1, Ordering::Relaxed);
        host.stats.cx_active.increment();
        cluster.stats.upstream_cx_active.increment();
        Some(Occupancy { _permit: permit, cluster: Arc::downgrade(cluster), stats: cluster.stats.clone(), host: host.clone() })
    }
}

impl Cluster {
    /// An HTTP/1.1 connection to `host`, idle or new.
    pub(crate) async fn http1(self: &Arc<Self>, host: &Arc<Host>) -> Result<Http1, PoolError> {
        let pool = &host.pool;
        if let Some(connection) = pool.pop_usable(self.config.idle_timeout_ms, Search::Quick).await {
            return Ok(connection);
        }
        let _pending = self.pend()?;
        loop {
            if let Some(occupancy) = Pool::occupy(self, host) {
                return self.connect_http1(host, occupancy).await;
            }
            pool.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&pool.waiting);
            let freed = pool.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            // What became free before we were listening.
            if let Some(connection) = pool.pop_usable(self.config.idle_timeout_ms, Search::Thorough).await {
                return Ok(connection);
            }
            if let Some(occupancy) = Pool::occupy(self, host) {
                return self.connect_http1(host, occupancy).await;
            }
            freed.await;
            if let Some(connection) = pool.pop_usable(self.config.idle_timeout_ms, Search::Thorough).await {
                return Ok(connection);
            }
        }
    }

    /// The shared HTTP/2 connection to `host`, made when there is none.
    pub(crate) async fn http2(self: &Arc<Self>, host: &Arc<Host>) -> Result<Arc<Multiplexed>, PoolError> {
        if let Some(connection) = self.shared(host) {
            return Ok(connection);
        }
        let _pending = self.pend()?;
        let _one_at_a_time = host.pool.connecting.lock().await;
        if let Some(connection) = self.shared(host) {
            return Ok(connection);
        }
        let occupancy = Pool::occupy(self, host).ok_or(PoolError::Overflow)?;
        let transport = connect::open(self, host, Inner::Http2, None).await?;
        self.stats.upstream_cx_http2_total.increment();
        let facts = Arc::new(ConnectionFacts::of(self, &transport));
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(hyper_util::rt::TokioTimer::new())
            // Envoy's windows: a slow stream must not stall the others, a fast one must not wait for updates.
            .initial_stream_window_size(16 * 1024 * 1024)
            .initial_connection_window_size(24 * 1024 * 1024)
            .max_header_list_size(self.shared.limits.max_head_bytes as u32)
            .handshake(TokioIo::new(transport.io))
            .await
            .map_err(|error| ConnectError::Tcp(error.to_string()))?;
        tokio::spawn(async move {
            let _occupancy = occupancy;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream HTTP/2 connection ended");
            }
        });
        let connection = Arc::new(Multiplexed { sender, facts, served: AtomicU32::new(1) });
        host.pool.shared.store(Some(connection.clone()));
        Ok(connection)
    }

    fn shared(&self, host: &Host) -> Option<Arc<Multiplexed>> {
        let connection = host.pool.shared.load_full()?;
        if connection.sender.is_closed() {
            return None;
        }
        let limit = self.config.max_requests_per_connection;
        if connection.served.fetch_add(1, Ordering::Relaxed) >= limit && limit > 0 {
            self.stats.upstream_cx_max_requests.increment();
            host.pool.shared.store(None);
            return None;
        }
        Some(connection)
    }

    fn pend(&self) -> Result<PendingRequest<'_>, PoolError> {
        let Some(permit) = self.breaker.acquire(Resource::Pending) else {
            self.stats.upstream_rq_pending_overflow.increment();
            return Err(PoolError::Overflow);
        };
        self.stats.upstream_rq_pending_total.increment();
        self.stats.upstream_rq_pending_active.increment();
        Ok(PendingRequest { cluster: self, _permit: permit })
    }

    async fn connect_http1(&self, host: &Host, occupancy: Occupancy) -> Result<Http1, PoolError> {
        let transport = connect::open(self, host, Inner::Http1, None).await?;
        self.stats.upstream_cx_http1_total.increment();
        let facts = Arc::new(ConnectionFacts::of(self, &transport));
        let limits = &self.shared.limits;
        let mut builder = http1::Builder::new();
        if limits.max_headers != HYPER_MAX_HEADERS {
            builder.max_headers(limits.max_headers);
        }
        let (sender, connection) = builder
            .max_header_size(limits.max_head_bytes)
            .handshake(TokioIo::new(transport.io))
            .await
            .map_err(|error| ConnectError::Tcp(error.to_string()))?;
        tokio::spawn(async move {
            let _occupancy = occupancy;
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream HTTP/1.1 connection ended");
            }
        });
        Ok(Http1 { sender, facts, served: 0, idle_since: Instant::now() })
    }

    /// Takes a connection back after its response has ended.
    pub(crate) fn release(&self, host: &Host, mut connection: Http1) {
        connection.served += 1;
        let limit = self.config.max_requests_per_connection;
        if limit > 0 && connection.served >= limit {
            self.stats.upstream_cx_max_requests.increment();
            return;
        }
        if connection.sender.is_closed() {
            return;
        }
        connection.idle_since = Instant::now();
        host.pool.idle.get_or_init(Box::default).push(connection);
        host.pool.wake_waiting();
    }
}

impl ConnectionFacts {
    pub(crate) fn of(cluster: &Cluster, transport: &Transport) -> Self {
        let upstream = transport.peer_certificate.as_ref().and_then(|certificate| certificate.spiffe_id.as_deref());
        let own = cluster.shared.identity.load_full();
        let names = &cluster.shared.metrics.peers;
        let principals = own.zip(upstream).map(|(own, upstream)| (names.name(&own.spiffe_id), names.name(upstream)));
        Self {
            principals,
            local_text: transport.local.to_string(),
            peer_certificate: transport.peer_certificate.clone(),
            mesh: transport.mesh,
        }
    }
}

struct PendingRequest<'a> {
    cluster: &'a Cluster,
    _permit: Permit,
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        self.cluster.stats.upstream_rq_pending_active.decrement();
    }
}
