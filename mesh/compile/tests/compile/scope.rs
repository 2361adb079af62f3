//! Facts 42 to 50: external services, scope, telemetry.

use meshlab_proxy_config::{Discovery, Fraction, LogFormat, RouteAction, SpanExporter, UpstreamTls};

use crate::support::*;

#[test]
fn fact_42_service_entries() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "ServiceEntry",
        "default",
        "http",
        "{hosts: [httpbin.org], ports: [{number: 8000, name: http, protocol: HTTP}], resolution: DNS}",
    );
    mesh.istio("ServiceEntry", "default", "tcp", "{hosts: [tcp.example], ports: [{number: 9000, name: tcp, protocol: TCP}]}");
    mesh.istio(
        "ServiceEntry",
        "default",
        "block",
        "{hosts: [block.example], addresses: [192.0.2.0/24], ports: [{number: 9001, name: tcp, protocol: TCP}]}",
    );
    mesh.istio("ServiceEntry", "default", "static", "{hosts: [static.example], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], endpoints: [{address: 192.0.2.7, labels: {security.istio.io/tlsMode: istio}, serviceAccount: sa}]}");
    let config = mesh.sleep();
    let http = &config.clusters["outbound|8000||httpbin.org"];
    assert!(matches!(&http.discovery, Discovery::StrictDns(names) if names[0].host == "httpbin.org" && names[0].port == 8000));
    assert_eq!(http.tls, UpstreamTls::Disable, "no automatic mutual TLS outside the mesh");
    assert_eq!(host_of(&config, "8000", "httpbin.org").name, "httpbin.org:8000");
    let tcp = &config.clusters["outbound|9000||tcp.example"];
    assert_eq!(tcp.discovery, Discovery::OriginalDestination, "NONE is the default");
    let rest = config.listeners["0.0.0.0_9000"].default_filter_chain.as_ref().unwrap();
    assert_eq!(tcp_cluster(rest), "outbound|9000||tcp.example", "without addresses the port is captured");
    let block = &config.listeners["0.0.0.0_9001"];
    assert_eq!(block.filter_chains[0].matches.prefix_ranges, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(tcp_cluster(block.default_filter_chain.as_ref().unwrap()), "PassthroughCluster");
    let endpoint = &config.endpoints["outbound|80||static.example"].endpoints[0];
    assert_eq!((endpoint.address.to_string().as_str(), endpoint.metadata.mtls), ("192.0.2.7:8080", true));
    assert!(matches!(config.clusters["outbound|80||static.example"].tls, UpstreamTls::Auto(_)));
}

#[test]
fn fact_42_an_entry_selects_pods_and_workload_entries() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio("WorkloadEntry", "default", "vm", "{address: 192.0.2.9, labels: {app: legacy}, ports: {http: 9999}}");
    mesh.istio("ServiceEntry", "default", "both", "{hosts: [both.example], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: legacy}}}");
    let config = mesh.sleep();
    let addresses: Vec<_> =
        config.endpoints["outbound|80||both.example"].endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(addresses, ["10.244.0.5:80", "192.0.2.9:9999"]);
}

#[test]
fn fact_43_unknown_destinations() {
    let mut mesh = Mesh::bookinfo();
    let unknown = |mesh: &Mesh| {
        let config = mesh.sleep();
        let host = config.routes["80"].virtual_hosts.last().unwrap().clone();
        let cluster = tcp_cluster(config.listeners["virtualOutbound"].default_filter_chain.as_ref().unwrap()).to_owned();
        (host, cluster)
    };
    let (host, cluster) = unknown(&mesh);
    assert_eq!(
        (host.name.as_str(), host.domains.as_slice(), cluster.as_str()),
        ("allow_any", ["*".to_owned()].as_slice(), "PassthroughCluster")
    );
    assert_eq!(clusters_of(&host.routes[0]), [("PassthroughCluster", 1)]);
    mesh.mesh_config("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}");
    let (host, cluster) = unknown(&mesh);
    assert_eq!((host.name.as_str(), cluster.as_str()), ("block_all", "BlackHoleCluster"));
    assert_eq!(host.routes[0].action, RouteAction::DirectResponse { status: 502, body: String::new() });
    mesh.istio("Sidecar", "default", "default", "{outboundTrafficPolicy: {mode: ALLOW_ANY}}");
    assert_eq!(unknown(&mesh).0.name, "allow_any", "the Sidecar's own mode");
    assert_eq!(mesh.sleep().clusters["PassthroughCluster"].service.name, "PassthroughCluster");
}

