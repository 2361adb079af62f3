//! Facts 24 to 31: DestinationRules.

use std::sync::Arc;

use meshlab_proxy_config::{Cluster, HashPolicy, LoadBalancer, OutlierDetection, UpstreamTls};

use crate::support::*;

fn reviews(mesh: &Mesh) -> Arc<Cluster> {
    mesh.sleep().clusters[REVIEWS].clone()
}

fn subset(mesh: &Mesh, name: &str) -> Arc<Cluster> {
    mesh.sleep().clusters[&format!("outbound|9080|{name}|reviews.default.svc.cluster.local")].clone()
}

fn rule(mesh: &mut Mesh, spec: &str) {
    mesh.istio("DestinationRule", "default", "reviews", &format!("{{host: reviews, {spec}}}"));
}

#[test]
fn fact_24_client_then_service_then_root_namespace_unmerged() {
    let mut mesh = Mesh::bookinfo();
    mesh.pod("client", "curl", &[("app", "curl")], "10.244.1.1", true);
    let limits = |mesh: &Mesh| mesh.compile("client", "curl").config.clusters[REVIEWS].circuit_breaker.max_connections;
    let spec = |host: &str, limit: u32| {
        format!("{{host: {host}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {limit}}}}}}}}}")
    };
    mesh.istio("DestinationRule", "istio-system", "root", &spec("'*.cluster.local'", 1));
    assert_eq!(limits(&mesh), 1);
    mesh.istio("DestinationRule", "default", "service", &spec("'*.default.svc.cluster.local'", 2));
    assert_eq!(limits(&mesh), 2);
    mesh.istio("DestinationRule", "default", "exact", &spec("reviews", 3));
    assert_eq!(limits(&mesh), 3, "the most specific host");
    mesh.istio("DestinationRule", "client", "own", &spec("'*.svc.cluster.local'", 4));
    assert_eq!(limits(&mesh), 4, "the client's own, though its host is wider");
    mesh.istio("DestinationRule", "client", "own", "{host: '*.svc.cluster.local', subsets: [{name: v1}]}");
    assert_eq!(limits(&mesh), u32::MAX, "nothing is merged across namespaces");
}

#[test]
fn fact_24_hidden_rules_do_not_count() {
    let mut mesh = Mesh::bookinfo();
    mesh.pod("client", "curl", &[("app", "curl")], "10.244.1.1", true);
    mesh.istio(
        "DestinationRule",
        "default",
        "reviews",
        "{host: reviews, exportTo: [.], trafficPolicy: {loadBalancer: {simple: RANDOM}}}",
    );
    assert_eq!(reviews(&mesh).load_balancer, LoadBalancer::Random);
    assert_ne!(mesh.compile("client", "curl").config.clusters[REVIEWS].load_balancer, LoadBalancer::Random);
}

#[test]
fn fact_25_rules_of_one_host_are_joined() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio_at(
        "DestinationRule",
        "default",
        "a",
        "2026-02-01T00:00:00Z",
        "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}",
    );
    mesh.istio_at(
        "DestinationRule",
        "default",
        "b",
        "2026-02-02T00:00:00Z",
        "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v2}}, {name: v2, labels: {version: v2}}]}",
    );
    mesh.istio_at(
        "DestinationRule",
        "default",
        "c",
        "2026-02-03T00:00:00Z",
        "{host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}",
    );
    assert_eq!(reviews(&mesh).load_balancer, LoadBalancer::Random, "the first that has a policy");
    let config = mesh.sleep();
    let addresses = |name: &str| {
        let endpoints = &config.endpoints[&format!("outbound|9080|{name}|reviews.default.svc.cluster.local")];
        endpoints.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(addresses("v1"), ["10.244.0.1:9080"], "the older subset");
    assert_eq!(addresses("v2"), ["10.244.0.2:9080"]);
    assert_eq!(subset(&mesh, "v2").origins.last().unwrap().path, "spec.subsets[1]");
}

#[test]
fn fact_26_port_settings_replace_and_subsets_override_by_block() {
    let mut mesh = Mesh::bookinfo();
    rule(
        &mut mesh,
        "trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 5}}, portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: ROUND_ROBIN}}]}, subsets: [{name: v1, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}]",
    );
    let cluster = reviews(&mesh);
    assert_eq!(cluster.load_balancer, LoadBalancer::RoundRobin { warmup_ms: 0 });
    assert_eq!(cluster.circuit_breaker.max_connections, u32::MAX, "what the port leaves out is the default");
    let v1 = subset(&mesh, "v1");
    assert_eq!((v1.load_balancer, v1.circuit_breaker.max_connections), (LoadBalancer::RoundRobin { warmup_ms: 0 }, 7));
}

