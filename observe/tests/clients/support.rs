//! A Prometheus of ours, a real one beside it, and what they scrape.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use meshlab_net::OsNet;
use meshlab_observe::{PrometheusOptions, StaticTarget, prometheus_of};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

/// An address that is free now; nobody takes it in between, as the kernel hands ports out in turn.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Serves until the test ends.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// The answer's body, whatever its status; `None` if nobody answers.
pub(crate) async fn text(address: SocketAddr, path: &str) -> Option<String> {
    reqwest::get(format!("http://{address}{path}")).await.ok()?.text().await.ok()
}

pub(crate) async fn json(address: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_str(&text(address, path).await?).ok()
}

/// An instant query.
pub(crate) async fn query(address: SocketAddr, query: &str, time: Option<f64>) -> Option<Value> {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let time = time.map(|time| format!("&time={time}")).unwrap_or_default();
    json(address, &format!("/api/v1/query?query={query}{time}")).await
}

/// Asks until the answer is as wanted, thirty seconds at most.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A Prometheus of ours that scrapes `targets`. It ends when the guard is dropped.
pub(crate) async fn ours(targets: Vec<StaticTarget>, interval: Duration) -> (SocketAddr, DropGuard) {
    let (listen, shutdown) = (free_address(), CancellationToken::new());
    let options = PrometheusOptions { listen, scrape_interval: interval, ..PrometheusOptions::default() };
    tokio::spawn(prometheus_of(OsNet, targets, options, shutdown.clone()));
    until("readiness of our Prometheus", async || text(listen, "/-/ready").await.filter(|text| text.contains("Ready"))).await;
    (listen, shutdown.drop_guard())
}

/// A real Prometheus. It ends when this is dropped.
pub(crate) struct Prometheus {
    pub(crate) address: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// `jobs` are items of `scrape_configs`.
    pub(crate) async fn start(jobs: &[String], interval: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = format!("global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\nscrape_configs:\n");
        jobs.iter().for_each(|job| writeln!(config, "- {job}").unwrap());
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = free_address();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--query.lookback-delta=5m", "--log.level=error"])
            .stdout(Stdio::null())
            .spawn()
            .expect("prometheus is installed (.ci/install-tools does it)");
        let prometheus = Self { address, child, _directory: directory };
        until("readiness of the real Prometheus", async || text(address, "/-/ready").await.filter(|text| text.contains("Ready")))
            .await;
        prometheus
    }
}
