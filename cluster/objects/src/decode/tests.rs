use prost::Message as _;
use serde_json::json;

use super::{Encoding, decode, json, protobuf, yaml};

#[test]
fn duplicates_are_named_with_their_path() {
    let decoded = json(br#"{"spec": {"a": 1, "a": 2, "list": [{"b": 1}, {"b": 1, "b": 2}]}, "kind": "A", "kind": "B"}"#).unwrap();
    assert_eq!(decoded.value["spec"]["a"], 2);
    assert_eq!(
        decoded.strict_errors,
        [r#"duplicate field "spec.a""#, r#"duplicate field "spec.list[1].b""#, r#"duplicate field "kind""#]
    );
}

#[test]
fn malformed_json_is_a_bad_request() {
    for body in [&b""[..], b"{", b"{\"a\": }", b"{} {}", b"\xff", b"nul"] {
        let status = json(body).unwrap_err();
        assert_eq!(status.code, 400);
        assert!(status.message.contains("json parse error"), "{}", status.message);
    }
    assert!(json("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let decoded =
        yaml(b"on: yes\n1: 0777\nmode: 1e3\ntext: \"yes\"\nnone: ~\nversion: 1.10\na: &a {x: 1}\nb:\n  <<: *a\n  z: 2\n")
            .unwrap();
    assert_eq!(
        decoded.value,
        json!({"true": true, "1": 511, "mode": 1000, "text": "yes", "none": null, "version": 1.1, "a": {"x": 1}, "b": {"x": 1, "z": 2}})
    );
    let decoded = yaml(b"a:\n  b: 1\n  b: 2\n").unwrap();
    assert_eq!(decoded.strict_errors, [r#"duplicate field "a.b""#]);
}

#[test]
fn yaml_bombs_and_nonsense_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let refs = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    assert!(yaml(bomb.as_bytes()).is_err());
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 400].join(", "));
    assert!(yaml(long.as_bytes()).is_err());
    assert!(yaml(b"a: [").is_err());
    assert!(yaml(b"\xff\xfe\xfd").is_err());
    assert!(yaml("[".repeat(10_000).as_bytes()).is_err());
}

#[test]
fn content_types() {
    assert_eq!(Encoding::from_content_type("application/json; charset=utf-8").unwrap(), Encoding::Json);
    assert_eq!(Encoding::from_content_type("application/apply-patch+yaml").unwrap(), Encoding::Yaml);
    assert_eq!(Encoding::from_content_type("text/html").unwrap_err().code, 415);
}

/// Wraps a message as a Kubernetes client does.
fn body(api_version: &str, kind: &str, message: &impl prost::Message) -> Vec<u8> {
    let unknown = k8s_pb::apimachinery::pkg::runtime::Unknown {
        type_meta: Some(k8s_pb::apimachinery::pkg::runtime::TypeMeta {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
        }),
        raw: Some(message.encode_to_vec()),
        content_encoding: None,
        content_type: None,
    };
    [protobuf::MAGIC.as_slice(), &unknown.encode_to_vec()].concat()
}

#[test]
fn a_deployment_in_protobuf() {
    use k8s_pb::{
        api::{apps::v1 as apps, core::v1 as core},
        apimachinery::pkg::{api::resource::Quantity, apis::meta::v1 as meta, util::intstr::IntOrString},
    };
    let container = core::Container {
        name: Some("web".into()),
        image: Some("nginx".into()),
        stdin: Some(false),
        working_dir: Some(String::new()),
        resources: Some(core::ResourceRequirements {
            limits: [("cpu".to_owned(), Quantity { string: Some("100m".into()) })].into(),
            ..Default::default()
        }),
        liveness_probe: Some(core::Probe {
            handler: Some(core::ProbeHandler {
                http_get: Some(core::HttpGetAction {
                    port: Some(IntOrString { r#type: Some(0), int_val: Some(80), str_val: Some(String::new()) }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let deployment = apps::Deployment {
        metadata: Some(meta::ObjectMeta {
            name: Some("web".into()),
            namespace: Some(String::new()),
            generation: Some(0),
            creation_timestamp: Some(meta::Time::default()),
            labels: [("app".to_owned(), "web".to_owned()), ("empty".to_owned(), String::new())].into(),
            ..Default::default()
        }),
        spec: Some(apps::DeploymentSpec {
            replicas: Some(0),
            paused: Some(false),
            template: Some(core::PodTemplateSpec {
                spec: Some(core::PodSpec {
                    containers: vec![container],
                    volumes: vec![core::Volume {
                        name: Some("tmp".into()),
                        volume_source: Some(core::VolumeSource {
                            empty_dir: Some(core::EmptyDirVolumeSource::default()),
                            ..Default::default()
                        }),
                    }],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        status: Some(apps::DeploymentStatus { replicas: Some(0), ..Default::default() }),
    };
    let decoded = decode(Encoding::Protobuf, &body("apps/v1", "Deployment", &deployment)).unwrap();
    assert_eq!(
        decoded.value,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web", "empty": ""}},
            "spec": {"replicas": 0, "template": {"spec": {
                "containers": [{"name": "web", "image": "nginx", "resources": {"limits": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"port": 80}}}],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            }}},
            "status": {"replicas": 0},
        })
    );
}

#[test]
fn options_go_by_the_version_of_any_group() {
    let options = k8s_pb::apimachinery::pkg::apis::meta::v1::DeleteOptions {
        grace_period_seconds: Some(0),
        propagation_policy: Some("Background".into()),
        ..Default::default()
    };
    let value = protobuf::decode(&body("policy/v1", "DeleteOptions", &options)).unwrap();
    assert_eq!(
        value,
        json!({"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"})
    );
}

#[test]
fn protobuf_errors() {
    assert_eq!(protobuf::decode(b"{}").unwrap_err(), protobuf::Error::Magic);
    assert!(matches!(protobuf::decode(b"k8s\0\xff").unwrap_err(), protobuf::Error::Malformed(_)));
    let message = k8s_pb::api::core::v1::Pod::default();
    assert!(matches!(
        protobuf::decode(&body("example.com/v1", "Foo", &message)).unwrap_err(),
        protobuf::Error::UnknownKind { .. }
    ));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = json(&bytes);
        let _ = yaml(&bytes);
        let _ = protobuf::decode(&bytes);
        let _ = protobuf::decode(&body("v1", "Pod", &k8s_pb::api::core::v1::ConfigMap {
            data: [("a".to_owned(), String::from_utf8_lossy(&bytes).into_owned())].into(), ..Default::default() }));
        let raw = k8s_pb::apimachinery::pkg::runtime::RawExtension { raw: Some(bytes) };
        let _ = protobuf::decode(&body("v1", "Pod", &raw));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
    /// Bodies of kubectl with one byte changed.
    #[test]
    fn no_damage_panics(line in 1..20usize, place in proptest::prelude::any::<proptest::sample::Index>(), byte in proptest::prelude::any::<u8>()) {
        use base64::Engine as _;
        let text = include_str!("kubectl_bodies.txt").lines().nth(line).and_then(|line| line.split_once(' ')).unwrap().1;
        let mut body = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let place = place.index(body.len());
        body[place] = byte;
        let _ = protobuf::decode(&body);
    }

    #[test]
    fn json_comes_back_as_it_was(text in "\\PC{0,20}", number in proptest::prelude::any::<i64>()) {
        let value = json!({"a": text, "b": [number, null, {"c": [text]}]});
        proptest::prop_assert_eq!(json(value.to_string().as_bytes()).unwrap().value, value.clone());
        proptest::prop_assert_eq!(yaml(value.to_string().as_bytes()).unwrap().value, value);
    }
}

/// Bodies recorded from kubectl.
#[test]
fn what_kubectl_posts() {
    use base64::Engine as _;
    let mut all = String::new();
    for line in include_str!("kubectl_bodies.txt").lines().filter(|line| !line.starts_with('#')) {
        let (command, body) = line.split_once(' ').unwrap();
        let body = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
        let value = decode(Encoding::Protobuf, &body).unwrap().value;
        let gvk = crate::resource::GroupVersionKind::of(&value).unwrap();
        let schema = crate::schema::Schema::builtin(&gvk.group, &gvk.version, &gvk.kind).unwrap();
        assert!(schema.unknown_fields(&value).is_empty(), "{command}: {:?}", schema.unknown_fields(&value));
        assert_eq!(schema.type_error(&value), None, "{command}");
        all.push_str(&format!("{command}: {value}\n"));
    }
    insta::assert_snapshot!(all, @r#"
    create-namespace: {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"foo"},"spec":{},"status":{}}
    create-deployment: {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"labels":{"app":"web"},"name":"web"},"spec":{"replicas":0,"selector":{"matchLabels":{"app":"web"}},"strategy":{},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"nginx","name":"nginx","ports":[{"containerPort":80}],"resources":{}}]}}},"status":{"replicas":0}}
    create-configmap: {"apiVersion":"v1","data":{"a":"b"},"kind":"ConfigMap","metadata":{"name":"c"}}
    create-secret: {"apiVersion":"v1","data":{"a":"Yg=="},"kind":"Secret","metadata":{"name":"s"}}
    create-service-nodeport: {"apiVersion":"v1","kind":"Service","metadata":{"labels":{"app":"n"},"name":"n"},"spec":{"ports":[{"name":"80-8080","port":80,"protocol":"TCP","targetPort":8080}],"selector":{"app":"n"},"type":"NodePort"},"status":{"loadBalancer":{}}}
    create-service-externalname: {"apiVersion":"v1","kind":"Service","metadata":{"labels":{"app":"e"},"name":"e"},"spec":{"externalName":"x.y","selector":{"app":"e"},"type":"ExternalName"},"status":{"loadBalancer":{}}}
    create-job: {"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j"},"spec":{"template":{"metadata":{},"spec":{"containers":[{"command":["echo","hi"],"image":"busybox","name":"j","resources":{}}],"restartPolicy":"Never"}}},"status":{}}
    create-cronjob: {"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"cj"},"spec":{"jobTemplate":{"metadata":{"name":"cj"},"spec":{"template":{"metadata":{},"spec":{"containers":[{"command":["date"],"image":"b","name":"cj","resources":{}}],"restartPolicy":"OnFailure"}}}},"schedule":"* * * * *"},"status":{}}
    create-serviceaccount: {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"me"}}
    create-rolebinding: {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"rb"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"ServiceAccount","name":"me","namespace":"default"}]}
    create-clusterrole: {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"cr"},"rules":[{"nonResourceURLs":["/x"],"verbs":["get"]}]}
    create-clusterrolebinding: {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"crb"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cr"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"u"}]}
    create-quota: {"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"q"},"spec":{"hard":{"pods":"1"}},"status":{}}
    create-poddisruptionbudget: {"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"p"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"a":"b"}}},"status":{"currentHealthy":0,"desiredHealthy":0,"disruptionsAllowed":0,"expectedPods":0}}
    create-ingress: {"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"i"},"spec":{"rules":[{"host":"h","http":{"paths":[{"backend":{"service":{"name":"svc","port":{"number":80}}},"path":"/p","pathType":"Prefix"}]}}]},"status":{"loadBalancer":{}}}
    create-priorityclass: {"apiVersion":"scheduling.k8s.io/v1","kind":"PriorityClass","metadata":{"name":"pc"},"preemptionPolicy":"PreemptLowerPriority","value":1}
    create-token: {"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","metadata":{},"spec":{"expirationSeconds":3600},"status":{}}
    auth-can-i: {"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","metadata":{},"spec":{"resourceAttributes":{"namespace":"default","resource":"pods","verb":"get"}},"status":{"allowed":false}}
    auth-whoami: {"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview","metadata":{},"status":{"userInfo":{}}}
    auth-can-i-list: {"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectRulesReview","metadata":{},"spec":{"namespace":"default"},"status":{"incomplete":false}}
    "#);
}
