//! 100 targets with 2,000 series each, scraped every 5 seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use meshlab_net::OsNet;
use meshlab_observe::{PrometheusOptions, StaticTarget, prometheus_of};
use tokio_util::sync::CancellationToken;

use crate::Row;
use crate::fixtures::{body, free_address, processor_time, proxy_series, runtime, serve, until};

const TARGETS: usize = 100;
const SERIES: usize = 2000;
const INTERVAL: Duration = Duration::from_secs(5);
const ROUNDS: u32 = 4;

/// The processor time of the Prometheus' threads, reception from the sockets included, after the first round, which meets
/// every series for the first time.
pub(crate) fn measure() -> Row {
    let (others, prometheus) = (runtime("target", 1), runtime("prometheus", 2));
    let scrapes = Arc::new(AtomicUsize::new(0));
    let series: Arc<Vec<_>> = Arc::new((0..TARGETS).map(|target| proxy_series(target, SERIES)).collect());
    let address = serve(&others, {
        let scrapes = scrapes.clone();
        move |target| {
            let scrape = scrapes.fetch_add(1, Ordering::Relaxed) / TARGETS;
            Some(body(&series[target], scrape))
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
    let (before, started) = (processor_time("prometheus"), Instant::now());
    std::thread::sleep(INTERVAL * ROUNDS);
    let (used, passed) = (processor_time("prometheus") - before, started.elapsed());
    shutdown.cancel();
    let share = used.as_secs_f64() / passed.as_secs_f64();
    Row {
        what: "100 targets with 2,000 series each, scraped every 5 s: one core's share",
        at_most: "15 %",
        measured: format!(
            "{:.1} % ({:.2} µs a sample)",
            share * 100.0,
            used.as_secs_f64() * 1e6 / (TARGETS * SERIES) as f64 / f64::from(ROUNDS)
        ),
    }
}
