//! What the API does where there is much, or nothing any more: many objects, slow watchers, a full disk.

use http_body_util::BodyExt;
use meshlab_net::{VirtualNet, VirtualNetOptions};
use serde_json::{Value, json};

use super::*;
use crate::auth::{Caller, Pki, Tokens};
use crate::http::{Body, Request, full};
use crate::store::{Expect, GroupResource, Store, Write};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn api(store: Store) -> Arc<Api> {
    let tokens = Tokens::new(&Pki::open(None).unwrap().token_key).unwrap();
    Api::new(store, tokens, Default::default(), VirtualNet::new(VirtualNetOptions::default()))
}

async fn send(api: &Arc<Api>, request: http::request::Builder, body: &Value) -> Response {
    let body = if body.is_null() { full("") } else { full(body.to_string()) };
    let request: Request = request.header(CONTENT_TYPE, "application/json").body(body).unwrap();
    api.clone().respond(Caller::InProcess(UserInfo::admin()), request).await
}

async fn value(body: Body) -> Value {
    serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap()
}

fn pod(number: usize) -> Value {
    let labels = json!({"app": "web", "pod-template-hash": "5d4f8c7b9"});
    let status = json!({"phase": "Running", "podIP": "10.244.3.7", "containerStatuses": [
        {"name": "web", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    json!({"apiVersion": "v1", "kind": "Pod", "status": status, "spec": {"containers": [{"name": "web", "image": "web"}]},
        "metadata": {"name": format!("web-{number:05}"), "namespace": "default", "labels": labels}})
}

fn put(api: &Api, resource: &str, name: &str, expect: Expect, value: Value) -> Arc<Object> {
    api.store.commit(&GroupResource::new("", resource), &Key::new("default", name), expect, Write::Put(value)).unwrap()
}

#[tokio::test]
async fn a_table_of_ten_thousand_pods_is_whole_and_never_in_memory_at_once() {
    let api = api(Store::open(None).unwrap());
    for number in 0..10_000 {
        put(&api, "pods", &format!("web-{number:05}"), Expect::Absent, pod(number));
    }
    let request = http::Request::get(PODS).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let mut body = send(&api, request, &Value::Null).await.into_body();
    let (mut text, mut largest) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        largest = largest.max(piece.len());
        text.extend_from_slice(&piece);
    }
    assert!(text.len() > 20 * largest && largest < 80_000, "{} bytes in pieces of {largest} at most", text.len());
    let table: Value = serde_json::from_slice(&text).unwrap();
    let rows = table["rows"].as_array().unwrap();
    let names = rows.iter().map(|row| row["cells"][0].as_str().unwrap().to_owned());
    assert!(names.eq((0..10_000).map(|number| format!("web-{number:05}"))));
    assert!(rows.iter().all(|row| row["cells"][2] == "Running" && row["object"]["metadata"]["labels"]["app"] == "web"));
}

#[tokio::test]
async fn a_watcher_that_comes_too_late_learns_it_and_its_stream_ends() {
    let api = api(Store::open(None).unwrap());
    let mut object = put(&api, "pods", "web", Expect::Absent, pod(0));
    let request = http::Request::get(format!("{PODS}?watch=true&resourceVersion={}", object.revision));
    let mut body = send(&api, request, &Value::Null).await.into_body();
    for _ in 0..9000 {
        object = put(&api, "pods", "web", Expect::Revision(object.revision), pod(0));
    }
    let event: Value = serde_json::from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(body.frame().await.is_none());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_every_kind_of_write_and_serves_every_kind_of_read() {
    let directory = tempfile::tempdir().unwrap();
    let api = api(Store::open(Some(directory.path())).unwrap());
    api.seed("", "namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})).await.unwrap();
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "one"}, "data": {"a": "b"}});
    assert_eq!(send(&api, http::Request::post(MAPS), &map).await.status(), 201);
    let one = format!("{MAPS}/one");
    let before = value(send(&api, http::Request::get(&one), &Value::Null).await.into_body()).await;
    let revision = before["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = http::Request::get(format!("{MAPS}?watch=true&resourceVersion={revision}"));
    let mut watch = send(&api, watch, &Value::Null).await.into_body();

    let space = api.store.fill_the_disk();
    let two = json!({"metadata": {"name": "two"}});
    let changed = json!({"metadata": {"name": "one"}, "data": {"a": "c"}});
    let writes =
        [(http::Request::post(MAPS), &two), (http::Request::put(&one), &changed), (http::Request::delete(&one), &Value::Null)];
    for (request, body) in writes {
        let status = value(send(&api, request, body).await.into_body()).await;
        let message = status["message"].as_str().unwrap();
        assert!(status["code"] == 500 && message.contains("writes will when there is room again"), "{status}");
    }
    assert_eq!(value(send(&api, http::Request::get(&one), &Value::Null).await.into_body()).await, before);
    let list = value(send(&api, http::Request::get(MAPS), &Value::Null).await.into_body()).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);

    // The first change that the watcher hears of is the first one that was accepted.
    api.store.free_the_disk(space);
    assert_eq!(send(&api, http::Request::put(&one), &changed).await.status(), 200);
    let event: Value = serde_json::from_slice(&watch.frame().await.unwrap().unwrap().into_data().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]["data"]["a"]), (&json!("MODIFIED"), &json!("c")));
    drop((api, watch));
    let again = Store::open(Some(directory.path())).unwrap().list(&GroupResource::new("", "configmaps"), None).objects;
    assert_eq!((again.len(), &again[0].value()["data"]["a"]), (1, &json!("c")));
}

#[tokio::test]
async fn people_get_json_on_many_lines() {
    let api = api(Store::open(None).unwrap());
    let text = async |uri: &str, agent: &str| {
        let request = http::Request::get(uri).header("user-agent", agent);
        let body = send(&api, request, &Value::Null).await.into_body();
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    let one_line = text("/api/v1/namespaces/default/pods/web", "kubectl/v1.33.1").await;
    assert!(!one_line.contains('\n') && one_line.contains("not found"), "{one_line}");
    for (uri, agent) in [("/api/v1/pods", "curl/8.5.0"), ("/apis", "Mozilla/5.0 (X11)"), ("/api/v1/pods?pretty=true", "kubectl")]
    {
        let lines = text(uri, agent).await;
        assert!(lines.starts_with("{\n  \"") && lines.ends_with("\n}"), "{uri}: {lines}");
    }
    assert!(!text("/api/v1/pods?pretty=false", "curl/8.5.0").await.contains('\n'));
    // Whoever watches waits for lines, each an event.
    put(&api, "configmaps", "a", Expect::Absent, json!({"metadata": {"name": "a", "namespace": "default"}}));
    let request = http::Request::get("/api/v1/configmaps?watch=true").header("user-agent", "curl/8.5.0");
    let mut watch = send(&api, request, &Value::Null).await.into_body();
    let event = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(event.iter().filter(|byte| **byte == b'\n').count(), 1);
}
