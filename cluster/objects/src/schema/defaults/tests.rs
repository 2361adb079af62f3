use serde_json::{Value, json};

use crate::schema::Schema;

fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    let schema = Schema::builtin(group, "v1", kind).unwrap();
    schema.apply_defaults(&mut object);
    let once = object.clone();
    schema.apply_defaults(&mut object);
    assert_eq!(once, object, "defaults are set once");
    object
}

#[test]
fn a_deployment() {
    let deployment = defaulted(
        "apps",
        "Deployment",
        json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}]}}}}),
    );
    insta::assert_json_snapshot!(deployment, @r#"
    {
      "spec": {
        "progressDeadlineSeconds": 600,
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "strategy": {
          "rollingUpdate": {
            "maxSurge": "25%",
            "maxUnavailable": "25%"
          },
          "type": "RollingUpdate"
        },
        "template": {
          "spec": {
            "containers": [
              {
                "image": "nginx:1.27",
                "imagePullPolicy": "IfNotPresent",
                "name": "web",
                "ports": [
                  {
                    "containerPort": 80,
                    "protocol": "TCP"
                  }
                ],
                "readinessProbe": {
                  "failureThreshold": 3,
                  "httpGet": {
                    "path": "/",
                    "port": 80,
                    "scheme": "HTTP"
                  },
                  "periodSeconds": 10,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
            "volumes": [
              {
                "emptyDir": {},
                "name": "a"
              },
              {
                "configMap": {
                  "defaultMode": 420,
                  "name": "c"
                },
                "name": "b"
              }
            ]
          }
        }
      }
    }
    "#);
}

#[test]
fn images_without_a_tag_are_pulled_always() {
    for (image, policy) in
        [("nginx", "Always"), ("nginx:latest", "Always"), ("host:5000/nginx", "Always"), ("a/b:1", "IfNotPresent")]
    {
        let pod = defaulted("", "Pod", json!({"spec": {"containers": [{"name": "c", "image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn texts_of_a_secret_become_data() {
    let secret = defaulted("", "Secret", json!({"data": {"a": "eA=="}, "stringData": {"b": "y"}}));
    assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}}));
}

#[test]
fn a_service() {
    let service = defaulted("", "Service", json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
    insta::assert_json_snapshot!(service, @r#"
    {
      "spec": {
        "externalTrafficPolicy": "Cluster",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": [
          "IPv4"
        ],
        "ipFamilyPolicy": "SingleStack",
        "ports": [
          {
            "port": 80,
            "protocol": "TCP",
            "targetPort": 80
          }
        ],
        "sessionAffinity": "None",
        "type": "NodePort"
      }
    }
    "#);
}

#[test]
fn declared_defaults_reach_into_defaults() {
    let schema =
        Schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
        "size": {"type": "integer", "default": 3}, "mode": {"type": "string", "nullable": true, "default": "a"}}}}}))
        .unwrap();
    let mut object = json!({});
    schema.apply_defaults(&mut object);
    assert_eq!(object, json!({"spec": {"size": 3, "mode": "a"}}));
    let mut object = json!({"spec": {"size": null, "mode": null}});
    schema.apply_defaults(&mut object);
    assert_eq!(object, json!({"spec": {"size": 3, "mode": null}}));
}

#[test]
fn string_data_of_a_secret_is_encoded_over_its_data() {
    let mut secret =
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "new"}});
    Schema::builtin("", "v1", "Secret").unwrap().apply_defaults(&mut secret);
    assert_eq!(secret["data"], json!({"a": "eA==", "b": "bmV3"}));
    assert!(secret.get("stringData").is_none());
}
