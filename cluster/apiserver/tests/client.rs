//! kube-rs, within the process and over TLS.

mod support;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use meshlab_apiserver::UserInfo;
use serde_json::json;
use support::Cluster;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": name}}, "data": {"a": "1"}})).unwrap()
}

#[tokio::test]
async fn a_watch_tells_every_change() {
    let cluster = Cluster::start().await;
    for client in [cluster.server.client(UserInfo::admin()), cluster.over_tls().await] {
        let maps = Api::<ConfigMap>::default_namespaced(client);
        let since = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let selected = WatchParams::default().labels("app=one");
        let mut events = maps.watch(&selected, &since).await.unwrap().boxed();
        maps.create(&PostParams::default(), &config_map("other")).await.unwrap();
        maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
        let change = json!({"data": {"a": "2"}});
        maps.patch("one", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
        maps.delete("one", &DeleteParams::default()).await.unwrap();
        maps.delete("other", &DeleteParams::default()).await.unwrap();
        let mut kinds = Vec::new();
        while kinds.len() < 3 {
            match events.try_next().await.unwrap().unwrap() {
                WatchEvent::Added(map) => kinds.push(("added", map.data.unwrap()["a"].clone())),
                WatchEvent::Modified(map) => kinds.push(("modified", map.data.unwrap()["a"].clone())),
                WatchEvent::Deleted(map) => kinds.push(("deleted", map.data.unwrap()["a"].clone())),
                other => panic!("{other:?}"),
            }
        }
        let kinds: Vec<_> = kinds.iter().map(|(kind, value)| (*kind, value.as_str())).collect();
        assert_eq!(kinds, [("added", "1"), ("modified", "2"), ("deleted", "2")]);
    }
}

#[tokio::test]
async fn a_pod_gets_its_account_and_token() {
    let cluster = Cluster::start().await;
    let pods = Api::<Pod>::default_namespaced(cluster.server.client(UserInfo::admin()));
    let pod = serde_json::from_value(
        json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "web", "image": "app"}]}}),
    );
    let pod = pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
    assert!(pod.metadata.name.as_deref().unwrap().starts_with("web-"));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert!(spec.volumes.unwrap()[0].name.starts_with("kube-api-access-"));
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
}
