//! Links between hosts, and what can be wrong with them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A longer delay is a cut.
const LONGEST: Duration = Duration::from_secs(3600);

/// Which traffic a condition or a capture concerns. Links have no direction; traffic within one host is on no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// Between these two hosts.
    Between(IpAddr, IpAddr),
    /// Between this host and every other.
    Of(IpAddr),
    /// Every link there is.
    All,
}

impl Link {
    /// Whether traffic between `a` and `b` is on this link.
    pub fn includes(&self, a: IpAddr, b: IpAddr) -> bool {
        match *self {
            Self::Between(x, y) => (x, y) == (a, b) || (x, y) == (b, a),
            Self::Of(host) => host == a || host == b,
            Self::All => true,
        }
    }
}

/// A link's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkCondition {
    /// Every byte takes longer, in each direction: `delay`, and a random part of `jitter`. Connecting takes a round trip.
    Latency {
        /// One way; an hour at most.
        delay: Duration,
        /// At most so much on top, newly drawn for every write.
        jitter: Duration,
    },
    /// As if the cable were pulled: connecting hangs (and times out after two minutes), open streams stall, both go on when the
    /// condition is removed.
    Cut,
    /// As if a router said so: connecting fails with `HostUnreachable` at once, open streams stall.
    Unreachable,
    /// As if a firewall killed it: open streams are reset, connecting fails with `ConnectionReset`.
    Reset,
}

/// Names a condition, for removing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConditionId(pub(super) u64);

/// Several conditions at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) cut: bool,
    pub(super) unreachable: bool,
    pub(super) reset: bool,
}

impl Conditions {
    pub(super) fn of(all: &[(ConditionId, Link, LinkCondition)], a: IpAddr, b: IpAddr) -> Self {
        let mut sum = Self::default();
        for (_, _, condition) in all.iter().filter(|(_, link, _)| link.includes(a, b)) {
            match *condition {
                LinkCondition::Latency { delay, jitter } => {
                    sum.delay = sum.delay.saturating_add(delay).min(LONGEST);
                    sum.jitter = sum.jitter.saturating_add(jitter).min(LONGEST);
                }
                LinkCondition::Cut => sum.cut = true,
                LinkCondition::Unreachable => sum.unreachable = true,
                LinkCondition::Reset => sum.reset = true,
            }
        }
        sum
    }

    /// How long the next bytes take, one way.
    pub(super) fn one_way(&self) -> Duration {
        if self.jitter.is_zero() { self.delay } else { self.delay + self.jitter.mul_f64(rand::random()) }
    }
}

/// The conditions of an open connection, readable without a lock.
#[derive(Default)]
pub(super) struct LiveConditions {
    cut: AtomicBool,
    delayed: AtomicBool,
    delay_nanos: AtomicU64,
    jitter_nanos: AtomicU64,
}

impl LiveConditions {
    pub(super) fn set(&self, conditions: &Conditions) {
        self.delay_nanos.store(nanos(conditions.delay), Ordering::Relaxed);
        self.jitter_nanos.store(nanos(conditions.jitter), Ordering::Relaxed);
        self.delayed.store(!conditions.delay.is_zero() || !conditions.jitter.is_zero(), Ordering::Relaxed);
        self.cut.store(conditions.cut || conditions.unreachable, Ordering::Release);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(super) fn one_way(&self) -> Duration {
        if !self.delayed.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let delay = Duration::from_nanos(self.delay_nanos.load(Ordering::Relaxed));
        let jitter = Duration::from_nanos(self.jitter_nanos.load(Ordering::Relaxed));
        Conditions { delay, jitter, ..Conditions::default() }.one_way()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
