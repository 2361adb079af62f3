//! istiod's own metrics, under Istio's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

/// Upper bounds, in seconds, of histogram buckets; those of Istio's `pilot_proxy_convergence_time` with finer ones in front,
/// because a lab converges in milliseconds.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

struct Family {
    kind: Kind,
    help: &'static str,
    /// By label text, `{type="cds"}`, or empty.
    values: BTreeMap<String, f64>,
}

#[derive(Default)]
struct Histogram {
    help: &'static str,
    buckets: [u64; BUCKETS.len()],
    sum: f64,
    count: u64,
}

/// A registry. Families appear when they are first touched.
#[derive(Default)]
pub(crate) struct Metrics {
    families: Mutex<BTreeMap<&'static str, Family>>,
    histograms: Mutex<BTreeMap<&'static str, Histogram>>,
}

impl Metrics {
    /// Counts one more.
    pub(crate) fn count(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) {
        self.touch(name, help, Kind::Counter, labels, |value| *value += 1.0);
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)], to: f64) {
        self.touch(name, help, Kind::Gauge, labels, |value| *value = to);
    }

    fn touch(&self, name: &'static str, help: &'static str, kind: Kind, labels: &[(&str, &str)], change: impl FnOnce(&mut f64)) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let mut families = lock(&self.families);
        let family = families.entry(name).or_insert_with(|| Family { kind, help, values: BTreeMap::new() });
        change(family.values.entry(labels).or_default());
    }

    /// Observes a duration in seconds.
    pub(crate) fn observe(&self, name: &'static str, help: &'static str, seconds: f64) {
        let mut histograms = lock(&self.histograms);
        let histogram = histograms.entry(name).or_insert_with(|| Histogram { help, ..Histogram::default() });
        for (count, bound) in histogram.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        histogram.sum += seconds;
        histogram.count += 1;
    }

    /// All of it, in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in lock(&self.families).iter() {
            let kind = if family.kind == Kind::Counter { "counter" } else { "gauge" };
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, value) in &family.values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        for (name, histogram) in lock(&self.histograms).iter() {
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} histogram", histogram.help);
            for (count, bound) in histogram.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
            }
            let (sum, count) = (histogram.sum, histogram.count);
            let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
        }
        text
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A panic while it was held left nothing half done: every change here is one number.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_prometheus_text() {
        let metrics = Metrics::default();
        metrics.count("pilot_xds_pushes", "Pushes.", &[("type", "cds")]);
        metrics.count("pilot_xds_pushes", "Pushes.", &[("type", "cds")]);
        metrics.set("pilot_xds", "Proxies.", &[("version", "a\"b")], 3.0);
        metrics.observe("pilot_proxy_convergence_time", "Delay.", 0.004);
        insta::assert_snapshot!(metrics.render(), @r#"
        # HELP pilot_xds Proxies.
        # TYPE pilot_xds gauge
        pilot_xds{version="a\"b"} 3
        # HELP pilot_xds_pushes Pushes.
        # TYPE pilot_xds_pushes counter
        pilot_xds_pushes{type="cds"} 2
        # HELP pilot_proxy_convergence_time Delay.
        # TYPE pilot_proxy_convergence_time histogram
        pilot_proxy_convergence_time_bucket{le="0.001"} 0
        pilot_proxy_convergence_time_bucket{le="0.005"} 1
        pilot_proxy_convergence_time_bucket{le="0.01"} 1
        pilot_proxy_convergence_time_bucket{le="0.025"} 1
        pilot_proxy_convergence_time_bucket{le="0.05"} 1
        pilot_proxy_convergence_time_bucket{le="0.1"} 1
        pilot_proxy_convergence_time_bucket{le="0.5"} 1
        pilot_proxy_convergence_time_bucket{le="1"} 1
        pilot_proxy_convergence_time_bucket{le="3"} 1
        pilot_proxy_convergence_time_bucket{le="5"} 1
        pilot_proxy_convergence_time_bucket{le="+Inf"} 1
        pilot_proxy_convergence_time_sum 0.004
        pilot_proxy_convergence_time_count 1
        "#);
    }
}
