//! A quantile for every workload over an hour of 10,000 series: 7,200,000 samples, of which 241 steps are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use meshlab_net::OsNet;
use meshlab_observe::{PrometheusOptions, StaticTarget, prometheus_of};
use tokio_util::sync::CancellationToken;

use crate::Row;
use crate::fixtures::{Proxy, free_address, median, own_processor_time, runtime, serve, until};

/// Ten proxies with buckets only.
const TARGETS: usize = 10;
const SERIES: usize = 1000;
/// An hour of scrapes every 5 seconds.
const SCRAPES: usize = 720;
const QUERY: &str =
    "histogram_quantile(0.95, sum by (le, destination_workload) (rate(istio_request_duration_milliseconds_bucket[1m])))";
/// As Grafana asks for an hour: 241 steps.
const STEP: u64 = 15;
const ROUNDS: usize = 25;

/// From the question to the whole answer, over HTTP. The hour is scraped beforehand, as fast as it goes: the target says when its
/// samples were taken.
pub(crate) fn measure() -> Row {
    let (others, prometheus) = (runtime("target", 1), runtime("prometheus", 2));
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970").as_millis() as i64;
    let start = now - 3_600_000;
    let scrapes: Arc<[AtomicUsize; TARGETS]> = Arc::default();
    let proxies: Arc<Vec<_>> = Arc::new((0..TARGETS).map(|target| Proxy::new(target, SERIES, SERIES, "")).collect());
    let address = serve(&others, {
        let scrapes = scrapes.clone();
        move |target| {
            let scrape = scrapes[target].fetch_add(1, Ordering::Relaxed);
            // Not quite every five seconds, and when the hour is there, the queries are alone.
            let time = start + scrape as i64 * 5000 + (scrape % 3) as i64;
            (scrape <= SCRAPES).then(|| proxies[target].scrape(Some(time)))
        }
    });
    let (listen, shutdown) = (free_address(), CancellationToken::new());
    let options = PrometheusOptions { listen, scrape_interval: Duration::from_millis(1), ..PrometheusOptions::default() };
    let target = |target: usize| StaticTarget { job: target.to_string(), address, path: format!("/{target}") };
    let targets = (0..TARGETS).map(target).collect();
    prometheus.spawn(prometheus_of(OsNet, targets, options, shutdown.clone()));
    while scrapes.iter().any(|scrapes| scrapes.load(Ordering::Relaxed) <= SCRAPES + 1) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let query: String = url::form_urlencoded::byte_serialize(QUERY.as_bytes()).collect();
    let url = format!("http://{listen}/api/v1/query_range?query={query}&start={}&end={}&step={STEP}", start / 1000, now / 1000);
    let (took, used) = others.block_on(async {
        until(&url, "success").await;
        let (mut took, before) = (Vec::new(), own_processor_time());
        for _ in 0..ROUNDS {
            let asked = Instant::now();
            let answer = reqwest::get(&url).await.expect("an answer").bytes().await.expect("all of it");
            took.push(asked.elapsed());
            assert!(answer.len() > 10_000, "{answer:?}");
        }
        (took, (own_processor_time() - before) / ROUNDS as u32)
    });
    shutdown.cancel();
    let best = took.iter().min().copied().unwrap_or_default();
    Row {
        what: "histogram_quantile of rates by workload: 10,000 series, 1 h in 15 s steps",
        at_most: "60 ms",
        measured: format!(
            "median {:.0} ms, best {:.0} ms; processor time {:.0} ms, shared by the cores there are",
            median(took).as_secs_f64() * 1e3,
            best.as_secs_f64() * 1e3,
            used.as_secs_f64() * 1e3
        ),
    }
}