#[test]
fn fact_27_load_balancers() {
    let mut mesh = Mesh::bookinfo();
    assert_eq!(reviews(&mesh).load_balancer, LoadBalancer::LeastRequest { warmup_ms: 0 });
    rule(&mut mesh, "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: X-User}}}");
    assert_eq!(reviews(&mesh).load_balancer, LoadBalancer::RingHash { minimum_ring_size: 1024 });
    assert_eq!(mesh.reviews().1.hash_policy, [HashPolicy::Header("x-user".into())], "also without a VirtualService");
    rule(
        &mut mesh,
        "trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}, maglev: {tableSize: 101}}}}",
    );
    assert_eq!(reviews(&mesh).load_balancer, LoadBalancer::Maglev { table_size: 101 });
    assert_eq!(mesh.reviews().1.hash_policy, [HashPolicy::Cookie { name: "c".into(), path: String::new(), ttl_s: Some(0) }]);
    rule(&mut mesh, "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s}}}");
    assert_eq!(reviews(&mesh).load_balancer, LoadBalancer::RoundRobin { warmup_ms: 30_000 });
}

#[test]
fn fact_28_limits_are_off_by_default() {
    let mut mesh = Mesh::bookinfo();
    let cluster = reviews(&mesh);
    assert_eq!((cluster.circuit_breaker, cluster.connect_timeout_ms), (Default::default(), 10_000));
    rule(
        &mut mesh,
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1, connectTimeout: 30ms}, http: {http1MaxPendingRequests: 2, http2MaxRequests: 3, maxRetries: 4, maxRequestsPerConnection: 5}}}",
    );
    let cluster = reviews(&mesh);
    let limits = cluster.circuit_breaker;
    assert_eq!((limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries), (1, 2, 3, 4));
    assert_eq!((cluster.connect_timeout_ms, cluster.max_requests_per_connection), (30, 5));
}

#[test]
fn fact_29_outlier_detection() {
    let mut mesh = Mesh::bookinfo();
    assert_eq!(reviews(&mesh).outlier_detection, None);
    rule(&mut mesh, "trafficPolicy: {outlierDetection: {}}");
    let default = OutlierDetection {
        consecutive_5xx: 5,
        consecutive_gateway_errors: 0,
        split_local_errors: false,
        consecutive_local_origin_failures: 5,
        interval_ms: 10_000,
        base_ejection_ms: 30_000,
        max_ejection_percent: 10,
        min_health_percent: 0,
    };
    assert_eq!(reviews(&mesh).outlier_detection, Some(default));
    rule(
        &mut mesh,
        "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, maxEjectionPercent: 100}}",
    );
    let own = reviews(&mesh).outlier_detection.unwrap();
    assert_eq!((own.consecutive_5xx, own.consecutive_gateway_errors, own.max_ejection_percent), (0, 3, 100));
}

#[test]
fn fact_30_locality_counts_only_with_outlier_detection() {
    let mut mesh = Mesh::bookinfo();
    for (pod, zone) in [("sleep", "z1"), ("reviews-v1", "z2"), ("reviews-v2", "z1")] {
        mesh.apply(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node-{pod}, labels: {{topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: {zone}}}}}}}"
        ));
    }
    let priorities =
        |mesh: &Mesh| mesh.sleep().endpoints[REVIEWS].endpoints.iter().map(|endpoint| endpoint.priority).collect::<Vec<_>>();
    assert_eq!(priorities(&mesh), [0, 0]);
    let service = mesh.sources.services[&("default".to_owned(), "reviews".to_owned())].clone();
    mesh.apply("{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: default}, spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, trafficDistribution: PreferClose, ports: [{name: http, port: 9080, targetPort: 9080, protocol: TCP}]}}");
    assert_eq!(priorities(&mesh), [1, 0], "trafficDistribution does without it");
    std::sync::Arc::make_mut(&mut mesh.sources.services).insert(("default".to_owned(), "reviews".to_owned()), service);
    assert_eq!(priorities(&mesh), [0, 0]);
    rule(&mut mesh, "trafficPolicy: {outlierDetection: {}}");
    assert_eq!(priorities(&mesh), [1, 0]);
    rule(&mut mesh, "trafficPolicy: {outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}}");
    assert_eq!(priorities(&mesh), [0, 0]);
    rule(
        &mut mesh,
        "trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: r1/z1/*, to: {r1/z1/*: 80, r1/z2/*: 20}}]}}}",
    );
    let config = mesh.sleep();
    let weights: Vec<_> = config.endpoints[REVIEWS].endpoints.iter().map(|endpoint| endpoint.weight).collect();
    assert_eq!(weights[1], 4 * weights[0]);
    assert_eq!(config.endpoints[REVIEWS].endpoints[0].metadata.locality, "r1/z2");
}

