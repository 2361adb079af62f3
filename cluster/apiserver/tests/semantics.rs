//! What the API promises beyond storing and returning objects, asked for with plain requests.

mod support;

use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use http::{Method, Request};
use kube::Client;
use meshlab_apiserver::{ApiServer, ApiServerOptions, UserInfo};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use serde_json::{Value, json};
use support::Cluster;

/// An answer: a value, or the code, reason and message of a Status.
type Answer = Result<Value, (u16, String, String)>;

struct Caller(Client);

impl Caller {
    fn new(cluster: &Cluster) -> Self {
        Self(cluster.server.client(UserInfo::admin()))
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(body).unwrap();
        match self.0.request::<Value>(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err((status.code, status.reason.clone(), status.message.clone())),
            Err(other) => panic!("{path}: {other}"),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, "application/json", body).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, "application/json", body).await
    }

    async fn merge(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, "application/merge-patch+json", body).await
    }

    async fn delete(&self, path: &str, body: Value) -> Answer {
        self.send(Method::DELETE, path, "application/json", body).await
    }

    /// The first `count` events of a watch, as type and object.
    async fn watch(&self, path: &str, count: usize) -> Vec<(String, Value)> {
        let request = Request::builder().uri(path).body(Vec::new()).unwrap();
        let mut lines = self.0.request_stream(request).await.unwrap().lines();
        let mut events = Vec::new();
        while events.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(10), lines.try_next()).await;
            let line =
                next.unwrap_or_else(|_| panic!("{path}: after {events:?} nothing")).unwrap().expect("the watch ended early");
            let event: Value = serde_json::from_str(&line).unwrap();
            events.push((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
        }
        events
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "app"}]}})
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test]
async fn a_list_in_chunks_is_the_list_of_one_moment() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    for name in ["a", "b", "c", "d"] {
        api.post(MAPS, map(name)).await.unwrap();
    }
    let first = api.get(&format!("{MAPS}?limit=2")).await.unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    api.delete(&format!("{MAPS}/c"), Value::Null).await.unwrap();
    api.post(MAPS, map("cc")).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{MAPS}?limit=2&continue={token}")).await.unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(revision(&second), revision(&first));
    assert_eq!(second["metadata"].get("continue"), None);
    let exact = api.get(&format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", revision(&first))).await.unwrap();
    assert_eq!(names(&exact), ["a", "b", "c", "d"]);
    assert_eq!(names(&api.get(MAPS).await.unwrap()), ["a", "b", "cc", "d"]);
    let future = api.get(&format!("{MAPS}?resourceVersion=1000000")).await.unwrap_err();
    assert_eq!((future.0, future.1.as_str()), (504, "Timeout"));
    assert_eq!(api.get(&format!("{MAPS}?continue=nonsense")).await.unwrap_err().0, 400);
}

#[tokio::test]
async fn a_watch_that_begins_with_the_state_says_where_the_state_ends() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    api.post(MAPS, map("a")).await.unwrap();
    let path = format!("{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan");
    let events = api.watch(&path, 2).await;
    assert_eq!((events[0].0.as_str(), &events[0].1["metadata"]["name"]), ("ADDED", &json!("a")));
    assert_eq!(events[1].0, "BOOKMARK");
    assert_eq!(events[1].1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(events[1].1["metadata"]["resourceVersion"].is_string());
    let refused = api.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.unwrap_err();
    assert_eq!((refused.0, refused.1.as_str()), (422, "Invalid"));
}

