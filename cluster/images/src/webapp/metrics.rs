//! The app's own metrics, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

use super::config::Config;

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Default)]
pub(super) struct Metrics(Mutex<Counters>);

#[derive(Default)]
struct Counters {
    requests: BTreeMap<u16, u64>,
    upstream: BTreeMap<Option<u16>, u64>,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    count: u64,
}

impl Metrics {
    /// Counts a request that was answered.
    pub(super) fn answered(&self, status: u16, duration: Duration) {
        let mut counters = self.0.lock();
        *counters.requests.entry(status).or_default() += 1;
        let seconds = duration.as_secs_f64();
        for (bucket, bound) in counters.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
        counters.seconds += seconds;
        counters.count += 1;
    }

    /// Counts a call to an upstream; `None` where there was no answer.
    pub(super) fn called(&self, status: Option<u16>) {
        *self.0.lock().upstream.entry(status).or_default() += 1;
    }

    pub(super) fn render(&self, config: &Config) -> String {
        let counters = self.0.lock();
        let who = format!("service={:?},version={:?}", config.service, config.version);
        let mut text = String::new();
        head(&mut text, "webapp_requests_total", "counter", "Requests answered, by status.");
        for (status, count) in &counters.requests {
            line(&mut text, "webapp_requests_total", &format!("{who},code=\"{status}\""), count);
        }
        head(&mut text, "webapp_upstream_requests_total", "counter", "Calls to upstreams, by status; code 0: no answer.");
        for (status, count) in &counters.upstream {
            let labels = format!("{who},code=\"{}\"", status.unwrap_or(0));
            line(&mut text, "webapp_upstream_requests_total", &labels, count);
        }
        head(&mut text, "webapp_request_duration_seconds", "histogram", "Time to answer a request.");
        for (count, bound) in counters.buckets.iter().zip(BUCKETS) {
            line(&mut text, "webapp_request_duration_seconds_bucket", &format!("{who},le=\"{bound}\""), count);
        }
        line(&mut text, "webapp_request_duration_seconds_bucket", &format!("{who},le=\"+Inf\""), counters.count);
        line(&mut text, "webapp_request_duration_seconds_sum", &who, counters.seconds);
        line(&mut text, "webapp_request_duration_seconds_count", &who, counters.count);
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}
