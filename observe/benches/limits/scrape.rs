//! 100 targets with 2,000 series each, scraped every 5 seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshlab_net::OsNet;
use meshlab_observe::{PrometheusOptions, StaticTarget, prometheus_of};
use tokio_util::sync::CancellationToken;

use crate::Row;
use crate::fixtures::{Proxy, free_address, processor_time, runtime, serve, until};

const TARGETS: usize = 100;
const SERIES: usize = 2000;
const INTERVAL: Duration = Duration::from_secs(5);
const ROUNDS: usize = 4;
/// Of the series: they grow, the others stand still.
const BUCKETS: usize = SERIES / 3;

/// The processor time of the Prometheus' threads, reception from the sockets included, after the first round, which meets
/// every series for the first time. It is counted by scrape, not by the clock: on a busy machine there are fewer of them.
pub(crate) fn measure() -> Row {
    let (others, prometheus) = (runtime("target", 1), runtime("prometheus", 2));
    let scrapes = Arc::new(AtomicUsize::new(0));
    let proxies: Arc<Vec<_>> = Arc::new((0..TARGETS).map(|target| Proxy::new(target, BUCKETS, SERIES, "")).collect());
    let address = serve(&others, {
        let scrapes = scrapes.clone();
        move |target| {
            scrapes.fetch_add(1, Ordering::Relaxed);
            Some(proxies[target].scrape(None))
        }
    });
    let targets =
        (0..TARGETS).map(|target| StaticTarget { job: target.to_string(), address, path: format!("/{target}") }).collect();
    let (listen, shutdown) = (free_address(), CancellationToken::new());
    let options = PrometheusOptions { listen, scrape_interval: INTERVAL, ..PrometheusOptions::default() };
    prometheus.spawn(prometheus_of(OsNet, targets, options, shutdown.clone()));
    let every = (TARGETS * SERIES).to_string();
    let url = format!("http://{listen}/api/v1/query?query=sum(scrape_samples_scraped{{job!=%22prometheus%22}})");
    others.block_on(until(&url, &format!("\"{every}\"")));
    let (before, first) = (processor_time("prometheus"), scrapes.load(Ordering::Relaxed));
    while scrapes.load(Ordering::Relaxed) < first + ROUNDS * TARGETS {
        std::thread::sleep(Duration::from_millis(10));
    }
    let used = (processor_time("prometheus") - before).as_secs_f64() / (scrapes.load(Ordering::Relaxed) - first) as f64;
    shutdown.cancel();
    Row {
        what: "100 targets with 2,000 series each, scraped every 5 s: one core's share",
        at_most: "15 %",
        measured: format!(
            "{:.1} % ({:.0} µs a scrape, {:.2} µs a sample)",
            used * TARGETS as f64 / INTERVAL.as_secs_f64() * 100.0,
            used * 1e6,
            used * 1e6 / SERIES as f64
        ),
    }
}