#[test]
fn fact_31_a_rule_without_tls_keeps_automatic_mutual_tls() {
    let mut mesh = Mesh::bookinfo();
    rule(&mut mesh, "trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    assert!(matches!(reviews(&mesh).tls, UpstreamTls::Auto(_)));
    rule(&mut mesh, "trafficPolicy: {tls: {mode: DISABLE}}");
    assert_eq!(reviews(&mesh).tls, UpstreamTls::Disable);
    rule(&mut mesh, "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    assert!(
        matches!(&reviews(&mesh).tls, UpstreamTls::Mesh(mesh) if mesh.sni == "outbound_.9080_._.reviews.default.svc.cluster.local")
    );
    rule(&mut mesh, "trafficPolicy: {tls: {mode: SIMPLE, sni: a.com}}");
    assert!(
        matches!(&reviews(&mesh).tls, UpstreamTls::Custom { sni: Some(sni), client_certificate: None, .. } if sni == "a.com")
    );
}

#[test]
fn a_workload_selector_limits_a_rule_to_some_clients() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "DestinationRule",
        "default",
        "some",
        "{host: reviews, workloadSelector: {matchLabels: {app: sleep}}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}",
    );
    mesh.istio("DestinationRule", "default", "all", "{host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}");
    assert_eq!(reviews(&mesh).load_balancer, LoadBalancer::Random);
    let other = mesh.compile("default", "ratings-v1").config;
    assert_eq!(other.clusters[REVIEWS].load_balancer, LoadBalancer::RoundRobin { warmup_ms: 0 });
}

#[test]
fn limits_hold_for_the_server_too() {
    let mut mesh = Mesh::bookinfo();
    rule(&mut mesh, "trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 1}}}");
    let limit = |mesh: &Mesh| {
        mesh.compile("default", "reviews-v1").config.clusters["inbound|9080||"].circuit_breaker.max_pending_requests
    };
    assert_eq!(limit(&mesh), 1);
    mesh.istio("Sidecar", "default", "default", "{inboundConnectionPool: {http: {http1MaxPendingRequests: 7}}}");
    assert_eq!(limit(&mesh), 7, "the Sidecar's own");
}

#[test]
fn idle_connections_end_when_the_rule_says() {
    let mut mesh = Mesh::bookinfo();
    let idle = |mesh: &Mesh| match &mesh.sleep().listeners["10.96.0.5_3306"].filter_chains[0].protocol {
        meshlab_proxy_config::ChainProtocol::Tcp(tcp) => tcp.idle_timeout_ms,
        meshlab_proxy_config::ChainProtocol::Http(_) => panic!("HTTP"),
    };
    assert_eq!(idle(&mesh), 3_600_000);
    mesh.istio("DestinationRule", "default", "db", "{host: db, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 0s}}}}");
    assert_eq!(idle(&mesh), 0);
}

#[test]
fn sidecars_get_secrets_of_their_namespace_for_rules_that_name_them() {
    let mut mesh = Mesh::bookinfo();
    for namespace in ["default", "other"] {
        mesh.apply(&format!("{{apiVersion: v1, kind: Secret, metadata: {{name: cert, namespace: {namespace}}}, data: {{tls.crt: Y2VydA==, tls.key: a2V5, ca.crt: Y2E=}}}}"));
    }
    let own = "kubernetes://default/cert";
    let tls = |host: &str, more: &str, tls: &str| format!("{{host: {host}, {more} trafficPolicy: {{tls: {tls}}}}}");
    let selector = "workloadSelector: {matchLabels: {app: sleep}},";
    mesh.istio("DestinationRule", "default", "reviews", &tls("reviews", "", "{mode: MUTUAL, credentialName: cert}"));
    assert!(mesh.sleep().secrets.is_empty(), "rules for everybody mean gateways");
    mesh.istio("DestinationRule", "default", "reviews", &tls("reviews", selector, "{mode: SIMPLE, credentialName: cert}"));
    assert_eq!(mesh.sleep().secrets[own].ca_certificates, "ca");
    assert!(mesh.sleep().secrets[own].private_key.is_empty(), "no more than is needed");
    mesh.istio("DestinationRule", "default", "ratings", &tls("ratings", selector, "{mode: MUTUAL, credentialName: cert}"));
    assert_eq!(mesh.sleep().secrets[own].private_key, "key", "one of two rules needs it");
    assert!(mesh.compile("default", "ratings-v1").config.secrets.is_empty());
    mesh.istio("DestinationRule", "default", "ratings", &tls("ratings", selector, "{mode: MUTUAL, credentialName: other/cert}"));
    assert_eq!(mesh.sleep().secrets.keys().collect::<Vec<_>>(), [own], "none of another namespace");
}
