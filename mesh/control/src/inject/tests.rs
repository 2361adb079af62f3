use serde_json::{Value, json};

use super::merge::named;
use super::*;

fn injector() -> Injector {
    Injector { native_sidecars: true, mesh: json!({ "trustDomain": "cluster.local" }), ..Injector::default() }
}

fn app() -> Value {
    json!({
        "metadata": {
            "generateName": "reviews-v1-5d4f-", "labels": { "app": "reviews", "version": "v1", "pod-template-hash": "5d4f" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "reviews-v1-5d4f", "controller": true }],
        },
        "spec": {
            "serviceAccountName": "bookinfo-reviews",
            "containers": [{ "name": "reviews", "image": "reviews", "ports": [{ "containerPort": 9080 }] }],
        },
    })
}

/// The pod as the API server will have it after the patch.
fn injected(injector: &Injector, pod: &Value) -> Value {
    let patch = injector.inject(pod, "default", &Value::Null).unwrap().expect("is injected");
    let mut after = pod.clone();
    json_patch::patch(&mut after, &patch).unwrap();
    after
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    pod["spec"][list].as_array().into_iter().flatten().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn annotated(mut pod: Value, name: &str, value: &str) -> Value {
    pod["metadata"]["annotations"][name] = value.into();
    pod
}

#[test]
fn a_native_sidecar_starts_before_the_app() {
    let pod = injected(&injector(), &app());
    assert_eq!(names(&pod, "initContainers"), ["istio-init", "istio-proxy"]);
    assert_eq!(names(&pod, "containers"), ["reviews"]);
    assert_eq!(named(&pod["spec"]["initContainers"], PROXY).unwrap()["restartPolicy"], "Always");
    insta::assert_json_snapshot!(pod["metadata"], @"");
    insta::assert_json_snapshot!(pod["spec"]["initContainers"], @"");
    insta::assert_json_snapshot!(pod["spec"]["volumes"], @"");
}

#[test]
fn a_classic_sidecar_comes_last() {
    let pod = injected(&injector(), &annotated(app(), "sidecar.istio.io/nativeSidecar", "false"));
    assert_eq!(names(&pod, "initContainers"), ["istio-init"]);
    assert_eq!(names(&pod, "containers"), ["reviews", "istio-proxy"]);
    let proxy = named(&pod["spec"]["containers"], PROXY).unwrap();
    assert!(proxy["restartPolicy"].is_null() && proxy["lifecycle"].is_null());
    insta::assert_snapshot!(pod["metadata"]["annotations"][STATUS].as_str().unwrap(), @"");
}

#[test]
fn the_app_can_wait_for_a_classic_sidecar() {
    let pod = annotated(app(), "sidecar.istio.io/nativeSidecar", "false");
    let pod = injected(&injector(), &annotated(pod, "proxy.istio.io/config", "holdApplicationUntilProxyStarts: true"));
    assert_eq!(names(&pod, "containers"), ["istio-proxy", "reviews"]);
    let proxy = named(&pod["spec"]["containers"], PROXY).unwrap();
    assert_eq!(proxy["lifecycle"]["postStart"]["exec"]["command"], json!(["pilot-agent", "wait"]));
    let config = named(&proxy["env"], "PROXY_CONFIG").unwrap();
    assert_eq!(config["value"], "{\"holdApplicationUntilProxyStarts\":true}\n");
}

#[test]
fn injecting_twice_changes_nothing() {
    for native in ["true", "false"] {
        let mut pod = annotated(app(), "sidecar.istio.io/nativeSidecar", native);
        pod["spec"]["containers"][0]["readinessProbe"] = json!({ "httpGet": { "path": "/", "port": 9080 } });
        pod["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": PROXY, "image": "auto", "env": [{ "name": "A", "value": "1" }] }));
        let once = injected(&injector(), &pod);
        let twice = injector().inject(&once, "default", &Value::Null).unwrap().unwrap();
        // The app's probes already point at the agent, whose own list of them is the one thing that is not made again.
        let mut after = once.clone();
        json_patch::patch(&mut after, &twice).unwrap();
        assert_eq!(names(&after, "containers"), names(&once, "containers"), "native: {native}");
        assert_eq!(names(&after, "initContainers"), names(&once, "initContainers"), "native: {native}");
        assert_eq!(after["metadata"], once["metadata"], "native: {native}");
        assert_eq!(after["spec"]["volumes"], once["spec"]["volumes"], "native: {native}");
    }
}

