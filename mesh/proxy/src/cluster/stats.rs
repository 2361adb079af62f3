//! Counters of a cluster and of its hosts, by Envoy's names. They outlive changes to the cluster's configuration.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only its writers and the scrape touch.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($(#[$doc:meta])* $name:ident { counters { $($counter:ident),* $(,)? } gauges { $($gauge:ident),* $(,)? } }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name { $(pub(crate) $counter: Counter,)* $(pub(crate) $gauge: Counter,)* }

        impl $name {
            /// Name, whether it is a counter, value.
            pub(crate) fn values(&self) -> Vec<(&'static str, bool, u64)> {
                vec![$((stringify!($counter), true, self.$counter.get()),)* $((stringify!($gauge), false, self.$gauge.get()),)*]
            }
        }
    };
}

stats! {
    /// `cluster.<name>.*`
    ClusterStats {
        counters {
            upstream_cx_total, upstream_cx_http1_total, upstream_cx_http2_total, upstream_cx_connect_fail, upstream_cx_connect_timeout,
            upstream_cx_destroy, upstream_cx_overflow, upstream_cx_max_requests, upstream_cx_idle_timeout, upstream_cx_none_healthy,
            upstream_cx_rx_bytes_total, upstream_cx_tx_bytes_total,
            upstream_rq_total, upstream_rq_completed, upstream_rq_2xx, upstream_rq_3xx, upstream_rq_4xx, upstream_rq_5xx,
            upstream_rq_retry, upstream_rq_retry_success, upstream_rq_retry_overflow, upstream_rq_retry_limit_exceeded,
            upstream_rq_pending_total, upstream_rq_pending_overflow, upstream_rq_pending_failure_eject,
            upstream_rq_timeout, upstream_rq_per_try_timeout, upstream_rq_rx_reset, upstream_rq_tx_reset, upstream_rq_cancelled,
            outlier_detection_ejections_enforced_total, outlier_detection_ejections_enforced_consecutive_5xx,
            outlier_detection_ejections_enforced_consecutive_gateway_failure,
            outlier_detection_ejections_enforced_consecutive_local_origin_failure,
            outlier_detection_ejections_detected_consecutive_5xx, outlier_detection_ejections_overflow,
            ssl_handshake, ssl_connection_error,
        }
        gauges { upstream_cx_active, upstream_rq_active, upstream_rq_pending_active, outlier_detection_ejections_active }
    }
}

stats! {
    /// What `/clusters` says of a host.
    HostStats {
        counters { cx_total, cx_connect_fail, rq_total, rq_success, rq_error, rq_timeout }
        gauges { cx_active, rq_active }
    }
}

impl ClusterStats {
    /// Counts a response by its class.
    pub(crate) fn completed(&self, status: u16) {
        self.upstream_rq_completed.increment();
        match status / 100 {
            2 => self.upstream_rq_2xx.increment(),
            3 => self.upstream_rq_3xx.increment(),
            4 => self.upstream_rq_4xx.increment(),
            5 => self.upstream_rq_5xx.increment(),
            _ => {}
        }
    }
}
