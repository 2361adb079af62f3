use serde_json::{Value, json};

use super::{validate_create, validate_update};
use crate::{Cause, resource::find, schema::Schema};

/// `field: message`, a line each.
fn lines(causes: &[Cause]) -> String {
    causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>().join("\n")
}

/// The object with a name, a namespace and its defaults.
fn completed(group: &str, plural: &str, mut object: Value) -> Value {
    let definition = find(group, plural).unwrap();
    for (name, value) in [("name", "web"), ("namespace", "default")] {
        let wanted = name == "name" || definition.namespaced;
        if wanted && object["metadata"].get(name).is_none() {
            object["metadata"][name] = value.into();
        }
    }
    let schema = Schema::builtin(group, &definition.versions[0], &definition.kind).unwrap();
    schema.apply_defaults(&mut object);
    let faults = schema.unknown_fields(&object);
    assert!(faults.is_empty(), "{faults:?}");
    object
}

fn create(group: &str, plural: &str, object: Value) -> String {
    lines(&validate_create(find(group, plural).unwrap(), &completed(group, plural, object)))
}

fn update(group: &str, plural: &str, new: Value, old: Value) -> String {
    let [new, old] = [new, old].map(|object| completed(group, plural, object));
    lines(&validate_update(find(group, plural).unwrap(), &new, &old))
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}})
}

#[test]
fn sound_objects_have_no_faults() {
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "b", "ports": [{"name": "http", "containerPort": 80}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}], "env": [{"name": "A", "value": "b"}, {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"port": "http"}}}], "volumes": [{"name": "v"}]}});
    assert_eq!(create("", "pods", pod), "");
    let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template()}});
    assert_eq!(create("apps", "deployments", deployment), "");
    assert_eq!(create("", "services", json!({"spec": {"ports": [{"port": 80}]}})), "");
    assert_eq!(create("", "namespaces", json!({})), "");
    let mut job = json!({"spec": {"template": template()}});
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    assert_eq!(create("batch", "jobs", job), "");
}

