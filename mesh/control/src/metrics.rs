//! istiod's own metrics, under Istio's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

/// Upper bounds, in seconds, of histogram buckets; those of Istio's `pilot_proxy_convergence_time` with finer ones in front,
/// because a lab converges in milliseconds.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0];

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric with `LABELS` labels.
#[derive(Debug)]
pub(crate) struct Metric<const LABELS: usize> {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    labels: [&'static str; LABELS],
}

/// Declares metrics, and lists them for the test that compares them with Istio's.
macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(crate) const $constant: Metric<{ <[&str]>::len(&[$($label),*]) }> =
            Metric { kind: Kind::$kind, name: $name, help: $help, labels: [$($label),*] };)*

        #[cfg(test)]
        const ALL: &[(&str, Kind, &[&str], &str)] = &[$(($name, Kind::$kind, &[$($label),*], $help)),*];
    };
}

// As `pilot-discovery`'s page <https://istio.io/latest/docs/reference/commands/pilot-discovery/#metrics> lists them, with the labels
// that Istio's sources give them.
metrics! {
    CSRS: Counter "citadel_server_csr_count" [] "The number of CSRs received by Citadel server.";
    CSR_AUTHENTICATION_FAILURES: Counter "citadel_server_authentication_failure_count" [] "The number of authentication failures.";
    CSR_SIGNING_ERRORS: Counter "citadel_server_csr_sign_err_count" ["error"] "The number of errors occurred when signing the CSR.";
    CSR_SUCCESSES: Counter "citadel_server_success_cert_issuance_count" [] "The number of certificates issuances that have succeeded.";
    VALIDATION_PASSED: Counter "galley_validation_passed" ["group", "version", "resource"] "Resource is valid";
    VALIDATION_FAILED: Counter "galley_validation_failed" ["group", "version", "resource", "reason"] "Resource validation failed";
    INFO: Gauge "pilot_info" ["version"] "Pilot version and build information.";
    CONFIG_EVENTS: Counter "pilot_k8s_cfg_events" ["type", "event"] "Events from k8s config.";
    CONVERGENCE_TIME: Histogram "pilot_proxy_convergence_time" [] "Delay in seconds between config change and a proxy receiving all required configuration.";
    SERVICES: Gauge "pilot_services" [] "Total services known to pilot.";
    REJECTS: Counter "pilot_total_xds_rejects" ["type"] "Total number of XDS responses from pilot rejected by proxy.";
    VIRTUAL_SERVICES: Gauge "pilot_virt_services" [] "Total virtual services known to pilot.";
    PROXIES: Gauge "pilot_xds" ["version"] "Number of endpoints connected to this pilot using XDS.";
    PUSHES: Counter "pilot_xds_pushes" ["type"] "Pilot build and send errors for lds, rds, cds and eds.";
    INJECTION_REQUESTS: Counter "sidecar_injection_requests_total" [] "Total number of sidecar injection requests.";
    INJECTION_FAILURES: Counter "sidecar_injection_failure_total" [] "Total number of failed sidecar injection requests.";
    INJECTION_SKIPS: Counter "sidecar_injection_skip_total" [] "Total number of skipped sidecar injection requests.";
    INJECTION_SUCCESSES: Counter "sidecar_injection_success_total" [] "Total number of successful sidecar injection requests.";
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
    pub(crate) fn count<const LABELS: usize>(&self, metric: &Metric<LABELS>, values: [&str; LABELS]) {
        self.touch(metric, values, |value| *value += 1.0);
    }

    /// Sets a gauge.
    pub(crate) fn set<const LABELS: usize>(&self, metric: &Metric<LABELS>, values: [&str; LABELS], to: f64) {
        self.touch(metric, values, |value| *value = to);
    }

    fn touch<const LABELS: usize>(&self, metric: &Metric<LABELS>, values: [&str; LABELS], change: impl FnOnce(&mut f64)) {
        let labels: Vec<_> =
            metric.labels.iter().zip(values).map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let mut families = lock(&self.families);
        let new = || Family { kind: metric.kind, help: metric.help, values: BTreeMap::new() };
        change(families.entry(metric.name).or_insert_with(new).values.entry(labels).or_default());
    }

    /// Observes a duration in seconds.
    pub(crate) fn observe(&self, metric: &Metric<0>, seconds: f64) {
        let mut histograms = lock(&self.histograms);
        let histogram = histograms.entry(metric.name).or_insert_with(|| Histogram { help: metric.help, ..Histogram::default() });
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
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind.name());
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

    /// Names, kinds, labels and words as Istio has them: dashboards and alerts made for istiod read ours.
    #[test]
    fn metrics_are_those_that_istio_documents() {
        let lines: Vec<_> = ALL
            .iter()
            .map(|(name, kind, labels, help)| format!("{name} {} [{}] {help}", kind.name(), labels.join(", ")))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        citadel_server_csr_count counter [] The number of CSRs received by Citadel server.
        citadel_server_authentication_failure_count counter [] The number of authentication failures.
        citadel_server_csr_sign_err_count counter [error] The number of errors occurred when signing the CSR.
        citadel_server_success_cert_issuance_count counter [] The number of certificates issuances that have succeeded.
        galley_validation_passed counter [group, version, resource] Resource is valid
        galley_validation_failed counter [group, version, resource, reason] Resource validation failed
        pilot_info gauge [version] Pilot version and build information.
        pilot_k8s_cfg_events counter [type, event] Events from k8s config.
        pilot_proxy_convergence_time histogram [] Delay in seconds between config change and a proxy receiving all required configuration.
        pilot_services gauge [] Total services known to pilot.
        pilot_total_xds_rejects counter [type] Total number of XDS responses from pilot rejected by proxy.
        pilot_virt_services gauge [] Total virtual services known to pilot.
        pilot_xds gauge [version] Number of endpoints connected to this pilot using XDS.
        pilot_xds_pushes counter [type] Pilot build and send errors for lds, rds, cds and eds.
        sidecar_injection_requests_total counter [] Total number of sidecar injection requests.
        sidecar_injection_failure_total counter [] Total number of failed sidecar injection requests.
        sidecar_injection_skip_total counter [] Total number of skipped sidecar injection requests.
        sidecar_injection_success_total counter [] Total number of successful sidecar injection requests.
        ");
    }

    #[test]
    fn metrics_are_prometheus_text() {
        let metrics = Metrics::default();
        metrics.count(&PUSHES, ["cds"]);
        metrics.count(&PUSHES, ["cds"]);
        metrics.set(&PROXIES, ["a\"b"], 3.0);
        metrics.observe(&CONVERGENCE_TIME, 0.004);
        insta::assert_snapshot!(metrics.render(), @r#"
        # HELP pilot_xds Number of endpoints connected to this pilot using XDS.
        # TYPE pilot_xds gauge
        pilot_xds{version="a\"b"} 3
        # HELP pilot_xds_pushes Pilot build and send errors for lds, rds, cds and eds.
        # TYPE pilot_xds_pushes counter
        pilot_xds_pushes{type="cds"} 2
        # HELP pilot_proxy_convergence_time Delay in seconds between config change and a proxy receiving all required configuration.
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
