use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Columns, IncludeObject, Row, Table};
use crate::resource::GroupVersionKind;

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

/// The columns of `kubectl get`, without those of wide output, separated by `|`.
fn get(group: &str, kind: &str, object: Value) -> String {
    let columns = Columns::builtin(&GroupVersionKind::new(group, "v1", kind));
    let definitions = columns.definitions();
    let cells = columns.cells(&object, now());
    assert_eq!(definitions.as_array().unwrap().len(), cells.len(), "as many cells as columns");
    let shown = definitions.as_array().unwrap().iter().zip(cells).filter(|(definition, _)| definition["priority"] == 0);
    shown.map(|(_, cell)| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect::<Vec<_>>().join("|")
}

fn pod(spec: Value, status: Value) -> String {
    get(
        "",
        "Pod",
        json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status}),
    )
}

#[test]
fn pods() {
    let one = json!({"containers": [{"name": "a"}]});
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
    let running = |name: &str| json!({"name": name, "ready": true, "started": true, "restartCount": 0, "state": {"running": {}}});
    insta::assert_snapshot!(pod(one.clone(), json!({"phase": "Pending"})), @"web|0/1|Pending|0|10m");
    insta::assert_snapshot!(pod(one.clone(), json!({"phase": "Running", "containerStatuses": [running("a")]})), @"web|1/1|Running|0|10m");
    insta::assert_snapshot!(
        pod(one.clone(), json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:50Z"}}}]})),
        @"web|0/1|CrashLoopBackOff|3 (10s ago)|10m"
    );
    insta::assert_snapshot!(
        pod(one.clone(), json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]})),
        @"web|0/1|Completed|0|10m"
    );
    insta::assert_snapshot!(
        pod(one.clone(), json!({"phase": "Failed", "containerStatuses": [{"name": "a", "restartCount": 0, "state": {"terminated": {"exitCode": 2}}}]})),
        @"web|0/1|ExitCode:2|0|10m"
    );
    insta::assert_snapshot!(
        pod(two.clone(), json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"running": {}}},
            {"name": "s", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}],
            "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}]})),
        @"web|0/3|Init:0/2|0|10m"
    );
    insta::assert_snapshot!(
        pod(two.clone(), json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})),
        @"web|0/3|Init:CrashLoopBackOff|2|10m"
    );
    insta::assert_snapshot!(
        pod(two.clone(), json!({"phase": "Pending", "conditions": [{"type": "Initialized", "status": "True"}],
            "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}, running("s")],
            "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}, {"name": "b", "state": {"waiting": {"reason": "PodInitializing"}}}]})),
        @"web|1/3|PodInitializing|0|10m"
    );
    insta::assert_snapshot!(
        pod(two, json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}, running("s")],
            "containerStatuses": [running("a"), running("b")]})),
        @"web|3/3|Running|0|10m"
    );
    let terminating = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:10:00Z"},
        "spec": one, "status": {"phase": "Running", "containerStatuses": [running("a")]}});
    insta::assert_snapshot!(get("", "Pod", terminating), @"web|1/1|Terminating|0|10m");
}

#[test]
fn workloads_and_services() {
    let metadata = json!({"name": "web", "creationTimestamp": "2026-01-01T00:08:30Z"});
    let deployment = json!({"metadata": metadata, "spec": {"replicas": 2}, "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}});
    insta::assert_snapshot!(get("apps", "Deployment", deployment), @"web|1/2|2|1|90s");
    let service = json!({"metadata": metadata, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]}});
    insta::assert_snapshot!(get("", "Service", service), @"web|LoadBalancer|10.96.0.5|<pending>|80:30080/TCP,443/TCP|90s");
    let job = json!({"metadata": metadata, "spec": {"completions": 1}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:08:30Z",
        "completionTime": "2026-01-01T00:08:35Z", "conditions": [{"type": "Complete", "status": "True"}]}});
    insta::assert_snapshot!(get("batch", "Job", job), @"web|Complete|1/1|5s|90s");
    let endpoints = json!({"metadata": metadata, "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 1}, {"port": 2}]}]});
    insta::assert_snapshot!(get("", "Endpoints", endpoints), @"web|10.0.0.1:1,10.0.0.1:2,10.0.0.2:1 + 1 more...|90s");
    let node = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:08:30Z", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.33.4"}}});
    insta::assert_snapshot!(get("", "Node", node), @"n|Ready,SchedulingDisabled|control-plane|90s|v1.33.4");
    let event = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "Failed", "involvedObject": {"kind": "Pod", "name": "web"},
        "lastTimestamp": "2026-01-01T00:09:00Z", "message": "no\n", "source": {"component": "kubelet"}});
    insta::assert_snapshot!(get("", "Event", event), @"60s|Warning|Failed|pod/web|no");
    insta::assert_snapshot!(
        get("apiextensions.k8s.io", "CustomResourceDefinition", json!({"metadata": metadata})),
        @"web|2026-01-01T00:08:30Z"
    );
}

#[test]
fn empty_objects_have_cells_too() {
    for definition in crate::resource::builtin() {
        get(&definition.group, &definition.kind, json!({}));
    }
}

#[test]
fn custom_resources() {
    let columns = Columns::from_crd(&json!([
        {"name": "Gateways", "type": "string", "jsonPath": ".spec.gateways"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Ready", "type": "boolean", "jsonPath": ".status.ready", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Missing", "type": "string", "jsonPath": ".status.none"},
    ]));
    let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"gateways": ["g"], "replicas": 3},
        "status": {"ready": true}});
    assert_eq!(columns.cells(&object, now()), [json!("a"), json!("[\"g\"]"), json!(3), json!(true), json!("10m"), json!(null)]);
    let plain = Columns::from_crd(&json!(null));
    assert_eq!(plain.cells(&object, now()), [json!("a"), json!("10m")]);
    assert_eq!(plain.definitions()[1]["name"], "Age");
}

#[test]
fn a_table() {
    let columns = Columns::builtin(&GroupVersionKind::new("", "v1", "Namespace"));
    let namespace = json!({"kind": "Namespace", "metadata": {"name": "a", "managedFields": []}, "status": {"phase": "Active"}});
    let row = || Row::new(&columns, &namespace, IncludeObject::Metadata, now());
    let metadata = || json!({"resourceVersion": "1"});
    let whole = Table::new(metadata(), Some(&columns), vec![row(), row()]).to_string();
    let row_by_row = serde_json::to_string(&row()).unwrap();
    assert_eq!(whole, format!("{}{row_by_row},{row_by_row}]}}", Table::head(metadata(), &columns)));
    let table: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "Active", "<unknown>"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["rows"][0]["object"]["metadata"], json!({"name": "a"}));
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
}
