//! What a client cannot do to the server, whatever it sends or leaves unread.

mod support;

use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::{Method, Request};
use kube::Client;
use meshlab_apiserver::{ApiServerOptions, UserInfo};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use serde_json::{Value, json};
use support::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// Clients that watch at the same time.
const WATCHERS: usize = 1000;
/// What each of them has to see.
const EVENTS: usize = 20;

fn post(path: &str, body: &Value) -> Request<Vec<u8>> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

fn get(path: &str) -> Request<Vec<u8>> {
    Request::builder().uri(path).body(Vec::new()).unwrap()
}

#[tokio::test]
async fn a_body_over_three_mebibytes_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::start().await;
    let client = cluster.over_tls().await;
    let whole = |size: usize| {
        let body = json!({"metadata": {"name": "big"}, "data": {"a": ""}}).to_string();
        post(MAPS, &json!({"metadata": {"name": "big"}, "data": {"a": "x".repeat(size - body.len())}}))
    };
    for (size, code) in [((3 << 20) + 1, 413), (3 << 20, 422)] {
        match client.request::<Value>(whole(size)).await {
            Err(kube::Error::Api(status)) => assert_eq!(status.code, code, "{size} bytes: {}", status.message),
            other => panic!("{size} bytes: {other:?}"),
        }
    }
    assert_eq!(client.request_text(get("/readyz")).await.unwrap(), "ok");
}

/// How many watches the server says it serves.
async fn watches(client: &Client) -> usize {
    let metrics = client.request_text(get("/metrics")).await.unwrap();
    let gauge = metrics.lines().find_map(|line| line.strip_prefix("apiserver_longrunning_requests{verb=\"WATCH\"} "));
    gauge.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_see_every_event_and_one_that_does_not_read_is_cut_off() {
    let mut options = ApiServerOptions::new(VirtualNet::new(VirtualNetOptions::default()));
    options.write_patience = Duration::from_millis(300);
    let cluster = Cluster::start_with(options).await;
    let client = cluster.server.client(UserInfo::admin());
    let list: Value = client.request(get(MAPS)).await.unwrap();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let others = watches(&client).await;
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let watch = client.request_stream(get(&format!("{MAPS}?watch=true&resourceVersion={revision}"))).await.unwrap();
        watchers.spawn(async move {
            let names = watch.lines().take(EVENTS).map_ok(|line| {
                let event: Value = serde_json::from_str(&line).unwrap();
                event["object"]["metadata"]["name"].as_str().unwrap().to_owned()
            });
            names.try_collect::<Vec<_>>().await.unwrap()
        });
    }
    let unread = cluster.over_tls().await.request_stream(get(&format!("{SECRETS}?watch=true"))).await.unwrap();
    assert_eq!(watches(&client).await, others + WATCHERS + 1);

    // Whatever the sockets hold, it is less than this; what is written for nobody is a megabyte at a time.
    let mut written = 0;
    while watches(&client).await == others + WATCHERS + 1 {
        assert!(written < 64, "the watcher that does not read is still there");
        let secret = json!({"metadata": {"name": format!("big-{written}")}, "stringData": {"a": "x".repeat(700_000)}});
        client.request::<Value>(post(SECRETS, &secret)).await.unwrap();
        written += 1;
        if written > 16 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let names: Vec<String> = (0..EVENTS).map(|number| format!("map-{number}")).collect();
    for name in &names {
        client.request::<Value>(post(MAPS, &json!({"metadata": {"name": name}}))).await.unwrap();
    }
    while let Some(seen) = watchers.join_next().await {
        assert_eq!(seen.unwrap(), names);
    }
    drop(unread);
}