#[tokio::test]
async fn an_update_needs_the_revision_it_is_based_on() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let first = api.post(MAPS, map("a")).await.unwrap();
    let mut changed = first.clone();
    changed["data"]["a"] = json!("2");
    let second = api.put(&format!("{MAPS}/a"), changed.clone()).await.unwrap();
    let conflict = api.put(&format!("{MAPS}/a"), changed).await.unwrap_err();
    insta::assert_snapshot!(conflict.2, @r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#);
    let same = api.put(&format!("{MAPS}/a"), second.clone()).await.unwrap();
    assert_eq!(revision(&same), revision(&second), "what changes nothing is not written");
    let precondition = json!({"preconditions": {"uid": "other"}});
    assert_eq!(api.delete(&format!("{MAPS}/a"), precondition).await.unwrap_err().0, 409);
    let taken = api.post(MAPS, map("a")).await.unwrap_err();
    assert_eq!(taken.2, "configmaps \"a\" already exists");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_one_is_gone() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/one"]);
    api.post(MAPS, held).await.unwrap();
    let path = format!("{MAPS}/held");
    let waiting = api.delete(&path, Value::Null).await.unwrap();
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    assert!(api.get(&path).await.is_ok());
    let more = json!({"metadata": {"finalizers": ["example.com/one", "example.com/two"]}});
    assert_eq!(api.merge(&path, more).await.unwrap_err().0, 422);
    api.merge(&path, json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(api.get(&path).await.unwrap_err().0, 404);
    let owner = api.post(MAPS, map("owner")).await.unwrap();
    assert_eq!(owner["metadata"].get("finalizers"), None);
    let foreground = api.delete(&format!("{MAPS}/owner"), json!({"propagationPolicy": "Foreground"})).await.unwrap();
    assert_eq!(foreground["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_running_pod_is_deleted_in_two_steps() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    api.post(PODS, pod("idle")).await.unwrap();
    api.delete(&format!("{PODS}/idle"), Value::Null).await.unwrap();
    assert_eq!(api.get(&format!("{PODS}/idle")).await.unwrap_err().0, 404, "a pod on no node has nothing to end");
    api.post(PODS, pod("web")).await.unwrap();
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "node"}});
    api.post(&format!("{PODS}/web/binding"), binding).await.unwrap();
    let path = format!("{PODS}/web");
    assert_eq!(api.get(&path).await.unwrap()["spec"]["nodeName"], "node");
    let going = api.delete(&path, Value::Null).await.unwrap();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let sooner = api.delete(&path, json!({"gracePeriodSeconds": 5})).await.unwrap();
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    api.delete(&path, json!({"gracePeriodSeconds": 0})).await.unwrap();
    assert_eq!(api.get(&path).await.unwrap_err().0, 404);
}

#[tokio::test]
async fn status_and_spec_are_written_through_their_own_paths() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let mut first = pod("web");
    first["status"] = json!({"phase": "Running"});
    let created = api.post(PODS, first).await.unwrap();
    assert_eq!(created["status"]["phase"], "Pending");
    let path = format!("{PODS}/web");
    api.merge(&path, json!({"status": {"phase": "Running"}})).await.unwrap();
    assert_eq!(api.get(&path).await.unwrap()["status"]["phase"], "Pending");
    let both = json!({"status": {"phase": "Running"}, "spec": {"priority": 7}});
    let updated = api.merge(&format!("{path}/status"), both).await.unwrap();
    assert_eq!(updated["status"]["phase"], "Running");
    assert_ne!(updated["spec"]["priority"], 7);
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    for (name, colour) in [("a", "red"), ("b", "red"), ("c", "blue")] {
        let mut map = map(name);
        map["metadata"]["labels"] = json!({"colour": colour});
        api.post(MAPS, map).await.unwrap();
    }
    api.delete(&format!("{MAPS}?labelSelector=colour%3Dred&dryRun=All"), Value::Null).await.unwrap();
    assert_eq!(names(&api.get(MAPS).await.unwrap()), ["a", "b", "c"]);
    let deleted = api.delete(&format!("{MAPS}?labelSelector=colour%3Dred"), Value::Null).await.unwrap();
    assert_eq!((&deleted["kind"], deleted["items"].as_array().map(Vec::len)), (&json!("ConfigMapList"), Some(2)));
    assert_eq!(names(&api.get(MAPS).await.unwrap()), ["c"]);
    api.delete(&format!("{MAPS}?fieldSelector=metadata.name%3Dc"), json!({"propagationPolicy": "Background"})).await.unwrap();
    assert!(names(&api.get(MAPS).await.unwrap()).is_empty());
}

