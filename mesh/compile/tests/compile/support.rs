//! A small mesh to compile: namespaces `default` and `istio-system`, written as YAML like a learner's.

use std::sync::Arc;

use meshlab_compile::{Compiled, MeshConfig, ProxyIdentity, Role, Snapshot, Sources, compile};
use meshlab_proxy_config::{ChainProtocol, FilterChain, Forward, ProxyConfig, Route, RouteAction, VirtualHost};
use serde_json::{Value, json};

pub(crate) struct Mesh {
    pub(crate) sources: Sources,
}

impl Mesh {
    /// Bookinfo's `reviews` (v1, v2) and `ratings` with sidecars, a client `sleep`, a plain `legacy`, and an ingress gateway.
    pub(crate) fn bookinfo() -> Self {
        let mut mesh = Self { sources: Sources::default() };
        mesh.service("default", "reviews", "10.96.0.1", "http", 9080, 9080);
        mesh.service("default", "ratings", "10.96.0.2", "http", 9080, 9080);
        mesh.service("default", "sleep", "10.96.0.3", "http", 80, 80);
        mesh.service("default", "legacy", "10.96.0.4", "http", 8000, 8080);
        mesh.service("default", "db", "10.96.0.5", "tcp", 3306, 3306);
        mesh.pod("default", "reviews-v1", &[("app", "reviews"), ("version", "v1")], "10.244.0.1", true);
        mesh.pod("default", "reviews-v2", &[("app", "reviews"), ("version", "v2")], "10.244.0.2", true);
        mesh.pod("default", "ratings-v1", &[("app", "ratings"), ("version", "v1")], "10.244.0.3", true);
        mesh.pod("default", "sleep", &[("app", "sleep")], "10.244.0.4", true);
        mesh.pod("default", "legacy", &[("app", "legacy")], "10.244.0.5", false);
        mesh.pod("default", "db", &[("app", "db")], "10.244.0.6", true);
        mesh.endpoints("default", "reviews", 9080, &[("reviews-v1", "10.244.0.1"), ("reviews-v2", "10.244.0.2")]);
        mesh.endpoints("default", "ratings", 9080, &[("ratings-v1", "10.244.0.3")]);
        mesh.endpoints("default", "sleep", 80, &[("sleep", "10.244.0.4")]);
        mesh.endpoints("default", "legacy", 8080, &[("legacy", "10.244.0.5")]);
        mesh.endpoints("default", "db", 3306, &[("db", "10.244.0.6")]);
        mesh.apply(
            "
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  clusterIP: 10.96.0.100
  selector: {istio: ingressgateway}
  ports:
  - {name: http2, port: 80, targetPort: 8080, protocol: TCP}
  - {name: https, port: 443, targetPort: 8443, protocol: TCP}
",
        );
        mesh.pod("istio-system", "istio-ingressgateway", &[("istio", "ingressgateway")], "10.244.0.9", false);
        mesh
    }

    pub(crate) fn apply(&mut self, yaml: &str) -> &mut Self {
        for object in serde_saphyr::from_multiple::<Value>(yaml).unwrap() {
            self.sources.apply(&object).unwrap();
        }
        self
    }

    /// Applies an Istio resource; the later in a test, the younger.
    pub(crate) fn istio(&mut self, kind: &str, namespace: &str, name: &str, spec: &str) -> &mut Self {
        self.istio_at(kind, namespace, name, "2026-02-01T00:00:00Z", spec)
    }

    pub(crate) fn istio_at(&mut self, kind: &str, namespace: &str, name: &str, created: &str, spec: &str) -> &mut Self {
        let group = match kind {
            "PeerAuthentication" | "AuthorizationPolicy" | "RequestAuthentication" => "security.istio.io/v1",
            "Telemetry" => "telemetry.istio.io/v1",
            _ => "networking.istio.io/v1",
        };
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        let object = json!({
            "apiVersion": group, "kind": kind,
            "metadata": { "name": name, "namespace": namespace, "creationTimestamp": created },
            "spec": spec,
        });
        self.sources.apply(&object).unwrap();
        self
    }

    pub(crate) fn mesh_config(&mut self, yaml: &str) -> &mut Self {
        self.sources.mesh = Arc::new(serde_saphyr::from_str::<MeshConfig>(yaml).unwrap());
        self
    }

