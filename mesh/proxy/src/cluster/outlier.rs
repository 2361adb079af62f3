//! Outlier detection: endpoints that fail are ejected for a while (fact 29).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use meshlab_proxy_config::OutlierDetection;
use parking_lot::Mutex;

use super::Cluster;
use super::host::Host;
use crate::options::milliseconds;

/// Envoy's default for `max_ejection_time`.
const MAXIMUM_EJECTION: Duration = Duration::from_secs(300);

/// How a request to a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostOutcome {
    /// The upstream answered with this status.
    Status(u16),
    /// A connection to it is there, for one request.
    Connected,
    /// It could not be reached, or broke off, or timed out.
    LocalFailure,
}

/// What is remembered of a host.
#[derive(Debug, Default)]
pub(crate) struct HostHealth {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    ejected: AtomicBool,
    ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
struct Ejection {
    since: Option<Instant>,
    count: u32,
}

impl HostHealth {
    pub(crate) fn ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
    }
}

/// Which detector fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detector {
    Consecutive5xx,
    ConsecutiveGateway,
    ConsecutiveLocal,
}

/// Counts `failed` and says whether the limit was just reached.
fn count(counter: &AtomicU32, failed: bool, limit: u32) -> bool {
    if !failed {
        // Read first: storing would bounce the cache line between cores on every success.
        if counter.load(Ordering::Relaxed) != 0 {
            counter.store(0, Ordering::Relaxed);
        }
        return false;
    }
    let reached = counter.fetch_add(1, Ordering::Relaxed) + 1;
    limit > 0 && reached >= limit
}

/// Takes note of how a request ended, and ejects its host when that was one failure too many.
pub(crate) fn observe(cluster: &Cluster, host: &Host, outcome: HostOutcome) {
    let Some(config) = &cluster.config.outlier_detection else { return };
    let health = &host.health;
    let detected = match outcome {
        HostOutcome::Status(status) => {
            count(&health.consecutive_local, false, 0);
            let gateway = count(&health.consecutive_gateway, matches!(status, 502..=504), config.consecutive_gateway_errors);
            let server = count(&health.consecutive_5xx, status >= 500, config.consecutive_5xx);
            if server { Some(Detector::Consecutive5xx) } else { gateway.then_some(Detector::ConsecutiveGateway) }
        }
        // Told apart from answers, failures in a row are failures to connect: every connection that is there ends the row.
        HostOutcome::Connected => {
            count(&health.consecutive_local, false, 0);
            None
        }
        HostOutcome::LocalFailure if config.split_local_errors => {
            count(&health.consecutive_local, true, config.consecutive_local_origin_failures).then_some(Detector::ConsecutiveLocal)
        }
        // Not split: a failure to connect counts as 503.
        HostOutcome::LocalFailure => {
            let gateway = count(&health.consecutive_gateway, true, config.consecutive_gateway_errors);
            let server = count(&health.consecutive_5xx, true, config.consecutive_5xx);
            if server { Some(Detector::Consecutive5xx) } else { gateway.then_some(Detector::ConsecutiveGateway) }
        }
    };
    if let Some(detector) = detected {
        eject(cluster, host, config, detector);
    }
}

fn eject(cluster: &Cluster, host: &Host, config: &OutlierDetection, detector: Detector) {
    let stats = &cluster.stats;
    let _rebuilding = cluster.rebuild.lock();
    let members = cluster.members();
    if host.health.ejected() || !members.all.iter().any(|member| std::ptr::eq(&*member.host, host)) {
        return;
    }
    if detector == Detector::Consecutive5xx {
        stats.outlier_detection_ejections_detected_consecutive_5xx.increment();
    }
    let ejected = members.all.iter().filter(|member| member.host.health.ejected()).count();
    // The host in question counts too, so that 10 % of fewer than ten hosts is none (envoy#27909).
    if 100 * (ejected + 1) > config.max_ejection_percent as usize * members.all.len() {
        stats.outlier_detection_ejections_overflow.increment();
        return;
    }
    {
        let mut ejection = host.health.ejection.lock();
        ejection.since = Some(Instant::now());
        ejection.count += 1;
    }
    host.health.ejected.store(true, Ordering::Relaxed);
    host.health.consecutive_5xx.store(0, Ordering::Relaxed);
    host.health.consecutive_gateway.store(0, Ordering::Relaxed);
    host.health.consecutive_local.store(0, Ordering::Relaxed);
    stats.outlier_detection_ejections_enforced_total.increment();
    match detector {
        Detector::Consecutive5xx => stats.outlier_detection_ejections_enforced_consecutive_5xx.increment(),
        Detector::ConsecutiveGateway => stats.outlier_detection_ejections_enforced_consecutive_gateway_failure.increment(),
        Detector::ConsecutiveLocal => stats.outlier_detection_ejections_enforced_consecutive_local_origin_failure.increment(),
    }
    stats.outlier_detection_ejections_active.increment();
    tracing::info!(cluster = %cluster.name, host = %host.address, ?detector, "ejected");
    cluster.rearrange(members.all.clone());
}

/// The interval's sweep: hosts whose time is over come back.
pub(crate) fn sweep(cluster: &Cluster, config: &OutlierDetection) {
    let _rebuilding = cluster.rebuild.lock();
    let members = cluster.members();
    let base = milliseconds(config.base_ejection_ms);
    let mut changed = false;
    for member in &members.all {
        let health = &member.host.health;
        let mut ejection = health.ejection.lock();
        match ejection.since {
            Some(since) => {
                let time = base.saturating_mul(ejection.count).min(MAXIMUM_EJECTION.max(base));
                if since.elapsed() >= time {
                    ejection.since = None;
                    health.ejected.store(false, Ordering::Relaxed);
                    cluster.stats.outlier_detection_ejections_active.decrement();
                    changed = true;
                }
            }
            // A host that stays healthy is forgiven, one ejection for each interval.
            None => ejection.count = ejection.count.saturating_sub(1),
        }
    }
    if changed {
        cluster.rearrange(members.all.clone());
    }
}
