//! How fast a cluster starts and fills, and how small it is when nothing happens. `cargo bench -p meshlab-cluster`
//!
//! Figures depend on the machine; nothing here fails on a slow one.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{PostParams, WatchEvent, WatchParams};
use meshlab_cluster::{Cluster, ClusterOptions};
use meshlab_program::{Catalogue, ExitCode, Image, Process, Program};
use serde_json::json;

/// Clusters started side by side to measure what one more costs.
const CLUSTERS: usize = 50;
/// Pods of one Deployment.
const PODS: i32 = 1000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        start().await;
        fill().await;
        idle().await;
    });
}

async fn start() {
    let mut times = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        let cluster = cluster().await;
        times.push(begin.elapsed());
        cluster.stop().await;
    }
    times.sort();
    println!("start until pods can be created, median of 20   {:>9.1} ms", times[times.len() / 2].as_secs_f64() * 1e3);
}

async fn fill() {
    let cluster = cluster().await;
    let api: Api<Deployment> = Api::namespaced(cluster.client(), "default");
    let before = resident();
    let begin = Instant::now();
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "idle"}]}});
    let spec = json!({"replicas": PODS, "selector": {"matchLabels": labels}, "template": template});
    let deployment = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).expect("a deployment");
    let created = api.create(&PostParams::default(), &deployment).await.expect("created");
    let changes =
        api.watch(&WatchParams::default(), &created.metadata.resource_version.unwrap_or_default()).await.expect("a watch");
    pin_mut!(changes);
    while let Some(change) = changes.try_next().await.expect("a change") {
        let ready = match change {
            WatchEvent::Modified(deployment) => deployment.status.and_then(|status| status.ready_replicas),
            _ => None,
        };
        if ready == Some(PODS) {
            break;
        }
    }
    println!("{PODS} pods of one Deployment, all Ready             {:>9.2} s", begin.elapsed().as_secs_f64());
    println!(
        "memory of each of these pods                    {:>9.1} kB",
        resident().saturating_sub(before) as f64 / f64::from(PODS)
    );
    cluster.stop().await;
}

async fn idle() {
    let first = cluster().await;
    settle().await;
    let before = resident();
    let more: Vec<Cluster> = futures::stream::iter(0..CLUSTERS).then(|_| cluster()).collect().await;
    settle().await;
    let each = resident().saturating_sub(before) as f64 / CLUSTERS as f64 / 1024.0;
    println!("each further idle cluster                       {each:>9.2} MB");
    drop((first, more));
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

async fn cluster() -> Cluster {
    let mut catalogue = Catalogue::default();
    catalogue.register("idle", Image::builder().executable("idle", Arc::new(Idle)).entrypoint(["idle"]).build());
    Cluster::start(ClusterOptions { catalogue, ..Default::default() }).await.expect("a cluster")
}

struct Idle;

#[async_trait]
impl Program for Idle {
    async fn run(&self, mut process: Process) -> ExitCode {
        process.signals.requested().await;
        0
    }
}

/// Resident memory of this process in kB; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