#[test]
fn fact_44_sidecars_narrow_the_scope() {
    let mut mesh = Mesh::bookinfo();
    mesh.service("other", "far", "10.96.2.1", "http", 80, 80);
    let sees = |mesh: &Mesh, host: &str| mesh.sleep().clusters.keys().any(|name| name.ends_with(&format!("|{host}")));
    assert!(sees(&mesh, "far.other.svc.cluster.local"));
    mesh.istio("Sidecar", "istio-system", "default", "{egress: [{hosts: ['other/*']}]}");
    assert!(sees(&mesh, "far.other.svc.cluster.local") && !sees(&mesh, "reviews.default.svc.cluster.local"));
    mesh.istio("Sidecar", "default", "default", "{egress: [{hosts: ['./*']}]}");
    assert!(!sees(&mesh, "far.other.svc.cluster.local") && sees(&mesh, "reviews.default.svc.cluster.local"));
    mesh.istio(
        "Sidecar",
        "default",
        "sleep",
        "{workloadSelector: {labels: {app: sleep}}, egress: [{hosts: ['./ratings.default.svc.cluster.local']}]}",
    );
    assert!(!sees(&mesh, "reviews.default.svc.cluster.local") && sees(&mesh, "ratings.default.svc.cluster.local"));
    // Out of scope is not forbidden: it is unknown.
    assert_eq!(mesh.sleep().routes["9080"].virtual_hosts.last().unwrap().name, "allow_any");
}

#[test]
fn fact_44_an_imported_route_brings_its_destinations() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- {route: [{destination: {host: ratings}}]}");
    mesh.istio("Sidecar", "default", "default", "{egress: [{hosts: ['./reviews.default.svc.cluster.local']}]}");
    let config = mesh.sleep();
    assert!(config.clusters.contains_key("outbound|9080||ratings.default.svc.cluster.local"));
    assert!(!config.clusters.contains_key("outbound|80||sleep.default.svc.cluster.local"));
}

#[test]
fn fact_45_a_port_without_a_protocol_is_sniffed() {
    let mut mesh = Mesh::bookinfo();
    mesh.service("default", "any", "10.96.0.70", "", 7070, 7070);
    mesh.pod("default", "any", &[("app", "any")], "10.244.0.70", true);
    mesh.endpoints("default", "any", 7070, &[("any", "10.244.0.70")]);
    let config = mesh.sleep();
    let listener = &config.listeners["10.96.0.70_7070"];
    let [http] = &listener.filter_chains[..] else { panic!("{:?}", listener.filter_chains) };
    assert_eq!(http.matches.application_protocols, ["http/1.1", "h2c"]);
    let rest = listener.default_filter_chain.as_ref().expect("what is neither HTTP nor anything else that is known");
    assert_eq!(tcp_cluster(rest), "outbound|7070||any.default.svc.cluster.local");
    let table = &config.routes["any.default.svc.cluster.local:7070"];
    assert_eq!(table.virtual_hosts[0].domains, ["*"]);
    let inbound = mesh.compile("default", "any").config;
    let on_port =
        inbound.listeners["virtualInbound"].filter_chains.iter().filter(|chain| chain.matches.destination_port == Some(7070));
    assert_eq!(on_port.count(), 5, "mutual TLS and plaintext, each with HTTP and without, and the application's own TLS");
}

#[test]
fn fact_47_ports() {
    let config = Mesh::bookinfo().sleep();
    let port = |name: &str| config.listeners[name].address.port();
    assert_eq!((port("virtualOutbound"), port("virtualInbound")), (15001, 15006));
    assert!(config.listeners["virtualOutbound"].use_original_destination);
}

