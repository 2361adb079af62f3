//! One endpoint and what is remembered of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use meshlab_proxy_config::EndpointMetadata;

use super::outlier::HostHealth;
use super::pool::Pool;
use super::stats::HostStats;
use crate::telemetry::peer::{Peer, Peers};

/// An endpoint. It lives as long as its address and metadata stay the same.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    /// As a log writes it, so that nothing is formatted for each request.
    pub(crate) address_text: String,
    pub(crate) metadata: EndpointMetadata,
    /// What telemetry says of it when it does not say so itself.
    pub(crate) peer: Arc<Peer>,
    /// Requests and TCP connections under way.
    active: AtomicU32,
    pub(crate) pool: Pool,
    pub(crate) health: HostHealth,
    pub(crate) stats: HostStats,
    pub(crate) added: Instant,
}

impl Host {
    pub(crate) fn new(address: SocketAddr, metadata: EndpointMetadata, peers: &Peers) -> Arc<Self> {
        Arc::new(Self {
            address,
            address_text: address.to_string(),
            peer: peers.intern(Peer::of_endpoint(&metadata)),
            metadata,
            active: AtomicU32::new(0),
            pool: Pool::default(),
            health: HostHealth::default(),
            stats: HostStats::default(),
            added: Instant::now(),
        })
    }

    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn start_request(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.stats.rq_total.increment();
        self.stats.rq_active.increment();
        ActiveRequest(self.clone())
    }
}

/// A request that a host is serving.
pub(crate) struct ActiveRequest(Arc<Host>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0.stats.rq_active.decrement();
    }
}
