//! What holds for every configuration, whatever resources it is compiled from.

use std::collections::BTreeSet;

use meshlab_proxy_config::{ChainProtocol, Discovery, ProxyConfig};
use proptest::prelude::*;

use crate::support::*;

/// A host as careless people write them.
fn host() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "reviews",
        "ratings",
        "reviews.default",
        "reviews.default.svc.cluster.local",
        "*.default.svc.cluster.local",
        "a.com",
        "*.com",
        "*",
        "nobody",
    ])
}

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{uri: {prefix: /}}",
        "{uri: {exact: /a}}",
        "{uri: {regex: '.*'}}",
        "{headers: {x: {exact: v}}}",
        "{port: 80}",
        "{gateways: [mesh]}",
        "{gateways: [web]}",
    ])
}

pub(crate) fn virtual_service() -> impl Strategy<Value = String> {
    let rule = (prop::collection::vec(path(), 0..3), host(), 0..3i32).prop_map(|(matches, host, weight)| {
        format!("{{match: [{}], route: [{{destination: {{host: '{host}', subset: v1}}, weight: {weight}}}, {{destination: {{host: ratings}}, weight: 1}}]}}", matches.join(", "))
    });
    let gateways = prop::sample::select(vec!["", "gateways: [web],", "gateways: [web, mesh],", "exportTo: [.],"]);
    (prop::collection::vec(host(), 1..3), gateways, prop::collection::vec(rule, 0..3)).prop_map(|(hosts, gateways, rules)| {
        let hosts: Vec<_> = hosts.iter().map(|host| format!("'{host}'")).collect();
        format!(
            "{{hosts: [{}], {gateways} http: [{}], tcp: [{{route: [{{destination: {{host: db}}}}]}}]}}",
            hosts.join(", "),
            rules.join(", ")
        )
    })
}

pub(crate) fn service_entry() -> impl Strategy<Value = String> {
    let port = prop::sample::select(vec![
        "{number: 80, name: a, protocol: HTTP}",
        "{number: 9080, name: b, protocol: TCP}",
        "{number: 443, name: c, protocol: TLS}",
        "{number: 81, name: d}",
    ]);
    let resolution = prop::sample::select(vec!["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"]);
    let addresses = prop::sample::select(vec!["", "addresses: [192.0.2.1],", "addresses: [192.0.2.0/24],"]);
    (host(), prop::collection::btree_set(port, 0..4), resolution, addresses).prop_map(|(host, ports, resolution, addresses)| {
        format!(
            "{{hosts: ['{host}'], {addresses} resolution: {resolution}, ports: [{}]}}",
            ports.into_iter().collect::<Vec<_>>().join(", ")
        )
    })
}

pub(crate) fn sidecar() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{egress: [{hosts: ['./*']}]}",
        "{egress: [{port: {number: 9080, protocol: HTTP, name: e}, hosts: ['*/*']}, {hosts: ['~/*']}]}",
        "{egress: [{port: {number: 3306, protocol: TCP, name: e}, hosts: ['./*']}]}",
        "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
    ])
}

fn check(config: &ProxyConfig) {
    for listener in config.listeners.values() {
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            if let ChainProtocol::Http(http) = &chain.protocol {
                assert!(config.routes.contains_key(&http.route_config), "{} has no routes {}", listener.name, http.route_config);
            }
        }
    }
    for table in config.routes.values() {
        let mut names = BTreeSet::new();
        let mut domains = BTreeSet::new();
        for host in &table.virtual_hosts {
            assert!(names.insert(&host.name), "{} twice in {}", host.name, table.name);
            for domain in &host.domains {
                assert!(domains.insert(domain.to_lowercase()), "{domain} twice in {}", table.name);
            }
        }
    }
    for (name, cluster) in &config.clusters {
        assert_eq!(*name, cluster.name);
        assert_eq!(cluster.discovery == Discovery::Eds, config.endpoints.contains_key(name), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn names_are_unique_and_what_is_named_exists(
        virtual_services in prop::collection::vec(virtual_service(), 0..4),
        entries in prop::collection::vec(service_entry(), 0..4),
        sidecar in prop::option::of(sidecar()),
    ) {
        let mut mesh = Mesh::bookinfo();
        mesh.istio("Gateway", "default", "web", "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}, {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}]}");
        mesh.istio("DestinationRule", "default", "all", "{host: '*', subsets: [{name: v1, labels: {version: v1}}]}");
        for (index, spec) in virtual_services.iter().enumerate() {
            mesh.istio("VirtualService", "default", &format!("v{index}"), spec);
        }
        for (index, spec) in entries.iter().enumerate() {
            mesh.istio("ServiceEntry", "default", &format!("e{index}"), spec);
        }
        if let Some(spec) = sidecar {
            mesh.istio("Sidecar", "default", "s", spec);
        }
        let sleep = mesh.sleep();
        check(&sleep);
        check(&mesh.ingress());
        prop_assert_eq!(serde_json::to_vec(&*sleep).unwrap(), serde_json::to_vec(&*mesh.sleep()).unwrap());
        let back: ProxyConfig = serde_json::from_slice(&serde_json::to_vec(&*sleep).unwrap()).unwrap();
        prop_assert_eq!(&back, &*sleep);
    }
}
