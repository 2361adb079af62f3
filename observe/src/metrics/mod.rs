//! Metrics: scraped from the mesh, kept in memory, asked for in PromQL.

mod api;
mod chunk;
mod columns;
mod exposition;
pub(crate) mod fuzzing;
mod labels;
mod matcher;
mod page;
mod promql;
mod scrape;
mod target;
mod times;
mod tsdb;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshlab_net::{Listener, Net};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::server;
use api::Server;
use scrape::{Scraper, now};
use target::{Target, Targets};
use tsdb::Tsdb;

pub use tsdb::Limits;

/// How often what is too old is forgotten.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(30);

/// How a Prometheus is run.
#[derive(Debug, Clone)]
pub struct PrometheusOptions {
    /// Where its API and pages are served.
    pub listen: SocketAddr,
    /// Time from one scrape of a target to the next.
    pub scrape_interval: Duration,
    /// How much is kept.
    pub limits: Limits,
}

impl Default for PrometheusOptions {
    /// Port 9090; a scrape every 5 seconds, as a lab has no patience; an hour of samples.
    fn default() -> Self {
        Self { listen: server::any(9090), scrape_interval: Duration::from_secs(5), limits: Limits::default() }
    }
}

/// Serves a Prometheus that scrapes the pods of `client`'s cluster, until `shutdown`.
///
/// # Errors
/// Its port cannot be listened on, or its listener ends.
pub async fn prometheus<N: Net>(
    net: N,
    client: kube::Client,
    options: PrometheusOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let (sender, targets) = watch::channel(Targets::new());
    tokio::select! {
        result = run(net, options, targets, shutdown) => result,
        () = target::follow_pods(client, sender) => Err(io::Error::other("the watch of pods has ended")),
    }
}

/// A place that answers with metrics and is no pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticTarget {
    /// Label `job`.
    pub job: String,
    /// Where it listens; also label `instance`.
    pub address: SocketAddr,
    /// `/metrics`
    pub path: String,
}

/// Serves a Prometheus that scrapes `targets` alone, until `shutdown`.
///
/// # Errors
/// As of [`prometheus`].
pub async fn prometheus_of<N: Net>(
    net: N,
    targets: Vec<StaticTarget>,
    options: PrometheusOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let target = |target: StaticTarget| Target {
        path: target.path,
        ..Target::fixed(&target.job, &target.address.to_string(), target.address)
    };
    let targets = Targets::from([(String::new(), targets.into_iter().map(target).collect())]);
    let (_sender, targets) = watch::channel(targets);
    run(net, options, targets, shutdown).await
}

/// Serves and scrapes `targets`, and itself.
async fn run<N: Net>(
    net: N,
    options: PrometheusOptions,
    targets: watch::Receiver<Targets>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = server::bind(&net, options.listen).await?;
    let tsdb = Arc::new(Tsdb::new(options.limits));
    let pool = Arc::default();
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().port()));
    let fixed = vec![Target::fixed("prometheus", &format!("localhost:{}", own.port()), own)];
    let scraper = Scraper { net, tsdb: tsdb.clone(), pool: Arc::clone(&pool), interval: options.scrape_interval };
    let garbage = async {
        loop {
            tokio::time::sleep(GARBAGE_INTERVAL).await;
            let tsdb = tsdb.clone();
            // A bug there must not end the server.
            let _ = tokio::task::spawn_blocking(move || tsdb.collect_garbage(now())).await;
        }
    };
    let server = Arc::new(Server::new(tsdb.clone(), pool, options.scrape_interval));
    let router = api::router(server.clone()).merge(page::router(server));
    tokio::select! {
        result = server::serve(listener, router, shutdown) => result,
        () = scraper.run(fixed, targets) => Ok(()),
        () = garbage => Ok(()),
    }
}

#[cfg(test)]
mod tests;

/// Whether `query` can be evaluated here, as far as its text tells.
#[cfg(test)]
pub(crate) fn parse_query(query: &str) -> Result<(), String> {
    promql::parse(query).map(drop).map_err(|error| error.to_string())
}