#[test]
fn metadata() {
    insta::assert_snapshot!(
        create("", "configmaps", json!({"metadata": {"name": "Web_1", "labels": {"a b": "c", "ok": "no/"}, "ownerReferences": [{"kind": "Pod", "name": "p", "uid": "1"}]}})),
        @r#"
    metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
    metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    metadata.labels: Invalid value: "no/": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
    metadata.ownerReferences[0].apiVersion: Invalid value: "": version must not be empty
    "#
    );
    insta::assert_snapshot!(create("", "configmaps", json!({"metadata": {"name": ""}})), @"metadata.name: Required value: name or generateName is required");
    insta::assert_snapshot!(
        update("", "configmaps", json!({"metadata": {"uid": "2", "finalizers": ["a.b/c"]}}), json!({"metadata": {"uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        @r#"
    metadata.uid: Invalid value: "2": field is immutable
    metadata.deletionTimestamp: Invalid value: null: field is immutable
    metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"a.b/c"}
    "#
    );
}

#[test]
fn pods() {
    insta::assert_snapshot!(create("", "pods", json!({"spec": {"containers": []}})), @"spec.containers: Required value");
    insta::assert_snapshot!(
        create("", "pods", json!({"spec": {"restartPolicy": "Sometimes", "volumes": [{"name": "v", "configMap": {}}, {"name": "v"}],
            "initContainers": [{"name": "a", "image": "i", "livenessProbe": {"exec": {"command": ["true"]}}}],
            "containers": [{"name": "a", "ports": [{"containerPort": 0}, {"containerPort": 70000}], "env": [{"name": ""}, {"name": "X", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}],
                "volumeMounts": [{"name": "w", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}], "livenessProbe": {"httpGet": {"port": "Http"}, "tcpSocket": {"port": 1}, "successThreshold": 2},
                "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}}]}})),
        @r#"
    spec.volumes[0].configMap.name: Required value
    spec.volumes[1].name: Duplicate value: "v"
    spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
    spec.containers[0].image: Required value
    spec.containers[0].ports[0].containerPort: Required value
    spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
    spec.containers[0].env[0].name: Required value
    spec.containers[0].env[1].valueFrom: Invalid value: "": may not be specified when `value` is not empty
    spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.foo": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
    spec.containers[0].volumeMounts[0].name: Not found: "w"
    spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique
    spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1500m
    spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
    spec.containers[0].livenessProbe.httpGet.port: Invalid value: "Http": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
    spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
    spec.containers[0].name: Duplicate value: "a"
    spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"
    "#
    );
    let pod = |image: &str, node: &str| json!({"spec": {"nodeName": node, "containers": [{"name": "a", "image": image, "imagePullPolicy": "Always"}]}});
    assert_eq!(update("", "pods", pod("2", "n"), pod("1", "n")), "");
    assert_eq!(update("", "pods", pod("1", "n"), pod("1", "")), "");
    insta::assert_snapshot!(update("", "pods", pod("1", "m"), pod("1", "n")), @"spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)");
}

#[test]
fn workloads() {
    insta::assert_snapshot!(
        create("apps", "deployments", json!({"spec": {"replicas": -1, "selector": {"matchLabels": {"app": "other"}}, "template": template(),
            "strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}})),
        @r#"
    spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: `selector` does not match template `labels`
    spec.replicas: Invalid value: -1: must be greater than or equal to 0
    spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
    "#
    );
    let deployment = |app: &str| {
        let mut deployment = json!({"spec": {"selector": {"matchLabels": {"app": app}}, "template": template()}});
        deployment["spec"]["template"]["metadata"]["labels"]["app"] = app.into();
        deployment
    };
    insta::assert_snapshot!(
        update("apps", "deployments", deployment("b"), deployment("a")),
        @r#"spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"app":"b"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"#
    );
    insta::assert_snapshot!(create("batch", "jobs", json!({"spec": {"template": template()}})), @r#"spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "OnFailure", "Never""#);
}

#[test]
fn services() {
    insta::assert_snapshot!(
        create("", "services", json!({"metadata": {"name": "1web"}, "spec": {"ports": [{"port": 0}, {"name": "a", "port": 80, "nodePort": 30080}, {"name": "a", "port": 80}]}})),
        @r#"
    metadata.name: Invalid value: "1web": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
    spec.ports[0].name: Required value
    spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
    spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
    spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
    spec.ports[2].name: Duplicate value: "a"
    spec.ports[2]: Duplicate value: {"port":80,"protocol":"TCP"}
    "#
    );
    insta::assert_snapshot!(create("", "services", json!({"spec": {}})), @"spec.ports: Required value");
    let service = |ip: &str| json!({"spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    insta::assert_snapshot!(
        update("", "services", service("10.96.0.2"), service("10.96.0.1")),
        @r#"spec.clusterIPs[0]: Invalid value: []string{"10.96.0.2"}: may not change once set"#
    );
}

#[test]
fn configuration() {
    insta::assert_snapshot!(
        create("", "configmaps", json!({"data": {"a/b": ""}})),
        @r#"data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"#
    );
    insta::assert_snapshot!(
        update("", "secrets", json!({"immutable": true, "data": {"a": "Yg=="}}), json!({"immutable": true, "data": {"a": "YQ=="}})),
        @"data: Forbidden: field is immutable when `immutable` is set"
    );
    insta::assert_snapshot!(
        create("", "secrets", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
        @"data[tls.key]: Required value"
    );
}

#[test]
fn roles_and_webhooks() {
    insta::assert_snapshot!(
        create("rbac.authorization.k8s.io", "roles", json!({"rules": [{"verbs": [], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
        @r#"
    rules[0].verbs: Required value: verbs must contain at least one value
    rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs
    "#
    );
    let binding =
        |role: &str| json!({"roleRef": {"kind": "Role", "name": role}, "subjects": [{"kind": "ServiceAccount", "name": "a"}]});
    insta::assert_snapshot!(
        update("rbac.authorization.k8s.io", "rolebindings", binding("b"), binding("a")),
        @r#"
    subjects[0].namespace: Required value
    roleRef: Invalid value: rbac.RoleRef{APIGroup:"rbac.authorization.k8s.io", Kind:"Role", Name:"b"}: cannot change roleRef
    "#
    );
    insta::assert_snapshot!(
        create("admissionregistration.k8s.io", "mutatingwebhookconfigurations", json!({"webhooks": [{"name": "a.b", "clientConfig": {"url": "http://x"}, "timeoutSeconds": 60}]})),
        @r#"
    webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots
    webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun
    webhooks[0].timeoutSeconds: Invalid value: 60: the timeout value must be between 1 and 30 seconds
    webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1
    webhooks[0].clientConfig.url: Invalid value: "http://x": 'https' is the only allowed URL scheme; desired format: https://host[/path]
    "#
    );
}

#[test]
fn custom_resource_definitions() {
    let crd = |schema: Value| {
        json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    };
    assert_eq!(create("apiextensions.k8s.io", "customresourcedefinitions", crd(json!({"type": "object"}))), "");
    insta::assert_snapshot!(
        create("apiextensions.k8s.io", "customresourcedefinitions", crd(json!({"type": "object", "properties": {"spec": {}}}))),
        @"spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields"
    );
    let mut wrong = crd(json!({"type": "object"}));
    wrong["metadata"]["name"] = json!("foo");
    wrong["spec"]["versions"][0]["storage"] = json!(false);
    insta::assert_snapshot!(
        create("apiextensions.k8s.io", "customresourcedefinitions", wrong),
        @r#"
    metadata.name: Invalid value: "foo": must be spec.names.plural+"."+spec.group
    spec.versions: Invalid value: ["v1"]: must have exactly one version marked as storage version
    "#
    );
}

#[test]
fn any_shape_is_checked_without_a_panic() {
    for definition in crate::resource::builtin() {
        for object in
            [json!({}), json!({"spec": 1, "metadata": []}), json!({"spec": {"template": [], "containers": {}, "ports": "x"}})]
        {
            validate_create(definition, &object);
            validate_update(definition, &object, &json!({"metadata": 1}));
        }
    }
}
