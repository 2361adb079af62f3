//! What istiod reads: the learner's objects, and what proxies and webhooks send.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use meshlab_analyze::{analyze, analyze_object};
use meshlab_compile::{ProxyIdentity, Role, Snapshot, Sources, compile};
use meshlab_control::ca::{Authority, Identity};
use meshlab_control::inject::Injector;
use meshlab_net::{HostOptions, PodNet, VirtualNet, VirtualNetOptions};
use meshlab_proxy::{Proxy, ProxyOptions};
use meshlab_proxy_config::discovery::{CertificateRequest, MessageReader, ProxyMessage, Update};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// What the objects speak about: a Service with one pod, and the gateway's pod.
static CLUSTER: LazyLock<Sources> = LazyLock::new(|| {
    let mut sources = Sources::default();
    let objects = [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
               "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
               "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": true}}], "ports": [{"name": "http", "port": 8080}]}),
        pod("web", "default", "10.244.0.9"),
        pod("ingressgateway", "istio-system", "10.244.0.8"),
    ];
    for object in objects {
        sources.apply(&object).expect("the object is good");
    }
    sources
});

fn pod(app: &str, namespace: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": app, "namespace": namespace, "labels": {"app": app, "istio": app}},
           "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]},
           "status": {"podIP": ip, "phase": "Running"}})
}

fn identity(role: Role, app: &str, namespace: &str, ip: [u8; 4]) -> ProxyIdentity {
    ProxyIdentity {
        role,
        namespace: namespace.to_owned(),
        pod: app.to_owned(),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned()), ("istio".to_owned(), app.to_owned())]),
        ip: Some(IpAddr::from(ip)),
        service_account: "default".to_owned(),
        workload: app.to_owned(),
        locality: String::new(),
    }
}

/// Objects of Istio's API, JSON values one behind the other: validated, analysed, compiled for a sidecar and a gateway, and taken
/// over by a proxy.
pub(crate) fn istio_objects(input: &[u8]) {
    let mut sources = CLUSTER.clone();
    for object in serde_json::Deserializer::from_slice(input).into_iter::<Value>().map_while(Result::ok).take(8) {
        let _ = meshlab_istio_api::validate(&object);
        analyze_object(&object);
        let _ = sources.apply(&object);
    }
    let snapshot = Snapshot::new(sources);
    analyze(&snapshot);
    let sidecar = identity(Role::Sidecar, "web", "default", [10, 244, 0, 9]);
    let gateway = identity(Role::Gateway, "ingressgateway", "istio-system", [10, 244, 0, 8]);
    for identity in [sidecar, gateway] {
        let compiled = compile(&snapshot, &identity);
        PROXY.with_borrow(|(runtime, proxy)| {
            let _inside = runtime.enter();
            let _ = proxy.apply(compiled.config);
        });
    }
}

thread_local! {
    static PROXY: RefCell<(Runtime, Proxy<PodNet>)> = RefCell::new(proxy());
}

fn proxy() -> (Runtime, Proxy<PodNet>) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let inside = runtime.enter();
    let network = VirtualNet::new(VirtualNetOptions::default());
    let pod = network.attach(IpAddr::from([10, 244, 0, 9]), HostOptions::external("web")).expect("the address is free");
    let proxy = Proxy::start(pod, ProxyOptions { admin_address: None, ..ProxyOptions::default() });
    drop(inside);
    (runtime, proxy)
}

/// A pod that is to be injected.
pub(crate) fn injection(input: &[u8]) {
    let Ok(pod) = serde_json::from_slice::<Value>(input) else { return };
    let injector = Injector::default();
    if let Ok(Some(patch)) = injector.inject(&pod, "default", &Value::Null) {
        let patch = serde_json::to_value(&patch).expect("a patch is plain data");
        let patched = meshlab_objects::patch::json_patch(&pod, &patch).expect("the patch fits what it was made for");
        // A webhook may be called again for what it changed.
        let again = injector.inject(&patched, "default", &Value::Null);
        assert!(again.is_ok(), "an injected pod is refused: {patched}");
    }
}

/// A certificate signing request, PEM, and the identity that it is for on the first line.
pub(crate) fn certificate_request(text: &str) {
    static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
        let day = Duration::from_secs(24 * 3600);
        let root = Authority::self_signed("cluster.local").expect("a root");
        Authority::new(&root, day, day).expect("the root is good")
    });
    let (identity, csr) = text.split_once('\n').unwrap_or(("", text));
    let identity =
        Identity::parse(identity).map_or("spiffe://cluster.local/ns/a/sa/b".to_owned(), |identity| identity.to_string());
    let _ = AUTHORITY.sign(csr, &identity, None);
}

/// The messages between istiod and proxies, in either direction. However the bytes are cut, the messages are the same.
pub(crate) fn discovery_message(input: &[u8]) {
    let _ = serde_json::from_slice::<CertificateRequest>(input);
    if let Ok(updates) = MessageReader::<Update>::default().push(input) {
        for update in updates {
            let _ = update.apply(&Arc::default());
        }
    }
    let whole = MessageReader::<ProxyMessage>::default().push(input);
    let mut reader = MessageReader::<ProxyMessage>::default();
    let pieces: Result<Vec<_>, _> = input.chunks(7).map(|piece| reader.push(piece)).collect();
    let pieces: Option<Vec<_>> = pieces.ok().map(|pieces| pieces.into_iter().flatten().collect());
    assert_eq!(format!("{:?}", whole.ok()), format!("{pieces:?}"));
}
