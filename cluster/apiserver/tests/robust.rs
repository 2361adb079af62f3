//! No request, however malformed, is answered with a bug or ends the server.

mod support;

use http::{Method, Request};
use meshlab_apiserver::UserInfo;
use proptest::prelude::*;
use support::Cluster;

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => prop::sample::select(vec![
            "api", "apis", "v1", "apps", "namespaces", "default", "pods", "configmaps", "deployments", "services", "web", "status", "scale",
            "log", "exec", "proxy", "eviction", "token", "binding", "finalize", "watch", "openapi", "v3", "customresourcedefinitions",
            "apiextensions.k8s.io", "serviceaccounts", "subjectaccessreviews", "authorization.k8s.io",
        ])
        .prop_map(str::to_owned),
        1 => "[a-zA-Z0-9%:._~-]{0,8}",
    ];
    let known = prop::sample::select(vec![
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/namespaces/default/configmaps/web",
        "/api/v1/namespaces/default/pods/web/status",
        "/api/v1/namespaces/web",
        "/apis/apps/v1/namespaces/default/deployments/web/scale",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        "/api/v1/namespaces/default/serviceaccounts/default/token",
    ]);
    let any = prop::collection::vec(segment, 0..8).prop_map(|parts| format!("/{}", parts.join("/")));
    prop_oneof![2 => known.prop_map(str::to_owned), 1 => any]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "labelSelector",
        "fieldSelector",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "force",
        "timeoutSeconds",
        "includeObject",
        "gracePeriodSeconds",
        "propagationPolicy",
        "sendInitialEvents",
    ]);
    let value = "[a-zA-Z0-9=!,()%+. -]{0,12}";
    prop::collection::vec((name, value), 0..4).prop_map(|pairs| {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("\"web\"".to_owned()),
        Just("[{\"op\":\"add\",\"path\":\"/data\",\"value\":1}]".to_owned()),
    ];
    let field = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "data",
        "name",
        "kind",
        "apiVersion",
        "finalizers",
        "replicas",
        "template",
        "containers",
        "versions",
        "names",
        "group",
        "labels",
        "annotations",
        "managedFields",
        "ownerReferences",
        "token",
        "resourceVersion",
        "$patch",
        "deletionTimestamp",
    ]);
    let json = scalar.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            3 => prop::collection::vec((field.clone(), inner.clone()), 0..5).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
            1 => prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    });
    prop_oneof![6 => json.prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

fn content_type() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "text/plain",
        "",
    ])
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS])
}

#[test]
fn malformed_requests_are_answered_with_what_is_wrong() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(Cluster::start());
    let client = {
        let _inside = runtime.enter();
        cluster.server.client(UserInfo::admin())
    };
    let send = |method: Method, uri: String, content_type: &str, body: Vec<u8>| {
        let request = Request::builder().method(method).uri(uri).header("content-type", content_type).body(body);
        let Ok(request) = request else { return None };
        runtime.block_on(async {
            match client.request_text(request).await {
                Ok(_) => None,
                Err(kube::Error::Api(status)) => Some((status.code, status.message.clone())),
                Err(other) => Some((0, other.to_string())),
            }
        })
    };
    let requests = (method(), path(), query(), content_type(), body());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&requests, |(method, path, query, content_type, body)| {
            if let Some((code, message)) = send(method, format!("{path}?{query}"), content_type, body) {
                prop_assert!(code != 0 && code != 500, "{code} {message}");
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(send(Method::GET, "/readyz".into(), "", Vec::new()), None);
}
