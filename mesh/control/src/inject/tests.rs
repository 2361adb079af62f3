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
    insta::assert_json_snapshot!(pod["metadata"], @r#"
    {
      "annotations": {
        "istio.io/rev": "default",
        "kubectl.kubernetes.io/default-container": "reviews",
        "kubectl.kubernetes.io/default-logs-container": "reviews",
        "prometheus.io/path": "/stats/prometheus",
        "prometheus.io/port": "15020",
        "prometheus.io/scrape": "true",
        "sidecar.istio.io/status": "{\"initContainers\":[\"istio-init\",\"istio-proxy\"],\"containers\":null,\"volumes\":[\"workload-socket\",\"credential-socket\",\"workload-certs\",\"istio-envoy\",\"istio-data\",\"istio-podinfo\",\"istio-token\",\"istiod-ca-cert\"],\"imagePullSecrets\":null,\"revision\":\"default\"}"
      },
      "generateName": "reviews-v1-5d4f-",
      "labels": {
        "app": "reviews",
        "pod-template-hash": "5d4f",
        "security.istio.io/tlsMode": "istio",
        "service.istio.io/canonical-name": "reviews",
        "service.istio.io/canonical-revision": "v1",
        "version": "v1"
      },
      "ownerReferences": [
        {
          "apiVersion": "apps/v1",
          "controller": true,
          "kind": "ReplicaSet",
          "name": "reviews-v1-5d4f"
        }
      ]
    }
    "#);
    insta::assert_json_snapshot!(pod["spec"]["initContainers"], @r#"
    [
      {
        "args": [
          "istio-iptables",
          "-p",
          "15001",
          "-z",
          "15006",
          "-u",
          "1337",
          "-m",
          "REDIRECT",
          "-i",
          "*",
          "-x",
          "",
          "-b",
          "*",
          "-d",
          "15090,15021,15020",
          "--log_output_level=default:info"
        ],
        "image": "ghcr.io/meshlab/proxyv2:latest",
        "name": "istio-init",
        "resources": {
          "limits": {
            "cpu": "2",
            "memory": "1Gi"
          },
          "requests": {
            "cpu": "10m",
            "memory": "40Mi"
          }
        },
        "securityContext": {
          "allowPrivilegeEscalation": false,
          "capabilities": {
            "add": [
              "NET_ADMIN",
              "NET_RAW"
            ],
            "drop": [
              "ALL"
            ]
          },
          "privileged": false,
          "readOnlyRootFilesystem": false,
          "runAsGroup": 0,
          "runAsNonRoot": false,
          "runAsUser": 0
        }
      },
      {
        "args": [
          "proxy",
          "sidecar",
          "--domain",
          "$(POD_NAMESPACE).svc.cluster.local",
          "--proxyLogLevel=warning",
          "--proxyComponentLogLevel=misc:error",
          "--log_output_level=default:info"
        ],
        "env": [
          {
            "name": "PILOT_CERT_PROVIDER",
            "value": "istiod"
          },
          {
            "name": "CA_ADDR",
            "value": "istiod.istio-system.svc:15012"
          },
          {
            "name": "POD_NAME",
            "valueFrom": {
              "fieldRef": {
                "fieldPath": "metadata.name"
              }
            }
          },
          {
            "name": "POD_NAMESPACE",
            "valueFrom": {
              "fieldRef": {
                "fieldPath": "metadata.namespace"
              }
            }
          },
          {
            "name": "INSTANCE_IP",
            "valueFrom": {
              "fieldRef": {
                "fieldPath": "status.podIP"
              }
            }
          },
          {
            "name": "SERVICE_ACCOUNT",
            "valueFrom": {
              "fieldRef": {
                "fieldPath": "spec.serviceAccountName"
              }
            }
          },
          {
            "name": "HOST_IP",
            "valueFrom": {
              "fieldRef": {
                "fieldPath": "status.hostIP"
              }
            }
          },
          {
            "name": "ISTIO_CPU_LIMIT",
            "valueFrom": {
              "resourceFieldRef": {
                "divisor": "1",
                "resource": "limits.cpu"
              }
            }
          },
          {
            "name": "PROXY_CONFIG",
            "value": "{}\n"
          },
          {
            "name": "ISTIO_META_POD_PORTS",
            "value": "[{\"containerPort\":9080}]"
          },
          {
            "name": "ISTIO_META_APP_CONTAINERS",
            "value": "reviews"
          },
          {
            "name": "GOMEMLIMIT",
            "valueFrom": {
              "resourceFieldRef": {
                "divisor": "1",
                "resource": "limits.memory"
              }
            }
          },
          {
            "name": "ISTIO_META_CLUSTER_ID",
            "value": "Kubernetes"
          },
          {
            "name": "ISTIO_META_NODE_NAME",
            "valueFrom": {
              "fieldRef": {
                "fieldPath": "spec.nodeName"
              }
            }
          },
          {
            "name": "ISTIO_META_INTERCEPTION_MODE",
            "value": "REDIRECT"
          },
          {
            "name": "ISTIO_META_WORKLOAD_NAME",
            "value": "reviews-v1"
          },
          {
            "name": "ISTIO_META_OWNER",
            "value": "kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v1"
          },
          {
            "name": "ISTIO_META_MESH_ID",
            "value": "cluster.local"
          },
          {
            "name": "TRUST_DOMAIN",
            "value": "cluster.local"
          }
        ],
        "image": "ghcr.io/meshlab/proxyv2:latest",
        "lifecycle": {
          "preStop": {
            "exec": {
              "command": [
                "pilot-agent",
                "request",
                "--debug-port=15020",
                "POST",
                "drain"
              ]
            }
          }
        },
        "name": "istio-proxy",
        "ports": [
          {
            "containerPort": 15090,
            "name": "http-envoy-prom",
            "protocol": "TCP"
          }
        ],
        "readinessProbe": {
          "failureThreshold": 4,
          "httpGet": {
            "path": "/healthz/ready",
            "port": 15021
          },
          "initialDelaySeconds": 0,
          "periodSeconds": 15,
          "timeoutSeconds": 3
        },
        "resources": {
          "limits": {
            "cpu": "2",
            "memory": "1Gi"
          },
          "requests": {
            "cpu": "10m",
            "memory": "40Mi"
          }
        },
        "restartPolicy": "Always",
        "securityContext": {
          "allowPrivilegeEscalation": false,
          "capabilities": {
            "drop": [
              "ALL"
            ]
          },
          "privileged": false,
          "readOnlyRootFilesystem": true,
          "runAsGroup": 1337,
          "runAsNonRoot": true,
          "runAsUser": 1337
        },
        "startupProbe": {
          "failureThreshold": 600,
          "httpGet": {
            "path": "/healthz/ready",
            "port": 15021
          },
          "initialDelaySeconds": 0,
          "periodSeconds": 1,
          "timeoutSeconds": 3
        },
        "volumeMounts": [
          {
            "mountPath": "/var/run/secrets/workload-spiffe-uds",
            "name": "workload-socket"
          },
          {
            "mountPath": "/var/run/secrets/credential-uds",
            "name": "credential-socket"
          },
          {
            "mountPath": "/var/run/secrets/workload-spiffe-credentials",
            "name": "workload-certs"
          },
          {
            "mountPath": "/var/run/secrets/istio",
            "name": "istiod-ca-cert"
          },
          {
            "mountPath": "/var/lib/istio/data",
            "name": "istio-data"
          },
          {
            "mountPath": "/etc/istio/proxy",
            "name": "istio-envoy"
          },
          {
            "mountPath": "/var/run/secrets/tokens",
            "name": "istio-token"
          },
          {
            "mountPath": "/etc/istio/pod",
            "name": "istio-podinfo"
          }
        ]
      }
    ]
    "#);
    insta::assert_json_snapshot!(pod["spec"]["volumes"], @r#"
    [
      {
        "emptyDir": {},
        "name": "workload-socket"
      },
      {
        "emptyDir": {},
        "name": "credential-socket"
      },
      {
        "emptyDir": {},
        "name": "workload-certs"
      },
      {
        "emptyDir": {
          "medium": "Memory"
        },
        "name": "istio-envoy"
      },
      {
        "emptyDir": {},
        "name": "istio-data"
      },
      {
        "downwardAPI": {
          "items": [
            {
              "fieldRef": {
                "fieldPath": "metadata.labels"
              },
              "path": "labels"
            },
            {
              "fieldRef": {
                "fieldPath": "metadata.annotations"
              },
              "path": "annotations"
            }
          ]
        },
        "name": "istio-podinfo"
      },
      {
        "name": "istio-token",
        "projected": {
          "sources": [
            {
              "serviceAccountToken": {
                "audience": "istio-ca",
                "expirationSeconds": 43200,
                "path": "istio-token"
              }
            }
          ]
        }
      },
      {
        "configMap": {
          "name": "istio-ca-root-cert"
        },
        "name": "istiod-ca-cert"
      }
    ]
    "#);
}

#[test]
fn a_classic_sidecar_comes_last() {
    let pod = injected(&injector(), &annotated(app(), "sidecar.istio.io/nativeSidecar", "false"));
    assert_eq!(names(&pod, "initContainers"), ["istio-init"]);
    assert_eq!(names(&pod, "containers"), ["reviews", "istio-proxy"]);
    let proxy = named(&pod["spec"]["containers"], PROXY).unwrap();
    assert!(proxy["restartPolicy"].is_null() && proxy["lifecycle"].is_null());
    insta::assert_snapshot!(pod["metadata"]["annotations"][STATUS].as_str().unwrap(), @r#"{"initContainers":["istio-init"],"containers":["istio-proxy"],"volumes":["workload-socket","credential-socket","workload-certs","istio-envoy","istio-data","istio-podinfo","istio-token","istiod-ca-cert"],"imagePullSecrets":null,"revision":"default"}"#);
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
        pod["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": PROXY, "image": "auto", "env": [{ "name": "A", "value": "1" }] }));
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
    insta::assert_snapshot!(args.join(" "), @"istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i 10.96.0.0/12 -x  -b * -d 15090,15021,8080,8081,16020 -o 3306 --log_output_level=default:info");
}

#[test]
fn fact_47_the_proxys_user_and_ports_are_kept_out_of_the_redirect() {
    let pod = injected(&injector(), &app());
    let proxy = named(&pod["spec"]["initContainers"], PROXY).unwrap();
    assert_eq!(proxy["securityContext"]["runAsUser"], 1337);
    let ports: Vec<_> = proxy["ports"].as_array().unwrap().iter().map(|port| port["containerPort"].as_u64().unwrap()).collect();
    assert_eq!(ports, [15090]);
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], "15020");
    assert_eq!(proxy["readinessProbe"]["httpGet"]["port"], 15021);
    let args = named(&pod["spec"]["initContainers"], INIT).unwrap()["args"].as_array().unwrap();
    let after = |flag: &str| args[args.iter().position(|arg| arg == flag).unwrap() + 1].as_str().unwrap();
    assert_eq!((after("-p"), after("-z"), after("-u"), after("-d")), ("15001", "15006", "1337", "15090,15021,15020"));
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
    let refused = |name: &str, value: &str| {
        injector().inject(&annotated(app(), name, value), "default", &Value::Null).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refused("inject.istio.io/templates", "waypoint"), @r#"requested template "waypoint" not found; have sidecar, gateway"#);
    insta::assert_snapshot!(refused("prometheus.io/port", "15020x"), @r#"failed to process pod: invalid prometheus scrape configuration: invalid port "15020x""#);
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

#[test]
fn what_is_no_pod_is_refused() {
    let overrides = r#"{"containers":[7]}"#;
    for (pod, fault) in [
        (json!(7), "the pod is not an object"),
        (json!({"metadata": 7}), "metadata is not an object"),
        (json!({"spec": {"containers": {}}}), "spec.containers is not a list"),
        (json!({"spec": {"initContainers": [{"lifecycle": []}]}}), "spec.initContainers[0].lifecycle is not an object"),
        (
            json!({"metadata": {"annotations": {STATUS: "{}", OVERRIDES: overrides}}, "spec": {"containers": []}}),
            "spec.containers[0] is not an object",
        ),
    ] {
        let refused = injector().inject(&pod, "default", &Value::Null);
        assert_eq!(refused, Err(InjectError::Malformed(fault.to_owned())), "{pod}");
    }
}