    pub(crate) fn service(&mut self, namespace: &str, name: &str, ip: &str, port_name: &str, port: u16, target: u16) {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": {
                "clusterIP": ip, "selector": { "app": name },
                "ports": [{ "name": port_name, "port": port, "targetPort": target, "protocol": "TCP" }],
            },
        });
        self.sources.apply(&object).unwrap();
    }

    pub(crate) fn pod(&mut self, namespace: &str, name: &str, labels: &[(&str, &str)], ip: &str, sidecar: bool) {
        let labels: serde_json::Map<String, Value> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let mut containers = vec![json!({ "name": "app" })];
        if sidecar {
            containers.push(json!({ "name": "istio-proxy" }));
        }
        let account = labels.get("app").cloned().unwrap_or_else(|| name.into());
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": labels },
            "spec": { "serviceAccountName": account, "containers": containers, "nodeName": format!("node-{name}") },
            "status": { "podIP": ip, "phase": "Running" },
        });
        self.sources.apply(&object).unwrap();
    }

    pub(crate) fn endpoints(&mut self, namespace: &str, service: &str, port: u16, pods: &[(&str, &str)]) {
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|(pod, ip)| json!({ "addresses": [ip], "conditions": { "ready": true }, "targetRef": { "kind": "Pod", "name": pod } }))
            .collect();
        let port_name = self.sources.services[&(namespace.to_owned(), service.to_owned())].spec.ports[0].name.clone();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("{service}-1"), "namespace": namespace, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": port_name, "port": port }],
        });
        self.sources.apply(&object).unwrap();
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.sources.clone())
    }

    /// Compiles the proxy of a pod.
    pub(crate) fn compile(&self, namespace: &str, pod: &str) -> Compiled {
        let snapshot = self.snapshot();
        let role = if pod.contains("gateway") { Role::Gateway } else { Role::Sidecar };
        let pod = &self.sources.pods[&(namespace.to_owned(), pod.to_owned())];
        let proxy = ProxyIdentity::of_pod(pod, role, &snapshot);
        compile(&snapshot, &proxy)
    }

    pub(crate) fn sleep(&self) -> Arc<ProxyConfig> {
        self.compile("default", "sleep").config
    }

    pub(crate) fn ingress(&self) -> Arc<ProxyConfig> {
        self.compile("istio-system", "istio-ingressgateway").config
    }

    /// The routes of a virtual host in a route table of `sleep`.
    pub(crate) fn routes(&self, table: &str, host: &str) -> Vec<Route> {
        host_of(&self.sleep(), table, host).routes
    }

    /// The only route to `reviews` and what it forwards to.
    pub(crate) fn reviews(&self) -> (Route, Forward) {
        let routes = self.routes("9080", "reviews");
        assert_eq!(routes.len(), 1, "{routes:#?}");
        let forward = forward(&routes[0]).clone();
        (routes[0].clone(), forward)
    }
}

/// A VirtualService for `reviews` with these http rules.
pub(crate) fn reviews_vs(mesh: &mut Mesh, http: &str) {
    mesh.istio("VirtualService", "default", "reviews", &format!("hosts: [reviews]\nhttp:\n{http}"));
}

pub(crate) fn host_of(config: &ProxyConfig, table: &str, domain: &str) -> VirtualHost {
    let table = config.routes.get(table).unwrap_or_else(|| panic!("no route table {table} in {:?}", config.routes.keys()));
    let found = table.virtual_hosts.iter().find(|host| host.domains.iter().any(|d| d == domain));
    VirtualHost::clone(found.unwrap_or_else(|| panic!("no domain {domain} in {table:#?}")))
}

pub(crate) fn forward(route: &Route) -> &Forward {
    match &route.action {
        RouteAction::Forward(forward) => forward,
        other => panic!("not forwarded: {other:?}"),
    }
}

pub(crate) fn clusters_of(route: &Route) -> Vec<(&str, u32)> {
    forward(route).destinations.iter().map(|d| (d.cluster.as_str(), d.weight)).collect()
}

pub(crate) fn tcp_cluster(chain: &FilterChain) -> &str {
    match &chain.protocol {
        ChainProtocol::Tcp(tcp) => &tcp.clusters[0].cluster,
        ChainProtocol::Http(http) => panic!("an HTTP chain: {http:?}"),
    }
}

pub(crate) const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";
