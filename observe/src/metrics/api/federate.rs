//! Metrics as text: other Prometheus servers' view of the series here, and what this server says about itself.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{ApiError, ApiResult, Parameters, Shared, now, promql};
use crate::metrics::chunk::is_stale;
use crate::metrics::labels::{Labels, NAME};
use crate::metrics::promql::{LOOKBACK, format_number};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The latest sample of every series selected.
pub(super) async fn federate(State(server): Shared, parameters: Parameters) -> ApiResult {
    let selectors = parameters.all("match[]").map(promql::selector).collect::<Result<Vec<_>, _>>().map_err(ApiError::from)?;
    let now = now();
    let found = server.evaluate(move |tsdb| {
        let selected = selectors.iter().flat_map(|matchers| tsdb.select(matchers, now - LOOKBACK, now));
        let latest = selected.filter_map(|series| {
            let last = series.latest(now).filter(|last| last.time > now - LOOKBACK && !is_stale(last.value))?;
            Some((series.labels, last))
        });
        let mut latest: Vec<_> = latest.collect();
        latest.sort_by(|a, b| (a.0.name(), &a.0).cmp(&(b.0.name(), &b.0)));
        latest.dedup_by(|a, b| a.0 == b.0);
        Ok(latest)
    });
    let mut text = String::new();
    let mut name = String::new();
    for (labels, sample) in found.await? {
        if labels.name() != name {
            labels.name().clone_into(&mut name);
            let _ = writeln!(text, "# TYPE {name} untyped");
        }
        let _ = writeln!(text, "{}{} {} {}", name, label_text(&labels), format_number(sample.value), sample.time);
    }
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}

fn label_text(labels: &Labels) -> String {
    // A series without an instance says so, lest the scraper puts its own in.
    let instance = labels.get("instance").is_empty().then(|| "instance=\"\"".to_owned());
    let own = labels
        .pairs()
        .iter()
        .filter(|pair| &*pair.0 != NAME)
        .map(|pair| format!("{}=\"{}\"", pair.0, pair.1.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")));
    format!("{{{}}}", own.chain(instance).collect::<Vec<_>>().join(","))
}

/// What this server measures of itself.
pub(super) async fn own_metrics(State(server): Shared) -> Response {
    let size = server.tsdb.size();
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, series: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(text, "{name}{labels} {}", format_number(*value));
        }
    };
    let one = |value: usize| [(String::new(), value as f64)];
    let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}").to_owned();
    metric("prometheus_build_info", "gauge", "The version of this server, which is meshlab's.", &[(version, 1.0)]);
    metric("prometheus_tsdb_head_series", "gauge", "Series in memory.", &one(size.series));
    metric("prometheus_tsdb_head_chunks", "gauge", "Chunks in memory.", &one(size.chunks));
    metric("prometheus_tsdb_storage_blocks_bytes", "gauge", "Bytes of samples in memory.", &one(size.bytes));
    metric(
        "prometheus_tsdb_head_samples_appended_total",
        "counter",
        "Samples appended.",
        &[(String::new(), size.appended as f64)],
    );
    let dropped = server.tsdb.dropped.read().map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), count as f64));
    metric("meshlab_prometheus_dropped_total", "counter", "What was not kept, by reason.", &dropped);
    metric("prometheus_target_scrape_pool_targets", "gauge", "Targets.", &one(server.pool.lock().len()));
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}
