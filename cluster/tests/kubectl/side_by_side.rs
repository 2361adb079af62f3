//! Many clusters in one process.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use serde_json::json;

use crate::lab::Lab;

/// As many as a teacher grades at a time.
const CLUSTERS: usize = 100;

fn pods(client: Client) -> Api<Pod> {
    Api::namespaced(client, "default")
}

async fn run_own_pod(number: usize, lab: &Lab) {
    let name = format!("only-{number}");
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "tools"}]}});
    let pods = pods(lab.cluster.client());
    pods.create(&Default::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = await_condition(pods, &name, conditions::is_pod_running());
    let pod = tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap().unwrap();
    assert_eq!(pod.status.unwrap().pod_ip.as_deref(), Some("10.244.0.2"), "each network begins anew");
}

/// A client of `at`, over TLS, that trusts `at` and shows what `of` gave its administrator.
async fn client(of: &Lab, at: &Lab) -> Client {
    let parse = |lab: &Lab| Kubeconfig::from_yaml(&lab.cluster.kubeconfig()).unwrap();
    let kubeconfig = Kubeconfig { auth_infos: parse(of).auth_infos, ..parse(at) };
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clusters_do_not_see_each_other() {
    let labs = join_all((0..CLUSTERS).map(|_| Lab::start())).await;
    join_all(labs.iter().enumerate().map(|(number, lab)| run_own_pod(number, lab))).await;
    for (number, lab) in labs.iter().enumerate() {
        let there = pods(lab.cluster.client()).list(&Default::default()).await.unwrap();
        assert_eq!(there.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [format!("only-{number}")]);
    }
    // Whoever may do everything in one cluster may not even say so to another.
    for pair in labs.windows(2).step_by(10) {
        assert!(pods(client(&pair[0], &pair[0]).await).get("no-pod").await.is_err_and(|error| is_api_error(&error)));
        assert!(pods(client(&pair[0], &pair[1]).await).get("no-pod").await.is_err_and(|error| !is_api_error(&error)));
    }
    // One that ends takes nothing from the others.
    let mut labs = labs.into_iter();
    let last = labs.next_back().unwrap();
    join_all(labs.map(Lab::stop)).await;
    assert_eq!(pods(client(&last, &last).await).list(&Default::default()).await.unwrap().items.len(), 1);
}

/// The API answered, rather than the connection being refused.
fn is_api_error(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(_))
}