#[tokio::test]
async fn evictions_keep_to_the_disruption_budget() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    for name in ["one", "two"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"app": "web"});
        api.post(PODS, pod).await.unwrap();
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        api.merge(&format!("{PODS}/{name}/status"), ready).await.unwrap();
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    api.post(budgets, budget).await.unwrap();
    let evict = async |name: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        api.post(&format!("{PODS}/{name}/eviction"), eviction).await
    };
    assert_eq!(evict("one").await.unwrap()["status"], "Success");
    assert_eq!(api.get(&format!("{PODS}/one")).await.unwrap_err().0, 404);
    let refused = evict("two").await.unwrap_err();
    assert_eq!((refused.0, refused.1.as_str()), (429, "TooManyRequests"));
    insta::assert_snapshot!(refused.2, @"Cannot evict pod as it would violate the pod's disruption budget.");
    api.delete(&format!("{budgets}/web"), Value::Null).await.unwrap();
    evict("two").await.unwrap();
    assert_eq!(evict("two").await.unwrap_err().0, 404);
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let dry = api.post(&format!("{MAPS}?dryRun=All"), map("a")).await.unwrap();
    assert!(dry["metadata"]["uid"].is_string());
    assert_eq!(api.get(&format!("{MAPS}/a")).await.unwrap_err().0, 404);
    api.post(MAPS, map("a")).await.unwrap();
    api.delete(&format!("{MAPS}/a?dryRun=All"), Value::Null).await.unwrap();
    let patched = api.merge(&format!("{MAPS}/a?dryRun=All"), json!({"data": {"a": "2"}})).await.unwrap();
    assert_eq!(patched["data"]["a"], "2");
    assert_eq!(api.get(&format!("{MAPS}/a")).await.unwrap()["data"]["a"], "1");
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_missing_or_going_away() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let missing = api.post("/api/v1/namespaces/nowhere/configmaps", map("a")).await.unwrap_err();
    assert_eq!((missing.0, missing.2.as_str()), (404, "namespaces \"nowhere\" not found"));
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "old"}})).await.unwrap();
    let going = api.delete("/api/v1/namespaces/old", Value::Null).await.unwrap();
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = api.post("/api/v1/namespaces/old/configmaps", map("a")).await.unwrap_err();
    insta::assert_snapshot!(refused.2, @r#"configmaps "a" is forbidden: unable to create new content in namespace old because it is being terminated"#);
    let mut namespace = api.get("/api/v1/namespaces/old").await.unwrap();
    namespace["spec"]["finalizers"] = json!([]);
    api.put("/api/v1/namespaces/old/finalize", namespace).await.unwrap();
    assert_eq!(api.get("/api/v1/namespaces/old").await.unwrap_err().0, 404);
    assert_eq!(api.delete("/api/v1/namespaces/default", Value::Null).await.unwrap_err().0, 403);
}