#[test]
fn fact_49_access_logs() {
    let mut mesh = Mesh::bookinfo();
    assert!(mesh.sleep().telemetry.access_logs.is_empty(), "off by default");
    mesh.mesh_config("{accessLogFile: /dev/stdout}");
    assert!(
        matches!(&mesh.sleep().telemetry.access_logs[0].format, LogFormat::Text(text) if text.starts_with("[%START_TIME%] \"%REQ(:METHOD)%") && text.ends_with('\n'))
    );
    mesh.istio("Telemetry", "istio-system", "mesh", "{accessLogging: [{disabled: true}]}");
    assert!(mesh.sleep().telemetry.access_logs.is_empty());
    mesh.istio(
        "Telemetry",
        "default",
        "ns",
        "{accessLogging: [{providers: [{name: envoy}], filter: {expression: 'response.code >= 400'}}]}",
    );
    assert_eq!(mesh.sleep().telemetry.access_logs[0].filter.as_deref(), Some("response.code >= 400"));
    mesh.istio(
        "Telemetry",
        "default",
        "sleep",
        "{selector: {matchLabels: {app: sleep}}, accessLogging: [{match: {mode: CLIENT}, disabled: true}]}",
    );
    let logs = &mesh.sleep().telemetry.access_logs;
    assert_eq!(logs.iter().map(|log| log.client).collect::<Vec<_>>(), [Some(false)]);
    assert_eq!(mesh.compile("default", "ratings-v1").config.telemetry.access_logs.len(), 1);
}

#[test]
fn fact_50_tracing() {
    let mut mesh = Mesh::bookinfo();
    mesh.service("istio-system", "zipkin", "10.96.0.80", "http", 9411, 9411);
    assert_eq!(mesh.sleep().telemetry.tracing, None);
    mesh.mesh_config("{defaultConfig: {tracing: {zipkin: {address: 'zipkin.istio-system:9411'}}}}");
    let tracing = mesh.sleep().telemetry.tracing.clone().unwrap();
    assert_eq!((tracing.sampling, tracing.exporter), (Fraction(10_000), SpanExporter::Zipkin));
    assert_eq!(
        (tracing.service_name.as_str(), tracing.cluster.as_str()),
        ("sleep.default", "outbound|9411||zipkin.istio-system.svc.cluster.local")
    );
    mesh.mesh_config(
        "{extensionProviders: [{name: otel, opentelemetry: {service: zipkin.istio-system.svc.cluster.local, port: 9411}}]}",
    );
    mesh.istio(
        "Telemetry",
        "istio-system",
        "mesh",
        "{tracing: [{providers: [{name: otel}], randomSamplingPercentage: 100, customTags: {a: {literal: {value: b}}}}]}",
    );
    mesh.istio("Sidecar", "default", "default", "{egress: [{hosts: ['./*']}]}");
    let config = mesh.sleep();
    let tracing = config.telemetry.tracing.as_ref().unwrap();
    assert_eq!((tracing.sampling, tracing.exporter, tracing.custom_tags.len()), (Fraction::ALL, SpanExporter::OtlpGrpc, 1));
    assert!(config.clusters.contains_key(&tracing.cluster), "also where a Sidecar does not import it");
    assert_eq!(mesh.reviews().0.operation, "reviews.default.svc.cluster.local:9080/*");
    reviews_vs(
        &mut mesh,
        "- {match: [{uri: {prefix: /a}}], route: [{destination: {host: reviews}, weight: 1}, {destination: {host: ratings}, weight: 1}]}",
    );
    assert_eq!(mesh.reviews().0.operation, "reviews:9080/a*", "with several destinations the VirtualService's name");
}

#[test]
fn a_bad_resource_does_not_stop_the_others() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- {name: good, route: [{destination: {host: ratings}}]}");
    let bad = serde_json::json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "reviews", "namespace": "default" }, "spec": { "hosts": ["reviews"], "http": 5 },
    });
    assert_eq!(mesh.sources.apply(&bad).unwrap_err().path, "spec.http");
    assert_eq!(mesh.reviews().0.name, "good", "the last good state holds");
    mesh.sources.remove("networking.istio.io/v1", "VirtualService", "default", "reviews");
    assert_eq!(mesh.reviews().0.name, "default");
}

