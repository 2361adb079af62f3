//! See [`crate::fuzzing`].

use std::sync::Arc;
use std::time::Duration;

use super::api::{self, Server};
use super::chunk::Sample;
use super::exposition::{self, Exposition};
use super::labels::{Labels, NAME, pair};
use super::promql::{self, Budget};
use super::tsdb::{Limits, Tsdb};

/// A body of a scrape: what is read is appended and asked for.
pub fn exposition(body: &str) {
    let Ok(exposition) = Exposition::parse(body) else { return };
    let tsdb = Tsdb::new(Limits::default());
    for line in exposition.lines {
        let Ok((name, pairs)) = exposition::labels(line.series) else { continue };
        let pairs = pairs.iter().map(|(name, value)| pair(name, value));
        let mut appender = tsdb.appender();
        let reference = appender.series(Labels::new(std::iter::once(pair(NAME, name)).chain(pairs).collect()));
        if let Some(reference) = reference {
            appender.append(reference, Sample { time: line.time.unwrap_or(1), value: line.value });
        }
    }
    assert!(tsdb.select(&[], i64::MIN, i64::MAX).iter().all(|series| series.latest(i64::MAX).is_some()));
}

/// A store with a counter, a gauge and a histogram.
fn tsdb() -> Tsdb {
    let tsdb = Tsdb::new(Limits::default());
    for (name, label, value) in [
        ("up", "job", "a"),
        ("up", "job", "b"),
        ("x_bucket", "le", "1"),
        ("x_bucket", "le", "+Inf"),
        ("requests_total", "code", "200"),
    ] {
        let mut appender = tsdb.appender();
        if let Some(reference) = appender.series(Labels::of([(NAME, name), (label, value)])) {
            (1..50).for_each(|tick| {
                appender.append(reference, Sample { time: tick * 5000, value: (tick % 7) as f64 });
            });
        }
    }
    tsdb
}

/// A query. It runs where queries run, on a stack that is large enough.
///
/// # Panics
/// The evaluation does.
pub fn promql(query: &str) {
    let query = query.to_owned();
    let evaluate = move || {
        let (tsdb, budget) = (tsdb(), Budget { timeout: Duration::from_secs(1), values: 100_000 });
        let _ = promql::instant(&tsdb, &query, 200_000, budget);
        let _ = promql::range(&tsdb, &query, (0, 250_000, 25_000), budget);
    };
    let thread = std::thread::Builder::new().stack_size(promql::STACK).spawn(evaluate);
    assert!(thread.is_ok_and(|thread| thread.join().is_ok()));
}

/// `match[]`.
pub fn series_selector(text: &str) {
    if let Ok(matchers) = promql::selector(text) {
        tsdb().select(&matchers, 0, i64::MAX);
    }
}

pub(crate) fn router() -> axum::Router {
    api::router(Arc::new(Server::new(Arc::new(tsdb()), Arc::default(), Duration::from_secs(5))))
}
