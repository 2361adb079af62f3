//! Circuit breakers: how much may be under way in one cluster at once (fact 28).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use meshlab_proxy_config::CircuitBreaker;

/// The live counts against a cluster's limits.
#[derive(Debug)]
pub(crate) struct Breaker {
    limits: CircuitBreaker,
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

/// One of the four resources.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resource {
    Connections,
    Pending,
    Requests,
    Retries,
}

/// A unit of a resource, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    resource: Resource,
}

impl Breaker {
    pub(crate) fn new(limits: CircuitBreaker) -> Arc<Self> {
        Arc::new(Self {
            limits,
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            retries: AtomicU32::new(0),
        })
    }

    fn counter(&self, resource: Resource) -> (&AtomicU32, u32) {
        match resource {
            Resource::Connections => (&self.connections, self.limits.max_connections),
            Resource::Pending => (&self.pending, self.limits.max_pending_requests),
            Resource::Requests => (&self.requests, self.limits.max_requests),
            Resource::Retries => (&self.retries, self.limits.max_retries),
        }
    }

    /// A permit, or `None` when the limit is reached.
    pub(crate) fn acquire(self: &Arc<Self>, resource: Resource) -> Option<Permit> {
        let (counter, limit) = self.counter(resource);
        if counter.fetch_add(1, Ordering::Relaxed) >= limit {
            counter.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit { breaker: self.clone(), resource })
    }

    /// A permit beyond the limit: each host may always have one connection, or requests that wait for it would never be served.
    pub(crate) fn acquire_beyond(self: &Arc<Self>, resource: Resource) -> Permit {
        self.counter(resource).0.fetch_add(1, Ordering::Relaxed);
        Permit { breaker: self.clone(), resource }
    }

    pub(crate) fn in_use(&self, resource: Resource) -> u32 {
        self.counter(resource).0.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.counter(self.resource).0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_28_limits_are_unbounded_unless_set_and_then_exact() {
        let default = CircuitBreaker::default();
        assert_eq!(
            [default.max_connections, default.max_pending_requests, default.max_requests, default.max_retries],
            [u32::MAX; 4]
        );
        let breaker = Breaker::new(CircuitBreaker { max_requests: 2, ..default });
        let first = breaker.acquire(Resource::Requests).unwrap();
        let _second = breaker.acquire(Resource::Requests).unwrap();
        assert!(breaker.acquire(Resource::Requests).is_none());
        drop(first);
        assert!(breaker.acquire(Resource::Requests).is_some());
        assert_eq!(breaker.in_use(Resource::Requests), 1);
    }
}