#[test]
fn the_author_may_set_the_proxys_own_fields() {
    let mut pod = app();
    let own = json!({ "name": PROXY, "image": "auto", "env": [{ "name": "MINE", "value": "1" }], "securityContext": { "runAsUser": 2000 } });
    pod["spec"]["containers"].as_array_mut().unwrap().push(own);
    let pod = injected(&injector(), &pod);
    assert_eq!(names(&pod, "containers"), ["reviews"]);
    let proxy = named(&pod["spec"]["initContainers"], PROXY).unwrap();
    assert_eq!(proxy["image"], "ghcr.io/meshlab/proxyv2:latest");
    assert_eq!(named(&proxy["env"], "MINE").unwrap()["value"], "1");
    assert_eq!(named(&proxy["env"], "POD_NAME").unwrap()["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
    assert_eq!(proxy["securityContext"]["runAsUser"], 2000);
    let init = named(&pod["spec"]["initContainers"], INIT).unwrap();
    let args: Vec<_> = init["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert_eq!(args[5..7], ["-u", "2000"]);
}

#[test]
fn traffic_annotations_become_flags_of_the_init_container() {
    let pod = annotated(app(), "traffic.sidecar.istio.io/excludeInboundPorts", "8080,8081");
    let pod = annotated(pod, "traffic.sidecar.istio.io/excludeOutboundPorts", "3306");
    let pod = annotated(pod, "traffic.sidecar.istio.io/includeOutboundIPRanges", "10.96.0.0/12");
    let pod = injected(&injector(), &annotated(pod, "status.sidecar.istio.io/port", "16020"));
    let args = named(&pod["spec"]["initContainers"], INIT).unwrap()["args"].as_array().unwrap();
    let args: Vec<_> = args.iter().map(|arg| arg.as_str().unwrap()).collect();
    insta::assert_snapshot!(args.join(" "), @"");
}

#[test]
fn without_interception_there_is_no_init_container() {
    let pod = annotated(app(), "sidecar.istio.io/interceptionMode", "NONE");
    assert_eq!(names(&injected(&injector(), &pod), "initContainers"), ["istio-proxy"]);
    let pod = annotated(pod, "sidecar.istio.io/nativeSidecar", "false");
    assert_eq!(injected(&injector(), &pod)["spec"]["initContainers"], Value::Null);
}

#[test]
fn a_gateway_only_needs_an_image_called_auto() {
    let pod = json!({
        "metadata": { "name": "gw", "labels": { "istio": "ingressgateway" }, "annotations": { "inject.istio.io/templates": "gateway" } },
        "spec": { "containers": [{ "name": PROXY, "image": "auto" }] },
    });
    let pod = injected(&injector(), &pod);
    let proxy = named(&pod["spec"]["containers"], PROXY).unwrap();
    assert_eq!(proxy["args"][1], "router");
    assert_eq!(proxy["image"], "ghcr.io/meshlab/proxyv2:latest");
    assert!(pod["spec"]["initContainers"].is_null());
    assert!(pod["metadata"]["labels"]["security.istio.io/tlsMode"].is_null());
}

#[test]
fn proxy_resources_follow_the_annotations() {
    let pod = injected(&injector(), &annotated(app(), "sidecar.istio.io/proxyCPU", "200m"));
    let proxy = named(&pod["spec"]["initContainers"], PROXY).unwrap();
    assert_eq!(proxy["resources"], json!({ "requests": { "cpu": "200m" } }));
}

#[test]
fn what_cannot_be_obeyed_is_refused() {
    let refused = |name: &str, value: &str| injector().inject(&annotated(app(), name, value), "default", &Value::Null).unwrap_err().to_string();
    insta::assert_snapshot!(refused("inject.istio.io/templates", "waypoint"), @"");
    insta::assert_snapshot!(refused("prometheus.io/port", "15020x"), @"");
}

#[test]
fn a_proxyconfig_resource_lies_between_mesh_and_annotation() {
    let mut injector = injector();
    injector.mesh["defaultConfig"] = json!({ "concurrency": 1, "proxyMetadata": { "A": "mesh" } });
    let resource = json!({ "concurrency": 2, "environmentVariables": { "B": "resource" } });
    let pod = annotated(app(), "proxy.istio.io/config", "{concurrency: 3}");
    let patch = injector.inject(&pod, "default", &resource).unwrap().unwrap();
    let mut after = pod.clone();
    json_patch::patch(&mut after, &patch).unwrap();
    let proxy = named(&after["spec"]["initContainers"], PROXY).unwrap();
    assert_eq!(named(&proxy["env"], "A").unwrap()["value"], "mesh");
    assert_eq!(named(&proxy["env"], "B").unwrap()["value"], "resource");
    assert!(named(&proxy["env"], "PROXY_CONFIG").unwrap()["value"].as_str().unwrap().contains("\"concurrency\":3"));
}
