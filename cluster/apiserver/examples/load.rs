//! How fast pods are written: a thousand, each created and then patched seven times, while somebody watches.
//! `cargo run -p meshlab-apiserver --example load`

use std::error::Error;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchParams};
use meshlab_apiserver::{ApiServer, ApiServerOptions, UserInfo};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use serde_json::json;

const PODS: usize = 1000;
const PATCHES: usize = 7;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let started = Instant::now();
    let server = ApiServer::start(ApiServerOptions::new(VirtualNet::new(VirtualNetOptions::default()))).await?;
    tracing::info!(took = ?started.elapsed(), "started");
    let client = server.client(UserInfo::admin());
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    Api::<ServiceAccount>::default_namespaced(client.clone()).create(&PostParams::default(), &account).await?;
    let pods = Api::<Pod>::default_namespaced(client);
    let since = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let watching = pods.clone();
    let watcher = tokio::spawn(async move {
        let mut events = watching.watch(&WatchParams::default(), &since).await?.boxed();
        for _ in 0..PODS * (PATCHES + 1) {
            events.try_next().await?;
        }
        Ok::<_, kube::Error>(Instant::now())
    });
    let started = Instant::now();
    for index in 0..PODS {
        let pod = json!({
            "metadata": {"name": format!("web-{index}"), "labels": {"app": "web", "version": "v1"}},
            "spec": {"containers": [{"name": "web", "image": "app:v1", "ports": [{"containerPort": 8080}],
                "env": [{"name": "VERSION", "value": "v1"}], "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    }
    tracing::info!(took = ?started.elapsed(), "created {PODS} pods");
    let patched = Instant::now();
    for index in 0..PODS {
        for step in 0..PATCHES {
            let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.1", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "message": format!("step {step}")}]}});
            pods.patch_status(&format!("web-{index}"), &PatchParams::default(), &Patch::Merge(&status)).await?;
        }
    }
    tracing::info!(took = ?patched.elapsed(), "patched each {PATCHES} times");
    let seen = watcher.await??;
    tracing::info!(after = ?seen.duration_since(started), "the watcher has seen everything");
    server.stop().await;
    Ok(())
}
