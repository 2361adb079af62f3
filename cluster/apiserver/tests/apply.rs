//! Server-side apply over the API: subresources, and who owns what.

mod support;

use http::{Method, Request};
use kube::Client;
use meshlab_apiserver::UserInfo;
use serde_json::{Value, json};
use support::Cluster;

async fn send(client: &Client, method: Method, path: &str, content_type: &str, body: Value) -> Value {
    let request = Request::builder().method(method).uri(path).header("content-type", content_type);
    client.request::<Value>(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

async fn apply(client: &Client, path: &str, manager: &str, body: Value) -> Value {
    send(client, Method::PATCH, &format!("{path}?fieldManager={manager}"), "application/apply-patch+yaml", body).await
}

/// Manager, subresource and the names of the fields below the top that each owns.
fn owners(object: &Value) -> Vec<(&str, &str, Vec<String>)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let fields = entry["fieldsV1"].as_object().unwrap();
            let paths = fields.iter().flat_map(|(top, below)| {
                below.as_object().unwrap().keys().filter(|name| *name != ".").map(move |name| format!("{top}.{name}"))
            });
            (entry["manager"].as_str().unwrap(), entry["subresource"].as_str().unwrap_or_default(), paths.collect())
        })
        .collect()
}

#[tokio::test]
async fn the_status_of_a_custom_resource_is_applied_through_its_subresource_alone() {
    let cluster = Cluster::start().await;
    let client = cluster.server.client(UserInfo::admin());
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let crd = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}}}]}});
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    send(&client, Method::POST, crds, "application/json", crd).await;
    let path = "/apis/example.com/v1/namespaces/default/widgets/one";
    let status = format!("{path}/status");
    let widget = |labels: Value, spec: Value, status: Value| {
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one", "labels": labels},
            "spec": spec, "status": status})
    };
    let created = apply(&client, path, "user", widget(json!({}), json!({"size": 1}), json!({"phase": "Made up"}))).await;
    assert_eq!(created.get("status"), None);
    assert_eq!(created["metadata"].get("labels"), None, "an empty map is none");
    assert_eq!(owners(&created), [("user", "", vec!["f:spec.f:size".to_owned()])]);
    let told = widget(json!({"a": "b"}), json!({"size": 7}), json!({"phase": "Ready"}));
    let told = apply(&client, &status, "controller", told).await;
    assert_eq!((&told["spec"], &told["status"]), (&json!({"size": 1}), &json!({"phase": "Ready"})));
    assert_eq!(told["metadata"].get("labels"), None);
    let both = [("controller", "status", vec!["f:status.f:phase".to_owned()]), ("user", "", vec!["f:spec.f:size".to_owned()])];
    assert_eq!(owners(&told), both);
    let again = apply(&client, path, "user", widget(json!({}), json!({"size": 2}), json!({"phase": "Mine"}))).await;
    assert_eq!((&again["spec"], &again["status"]), (&json!({"size": 2}), &json!({"phase": "Ready"})));
    let released = apply(&client, &status, "controller", widget(json!({}), json!({}), json!({"step": 2}))).await;
    assert_eq!(released["status"], json!({"step": 2}));
}

#[tokio::test]
async fn the_status_of_a_built_in_kind_is_applied_through_its_subresource_alone() {
    let cluster = Cluster::start().await;
    let client = cluster.server.client(UserInfo::admin());
    let path = "/api/v1/namespaces/default/services/web";
    let service = |spec: Value, status: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec, "status": status});
    let address = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}});
    let created = apply(&client, path, "user", service(json!({"ports": [{"port": 80}]}), address.clone())).await;
    assert_eq!(created["status"], json!({"loadBalancer": {}}));
    let told =
        apply(&client, &format!("{path}/status"), "controller", service(json!({"ports": [{"port": 81}]}), address.clone())).await;
    assert_eq!((&told["spec"]["ports"][0]["port"], &told["status"]), (&json!(80), &address));
    assert!(owners(&told).iter().any(|owner| owner.0 == "controller" && owner.1 == "status"), "{:?}", owners(&told));
}