#[tokio::test]
async fn services_get_addresses_of_their_own() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let first = api.post(services, service("a", json!({"ports": [{"port": 80}]}))).await.unwrap();
    let address = first["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(first["spec"]["clusterIPs"], json!([address]));
    let same = api.post(services, service("b", json!({"clusterIP": address, "ports": [{"port": 80}]}))).await.unwrap_err();
    assert!(same.2.contains("provided IP is already allocated"), "{}", same.2);
    let port = api.post(services, service("c", json!({"type": "NodePort", "ports": [{"port": 80}]}))).await.unwrap();
    let port = port["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..32768).contains(&port));
    let taken = service("d", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    assert!(api.post(services, taken).await.unwrap_err().2.contains("provided port is already allocated"));
    let moved =
        api.merge(&format!("{services}/a"), json!({"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}})).await;
    assert_eq!(moved.unwrap_err().0, 422);
    let headless = api.post(services, service("e", json!({"clusterIP": "None", "ports": [{"port": 80}]}))).await.unwrap();
    assert_eq!(headless["spec"]["clusterIP"], "None");
}

#[tokio::test]
async fn a_user_may_do_what_its_roles_allow_and_no_more() {
    let cluster = Cluster::start().await;
    let admin = Caller::new(&cluster);
    let bob = Caller(cluster.server.client(UserInfo::new("bob", &[])));
    let denied = bob.get(MAPS).await.unwrap_err();
    insta::assert_snapshot!(denied.2, @r#"configmaps is forbidden: User "bob" cannot list resource "configmaps" in API group "" in the namespace "default""#);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
    ]});
    admin.post(&format!("{rbac}/roles"), role).await.unwrap();
    let binding = json!({"metadata": {"name": "reader"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}});
    admin.post(&format!("{rbac}/rolebindings"), binding).await.unwrap();
    bob.get(MAPS).await.unwrap();
    assert_eq!(bob.post(MAPS, map("a")).await.unwrap_err().0, 403);
    let escalation =
        json!({"metadata": {"name": "more"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    let refused = bob.post(&format!("{rbac}/roles"), escalation).await.unwrap_err();
    assert!(refused.2.contains("is attempting to grant RBAC permissions not currently held"), "{}", refused.2);
    let review = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}}});
    let review = bob.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await.unwrap();
    assert_eq!(review["status"]["allowed"], true);
    let me = bob.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await.unwrap();
    assert_eq!(me["status"]["userInfo"]["username"], "bob");
}

#[tokio::test]
async fn a_service_accounts_token_is_as_good_as_what_it_is_bound_to() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    api.post(PODS, pod("web")).await.unwrap();
    let request =
        json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}, "audiences": ["istio-ca"]}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = api.post(path, request).await.unwrap()["status"]["token"].clone();
    let review = async |audience: &str| {
        let review = json!({"spec": {"token": token, "audiences": [audience]}});
        api.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.unwrap()["status"].clone()
    };
    let good = review("istio-ca").await;
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(good["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["web"]));
    assert_eq!(review("other").await["authenticated"], Value::Null);
    api.delete(&format!("{PODS}/web"), Value::Null).await.unwrap();
    assert_eq!(review("istio-ca").await["authenticated"], Value::Null);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || {
        let mut options = ApiServerOptions::new(VirtualNet::new(VirtualNetOptions::default()));
        options.data_dir = Some(directory.path().to_owned());
        options
    };
    let cluster = Cluster::start_with(options()).await;
    let ca = cluster.server.ca_certificate().to_owned();
    let before = Caller::new(&cluster).post(MAPS, map("a")).await.unwrap();
    cluster.server.stop().await;
    let server = ApiServer::start(options()).await.unwrap();
    assert_eq!(server.ca_certificate(), ca);
    let api = Caller(server.client(UserInfo::admin()));
    assert_eq!(api.get(&format!("{MAPS}/a")).await.unwrap(), before);
    let events = api.watch(&format!("{MAPS}?watch=true&resourceVersion=1"), 1).await;
    assert_eq!((events[0].0.as_str(), &events[0].1["code"]), ("ERROR", &json!(410)));
}

#[tokio::test]
async fn a_crd_is_served_as_soon_as_it_is_created() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {
                "size": {"type": "integer"}, "colour": {"type": "string", "default": "blue"}}}}}}})
    };
    let crd = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": [version("v1", true), version("v1beta1", false)]}});
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let created = api.post(crds, crd).await.unwrap();
    assert_eq!(created["status"]["acceptedNames"]["kind"], "Widget");
    let resources = api.get("/apis/example.com/v1").await.unwrap();
    assert_eq!(resources["resources"][0]["name"], "widgets");
    let documents = api.get("/openapi/v3").await.unwrap();
    assert!(documents["paths"]["apis/example.com/v1"].is_object());
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let mut events = Vec::new();
    let stored = api.post(widgets, json!({"metadata": {"name": "a"}, "spec": {"size": 1, "unknown": 2}})).await.unwrap();
    assert_eq!(stored["spec"], json!({"size": 1, "colour": "blue"}));
    assert_eq!(stored["apiVersion"], "example.com/v1");
    events.extend(api.watch("/apis/example.com/v1beta1/widgets?watch=true", 1).await);
    assert_eq!(events[0].1["apiVersion"], "example.com/v1beta1");
    let strict = json!({"metadata": {"name": "b"}, "spec": {"unknown": 2}});
    let refused = api.post(&format!("{widgets}?fieldValidation=Strict"), strict).await.unwrap_err();
    insta::assert_snapshot!(refused.2, @r#"Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.unknown""#);
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    api.merge(&format!("{widgets}/a"), held).await.unwrap();
    api.delete(&format!("{crds}/widgets.example.com"), Value::Null).await.unwrap();
    let late = api.post(widgets, json!({"metadata": {"name": "late"}})).await.unwrap_err();
    assert_eq!(late.2, "create not allowed while custom resource definition is terminating");
    // Deleting the objects is left to a task; releasing one before it has been marked is as good.
    api.merge(&format!("{widgets}/a"), json!({"metadata": {"finalizers": null}})).await.unwrap();
    let gone = api
        .watch(
            &format!("{crds}?watch=true&fieldSelector=metadata.name=widgets.example.com&resourceVersion={}", revision(&created)),
            2,
        )
        .await;
    assert_eq!(gone.last().unwrap().0, "DELETED");
    assert_eq!(api.get(widgets).await.unwrap_err().0, 404);
}

#[tokio::test]
async fn a_crd_that_cannot_work_is_refused_with_the_field_at_fault() {
    let cluster = Cluster::start().await;
    let api = Caller::new(&cluster);
    let crd = |rule: &str, strategy: &str| {
        json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"}, "conversion": {"strategy": strategy},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "x-kubernetes-validations": [{"rule": rule}]}}}}}]}})
    };
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let refused = api.post(crds, crd("self.size <", "None")).await.unwrap_err();
    let field = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    assert!(refused.0 == 422 && refused.2.contains(field), "{}", refused.2);
    let refused = api.post(crds, crd("true", "Webhook")).await.unwrap_err();
    assert!(refused.2.contains("spec.conversion"), "{}", refused.2);
    api.post(crds, crd("true", "None")).await.unwrap();
}