#[test]
fn headless_services_are_reached_by_their_pods_addresses() {
    let mut mesh = Mesh::bookinfo();
    mesh.apply("{apiVersion: v1, kind: Service, metadata: {name: db, namespace: default}, spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 3306, targetPort: 3306, protocol: TCP}]}}");
    let config = mesh.sleep();
    let cluster = &config.clusters["outbound|3306||db.default.svc.cluster.local"];
    assert_eq!(cluster.discovery, Discovery::OriginalDestination);
    assert!(matches!(cluster.tls, UpstreamTls::Mesh(_)), "every pod takes mutual TLS");
    assert!(config.listeners.contains_key("10.244.0.6_3306") && !config.listeners.contains_key("10.96.0.5_3306"));
}

#[test]
fn a_sidecar_describes_its_own_listeners() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "Sidecar",
        "default",
        "sleep",
        "{workloadSelector: {labels: {app: sleep}}, ingress: [{port: {number: 8080, protocol: HTTP, name: x}, defaultEndpoint: '127.0.0.1:80'}], egress: [{port: {number: 9080, protocol: HTTP, name: e}, hosts: ['./reviews.default.svc.cluster.local']}, {hosts: ['./db.default.svc.cluster.local']}]}",
    );
    let config = mesh.sleep();
    assert!(config.clusters.contains_key("inbound|8080||") && !config.clusters.contains_key("inbound|80||"));
    assert!(
        matches!(&config.clusters["inbound|8080||"].discovery, Discovery::Static(list) if list.endpoints[0].address.to_string() == "127.0.0.1:80")
    );
    assert!(config.listeners.contains_key("0.0.0.0_9080") && config.listeners.contains_key("10.96.0.5_3306"));
    assert!(!config.listeners.contains_key("0.0.0.0_8000"));
}

#[test]
fn resources_without_effect_are_reported() {
    let mut mesh = Mesh::bookinfo();
    mesh.apply("{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: f, namespace: default}, spec: {configPatches: []}}");
    mesh.istio(
        "AuthorizationPolicy",
        "default",
        "p",
        "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}], rules: []}",
    );
    let problems = mesh.compile("default", "sleep").problems;
    let kinds: Vec<_> = problems.iter().map(|problem| problem.origin.kind.as_str()).collect();
    assert_eq!(kinds, ["AuthorizationPolicy", "EnvoyFilter"]);
}

#[test]
fn entries_for_one_host_are_joined() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "ServiceEntry",
        "default",
        "a",
        "{hosts: [a.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}",
    );
    mesh.istio(
        "ServiceEntry",
        "default",
        "b",
        "{hosts: [a.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}",
    );
    let config = mesh.sleep();
    assert!(config.clusters.contains_key("outbound|80||a.com") && config.clusters.contains_key("outbound|443||a.com"));
}

#[test]
fn a_rule_that_no_proxy_can_use_is_left_out() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "
- {name: regex, match: [{uri: {regex: '*'}}], route: [{destination: {host: reviews}}]}
- {name: header, headers: {request: {set: {'a b': c}}}, route: [{destination: {host: reviews}}]}
- {name: good, match: [{headers: {x: {regex: '*'}}}], route: [{destination: {host: reviews}}]}",
    );
    let compiled = mesh.compile("default", "sleep");
    let names: Vec<_> = host_of(&compiled.config, "9080", "reviews").routes.into_iter().map(|route| route.name).collect();
    assert_eq!(names, ["good"]);
    let problems: Vec<_> = compiled.problems.iter().map(|problem| problem.origin.path.as_str()).collect();
    assert_eq!(problems, ["spec.http[0]", "spec.http[1]"]);
}

#[test]
fn an_endpoint_waits_for_its_pod() {
    let mut mesh = Mesh::bookinfo();
    mesh.endpoints("default", "reviews", 9080, &[("reviews-v1", "10.244.0.1"), ("reviews-v3", "10.244.0.33")]);
    let addresses = |mesh: &Mesh| mesh.sleep().endpoints[REVIEWS].endpoints.len();
    assert_eq!(addresses(&mesh), 1);
    mesh.pod("default", "reviews-v3", &[("app", "reviews")], "10.244.0.33", true);
    assert_eq!(addresses(&mesh), 2);
}
