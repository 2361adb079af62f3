//! Statistics, as `/stats` and as Prometheus wants them.

use std::fmt::Write;

use regex::Regex;
use serde_json::{Value, json};

use crate::proxy::Shared;
use crate::telemetry::prometheus::Exposition;

/// Name, whether it is a counter, value; and the cluster it belongs to.
struct Stat {
    cluster: Option<String>,
    name: String,
    counter: bool,
    value: u64,
}

impl Stat {
    fn full_name(&self) -> String {
        match &self.cluster {
            Some(cluster) => format!("cluster.{cluster}.{}", self.name),
            None => self.name.clone(),
        }
    }
}

fn collect(proxy: &Shared) -> Vec<Stat> {
    let counters = &proxy.counters;
    let snapshot = proxy.snapshot.load();
    let own = [
        (
            "listener_manager.lds.update_success",
            true,
            counters.config_updates.get().saturating_sub(counters.config_rejected.get()),
        ),
        ("listener_manager.lds.update_rejected", true, counters.config_rejected.get()),
        ("listener_manager.total_listeners_active", false, snapshot.listeners.len() as u64),
        ("cluster_manager.active_clusters", false, snapshot.clusters.len() as u64),
        ("listener.downstream_cx_total", true, counters.connections_total.get()),
        ("listener.downstream_cx_active", false, proxy.open_connections() as u64),
        ("listener.downstream_cx_overflow", true, counters.connections_overflow.get()),
        ("listener.no_filter_chain_match", true, counters.no_filter_chain_match.get()),
        ("listener.ssl.handshake", true, counters.tls_handshakes.get()),
        ("listener.ssl.connection_error", true, counters.tls_errors.get()),
        ("http.downstream_cx_protocol_error", true, counters.malformed_requests.get()),
        ("server.uptime", false, proxy.started.elapsed().as_secs()),
        ("server.live", false, u64::from(proxy.is_ready())),
        ("server.total_connections", false, proxy.open_connections() as u64),
        ("tracing.spans_dropped", true, counters.spans_dropped.get()),
        ("metrics.series_dropped", true, proxy.metrics.dropped.get()),
    ];
    let mut stats: Vec<Stat> =
        own.into_iter().map(|(name, counter, value)| Stat { cluster: None, name: name.to_owned(), counter, value }).collect();
    for cluster in snapshot.clusters.values() {
        let of_cluster =
            |name: &str, counter, value| Stat { cluster: Some(cluster.name.to_string()), name: name.to_owned(), counter, value };
        stats.extend(cluster.stats.values().into_iter().map(|(name, counter, value)| {
            let name = match name.strip_prefix("outlier_detection_") {
                Some(rest) => format!("outlier_detection.{rest}"),
                None => name.to_owned(),
            };
            of_cluster(&name, counter, value)
        }));
        let members = cluster.members();
        let healthy = members.all.iter().filter(|member| !member.host.health.ejected()).count();
        stats.push(of_cluster("membership_total", false, members.all.len() as u64));
        stats.push(of_cluster("membership_healthy", false, healthy as u64));
        let requests: u32 = members.all.iter().map(|member| member.host.active()).sum();
        if let Some(active) = stats
            .iter_mut()
            .rev()
            .find(|stat| stat.name == "upstream_rq_active" && stat.cluster.as_deref() == Some(&*cluster.name))
        {
            active.value = u64::from(requests);
        }
    }
    stats.sort_by_cached_key(Stat::full_name);
    stats
}

/// The filter of `/stats?filter=`.
pub(crate) fn filter(pattern: Option<&str>) -> Result<Option<Regex>, String> {
    pattern.map(|pattern| crate::matching::partial_regex(pattern).map_err(|error| error.to_string())).transpose()
}

/// `/stats`
pub(crate) fn text(proxy: &Shared, filter: Option<&Regex>) -> String {
    let mut out = String::new();
    for stat in collect(proxy) {
        let name = stat.full_name();
        if filter.is_none_or(|filter| filter.is_match(&name)) {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}: {}", stat.value);
        }
    }
    out
}

/// `/stats?format=json`
pub(crate) fn json(proxy: &Shared, pattern: Option<&str>) -> Value {
    let filter = filter(pattern).ok().flatten();
    let stats: Vec<Value> = collect(proxy)
        .into_iter()
        .map(|stat| (stat.full_name(), stat.value))
        .filter(|(name, _)| filter.as_ref().is_none_or(|filter| filter.is_match(name)))
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    json!({ "stats": stats })
}

/// `/stats/prometheus`
pub(crate) fn prometheus(proxy: &Shared) -> String {
    let mut out = Exposition::default();
    proxy.metrics.write(&mut out);
    for stat in collect(proxy) {
        let labels: Vec<(String, String)> = stat.cluster.iter().map(|name| ("cluster_name".to_owned(), name.clone())).collect();
        let name = stat.name.replace(['.', '-'], "_");
        // `upstream_rq_5xx` is `upstream_rq_xx` with a class as its label.
        let (name, labels) = match name.strip_prefix("upstream_rq_").filter(|rest| rest.ends_with("xx") && rest.len() == 3) {
            Some(class) => {
                let mut labels = labels;
                labels.push(("response_code_class".to_owned(), class.to_owned()));
                labels.sort();
                ("upstream_rq_xx".to_owned(), labels)
            }
            None => (name, labels),
        };
        let prefix = if stat.cluster.is_some() { "envoy_cluster_" } else { "envoy_" };
        let name = format!("{prefix}{name}");
        if stat.counter {
            out.counter(&name, &labels, stat.value);
        } else {
            out.gauge(&name, &labels, stat.value);
        }
    }
    let build = [("component".to_owned(), "proxy".to_owned()), ("tag".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    out.gauge("istio_build", &build, 1);
    out.finish()
}
