//! What the stores of a Phase 3 lab take after 30 minutes at 50 requests per second.
//!
//! The servers run in a process of their own, whose resident memory is read before and after. What the lab would send them comes
//! from this one: the 360 scrapes of 30 minutes at a hundredth of the time between them, and every span of 90,000 requests at
//! 100 % sampling, four each. Series and their share that changes are those of a lab at its last step.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshlab_net::OsNet;
use meshlab_observe::{PrometheusOptions, StaticTarget, jaeger, prometheus_of};
use tokio_util::sync::CancellationToken;

use crate::Row;
use crate::fixtures::{body, free_address, proxy_series, runtime, serve as serve_targets, until};
use crate::search::{options, send};

/// The argument of the process with the servers.
pub(crate) const SERVE: &str = "serve-for-memory";
/// Pods with a proxy, and series of each.
const TARGETS: usize = 16;
const SERIES: usize = 1800;
const SCRAPES: usize = 360;
const REQUESTS: usize = 90_000;

/// The other process: reads where the targets are, says where it listens, and serves until its input ends.
#[expect(clippy::print_stdout, reason = "how the processes talk")]
pub(crate) fn serve() {
    let mut line = String::new();
    let mut input = std::io::stdin().lock();
    input.read_line(&mut line).expect("an address");
    let address: SocketAddr = line.trim().parse().expect("an address");
    let targets =
        (0..TARGETS).map(|target| StaticTarget { job: target.to_string(), address, path: format!("/{target}") }).collect();
    let (runtime, shutdown, jaegers) = (runtime("servers", 2), CancellationToken::new(), options());
    let listen = free_address();
    let prometheus = PrometheusOptions { listen, scrape_interval: Duration::from_millis(50), ..PrometheusOptions::default() };
    let at = |port| SocketAddr::new(jaegers.address, port);
    println!("{listen} {} {}", at(jaegers.query), at(jaegers.zipkin));
    runtime.spawn(jaeger(OsNet, jaegers, shutdown.clone()));
    // Nothing is scraped before the memory of the empty servers has been read.
    line.clear();
    input.read_line(&mut line).expect("the word to begin");
    runtime.spawn(prometheus_of(OsNet, targets, prometheus, shutdown.clone()));
    line.clear();
    while input.read_line(&mut line).is_ok_and(|read| read > 0) {}
    shutdown.cancel();
}

pub(crate) fn measure() -> Row {
    let others = runtime("target", 2);
    let scrapes = Arc::new(AtomicUsize::new(0));
    let series: Arc<Vec<_>> = Arc::new((0..TARGETS).map(|target| proxy_series(target, SERIES)).collect());
    let targets = serve_targets(&others, {
        let scrapes = scrapes.clone();
        move |target| Some(body(&series[target], scrapes.fetch_add(1, Ordering::Relaxed) / TARGETS))
    });
    let itself = std::env::current_exe().expect("this program has a path");
    let mut child =
        Command::new(itself).arg(SERVE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be run again");
    let mut input = child.stdin.take().expect("its input");
    let mut say = |line: String| input.write_all(line.as_bytes()).expect("it listens");
    say(format!("{targets}\n"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its addresses");
    let addresses: Vec<SocketAddr> = line.split_whitespace().filter_map(|address| address.parse().ok()).collect();
    let [prometheus, query, zipkin] = addresses[..] else { panic!("addresses are expected: {line:?}") };
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("Linux tells of processes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    };
    let (empty, stored) = others.block_on(async {
        until(&format!("http://{query}/api/services"), "data").await;
        let empty = resident();
        say("begin\n".to_owned());
        let spans = tokio::spawn(send(zipkin, 0..REQUESTS));
        while scrapes.load(Ordering::Relaxed) < SCRAPES * TARGETS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let read = resident();
        spans.await.expect("all spans are sent");
        let status = reqwest::get(format!("http://{prometheus}/api/v1/status/tsdb")).await.expect("an answer");
        let stored = status.text().await.expect("all of it");
        (empty, format!("{} MB more than when empty, of the series at once {read:.0} MB; {stored}", (resident() - empty).round()))
    });
    drop(input);
    child.wait().expect("it ends");
    Row {
        what: "memory of the stores after 30 minutes at 50 rps, all traced",
        at_most: "60 MB",
        measured: format!("{stored} (empty {empty:.0} MB)"),
    }
}
