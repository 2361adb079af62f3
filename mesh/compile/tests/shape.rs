//! What a sidecar and a gateway are given as a whole.
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use meshlab_proxy_config::{ChainProtocol, Discovery};
use support::*;

#[test]
fn a_sidecar_has_istios_names() {
    let config = Mesh::bookinfo().sleep();
    let mut names: Vec<_> = config.listeners.keys().cloned().collect();
    names.sort();
    insta::assert_snapshot!(names.join("\n"), @"");
    insta::assert_snapshot!(config.routes.keys().cloned().collect::<Vec<_>>().join("\n"), @"");
    insta::assert_snapshot!(config.clusters.keys().cloned().collect::<Vec<_>>().join("\n"), @"");
    insta::assert_json_snapshot!(config.listeners["0.0.0.0_9080"], @"");
    insta::assert_json_snapshot!(host_of(&config, "9080", "reviews"), @"");
    insta::assert_json_snapshot!(config.clusters[REVIEWS], @"");
    insta::assert_json_snapshot!(config.endpoints[REVIEWS], @"");
}

#[test]
fn a_gateway_serves_hosts_on_the_services_target_port() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio("Gateway", "default", "web", "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [bookinfo.example.com]}]}");
    mesh.istio(
        "VirtualService",
        "default",
        "web",
        "{hosts: [bookinfo.example.com], gateways: [web], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    let config = mesh.ingress();
    let listener = &config.listeners["0.0.0.0_8080"];
    assert!(listener.bind && listener.address.port() == 8080);
    let ChainProtocol::Http(http) = &listener.filter_chains[0].protocol else { panic!("not HTTP") };
    assert_eq!(http.route_config, "http.8080");
    let host = host_of(&config, "http.8080", "bookinfo.example.com");
    assert_eq!(host.name, "bookinfo.example.com:80");
    assert_eq!(clusters_of(&host.routes[0]), [(REVIEWS, 1)]);
    assert_eq!(config.clusters[REVIEWS].discovery, Discovery::Eds);
    // Not on sidecars: a gateway is named, `mesh` is not.
    assert!(
        mesh.sleep().routes["9080"].virtual_hosts.iter().all(|host| !host.domains.iter().any(|d| d == "bookinfo.example.com"))
    );
}

#[test]
fn equal_input_gives_equal_bytes() {
    let mesh = Mesh::bookinfo();
    let bytes = || serde_json::to_vec(&*mesh.sleep()).unwrap();
    assert_eq!(bytes(), bytes());
}
