//! How long a change takes to reach the last of many proxies: 1,000 services with 10 endpoints each, 100 proxies, one route changed.
//! The whole way counts: API server, watch, compilation, delta, stream, acknowledgement.
//!
//! `cargo bench -p meshlab-control` prints the median and the worst of some rounds, then the processor time of a round, which other
//! work on the machine does not blur, and the memory of the whole process: control plane, API server and proxies' ends.
//! Arguments: services, proxies, workloads.
//!
//! Most of the time is now what `PILOT_DEBOUNCE_AFTER` waits (10 ms, so that what one `kubectl apply` brings takes effect together) and
//! 100 conversations over TLS; see `meshlab_compile`'s module `memo` for where the rest went. The 100 first, complete messages were
//! made once for each proxy and stayed in every reader's buffer: 707 MiB resident became 284.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use meshlab_proxy_config::discovery::{ControlMessage, Node, ProxyMessage};
use serde_json::{Value, json};
use support::Lab;

const ROUNDS: usize = 10;
const ENDPOINTS: usize = 10;

#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a benchmark's result; a few rounds")]
fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (services, proxies, workloads) = (number(0, 1000), number(1, 100), number(2, 10));
    let Measured { mut took, processor, resident_mib } = runtime.block_on(measure(services, proxies, workloads));
    took.sort();
    let what = format!(
        "{services} services with {ENDPOINTS} endpoints, one route changed: last of {proxies} proxies of {workloads} workloads updated"
    );
    report(&took, &what);
    println!("processor time a round: {:.1} ms; resident: {resident_mib} MiB", processor.as_secs_f64() * 1000.0 / ROUNDS as f64);
}

struct Measured {
    /// One for each round.
    took: Vec<Duration>,
    /// Of all rounds.
    processor: Duration,
    /// When the last round is over.
    resident_mib: u64,
}

/// The processor time that all threads have taken so far.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let taken = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(taken).sum())
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The limit.
const AT_MOST: Duration = Duration::from_millis(100);

/// In the form of the other half of the benchmark, `meshlab-proxy`'s `side_by_side`.
#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn report(took: &[Duration], what: &str) {
    let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    let met = if median <= AT_MOST { "yes" } else { "NO" };
    println!("| | ours | worst of {} | at most | met |\n|---|---|---|---|---|", took.len());
    println!(
        "| {what} (ms) | {:.1} | {:.1} | {:.0} ms | {met} |",
        milliseconds(median),
        milliseconds(worst),
        milliseconds(AT_MOST)
    );
}

async fn measure(services: usize, proxies: usize, workloads: usize) -> Measured {
    let lab = Lab::new().await;
    for index in 0..services {
        lab.kube.apply("services", service(index));
        lab.kube.apply("endpointslices", slice(index));
    }
    let _istiod = lab.start_istiod();
    lab.wait_until_ready().await;
    let (updated, mut updates) = tokio::sync::mpsc::unbounded_channel();
    for index in 0..proxies {
        let workload = format!("client-{}", index % workloads);
        let labels = [("app".to_owned(), workload.clone())].into();
        let (namespace, service_account) = ("default".into(), "sleep".into());
        let node = Node { pod: format!("client-{index}"), namespace, service_account, workload, labels, ..Node::default() };
        let mut proxy = lab.connect(node, "token-of:default:sleep").await;
        let updated = updated.clone();
        tokio::spawn(async move {
            while let Some(ControlMessage::Update(update)) = proxy.next().await {
                proxy.send(&ProxyMessage::Ack { version: update.version }).await;
                if updated.send(()).is_err() {
                    return;
                }
            }
        });
    }
    wait_for_all(&mut updates, proxies).await;
    let mut took = Vec::new();
    let before = processor_time();
    for round in 0..ROUNDS {
        lab.kube.apply("virtualservices", route(round));
        let applied = Instant::now();
        wait_for_all(&mut updates, proxies).await;
        took.push(applied.elapsed());
    }
    Measured { took, processor: processor_time().saturating_sub(before), resident_mib: resident_mib() }
}

async fn wait_for_all(updates: &mut tokio::sync::mpsc::UnboundedReceiver<()>, proxies: usize) {
    for _ in 0..proxies {
        updates.recv().await.expect("proxies go on");
    }
}

fn address(index: usize, block: u8) -> String {
    format!("10.{block}.{}.{}", index / 250, index % 250 + 1)
}

fn service(index: usize) -> Value {
    let ip = address(index, 97);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("s{index}"), "namespace": "default" },
        "spec": { "clusterIP": ip, "clusterIPs": [ip], "selector": { "app": format!("s{index}") },
                  "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }] },
    })
}

fn slice(index: usize) -> Value {
    let endpoint = |member: usize| {
        let ip = address(index * ENDPOINTS + member, 245);
        json!({ "addresses": [ip], "conditions": { "ready": true } })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": format!("s{index}-1"), "namespace": "default", "labels": { "kubernetes.io/service-name": format!("s{index}") } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    })
}

fn route(round: usize) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "changing", "namespace": "default" },
        "spec": { "hosts": ["s0"], "http": [{ "route": [{ "destination": { "host": "s0" } }], "timeout": format!("{}s", round + 1) }] },
    })
}
