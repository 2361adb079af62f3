//! Service addresses.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::Duration;

use meshlab_net::{HostOptions, Net, ServicePort, Stream};

use crate::fixture::{at, echo, ip, network, pod, who};

#[tokio::test]
async fn connections_are_spread_over_the_endpoints() {
    let network = network();
    let client = pod(&network, "10.244.0.2", "client");
    let mut endpoints = Vec::new();
    for (address, name) in [("10.244.0.3", "a"), ("10.244.0.4", "b"), ("10.244.0.5", "c")] {
        echo(&pod(&network, address, name), "0.0.0.0:8080", name).await;
        endpoints.push(at(&format!("{address}:8080")));
    }
    network.upsert_service("default/web", vec![ServicePort::new(at("10.96.0.9:80"), endpoints)]);
    let mut counts = HashMap::new();
    for _ in 0..300 {
        *counts.entry(who(&client, "10.96.0.9:80").await.unwrap()).or_insert(0) += 1;
    }
    // 100 are expected of each; fewer than 50 happen once in 10^10 runs.
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| *count >= 50), "{counts:?}");
}

#[tokio::test]
async fn the_client_keeps_seeing_the_service_address_and_the_server_the_clients() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:8080")).await.unwrap();
    network.upsert_service("default/web", vec![ServicePort::new(at("10.96.0.9:80"), vec![at("10.244.0.3:8080")])]);
    let outgoing = client.connect(at("10.96.0.9:80")).await.unwrap();
    assert_eq!(outgoing.peer_addr(), at("10.96.0.9:80"));
    assert_eq!(meshlab_net::Listener::accept(&mut listener).await.unwrap().peer_addr(), outgoing.local_addr());
}

#[tokio::test]
async fn no_endpoint_and_no_such_port_are_refused_and_a_removed_service_is_unreachable() {
    let network = network();
    let client = pod(&network, "10.244.0.2", "client");
    let fail = async |address| who(&client, address).await.unwrap_err().kind();
    network.upsert_service("default/web", vec![ServicePort::new(at("10.96.0.9:80"), Vec::new())]);
    assert_eq!(fail("10.96.0.9:80").await, ErrorKind::ConnectionRefused);
    assert_eq!(fail("10.96.0.9:81").await, ErrorKind::ConnectionRefused);
    network.remove_service("default/web");
    assert_eq!(fail("10.96.0.9:80").await, ErrorKind::HostUnreachable);
}

#[tokio::test]
async fn a_new_state_of_a_service_replaces_the_old_one() {
    let network = network();
    let client = pod(&network, "10.244.0.2", "client");
    echo(&pod(&network, "10.244.0.3", "a"), "0.0.0.0:8080", "a").await;
    echo(&pod(&network, "10.244.0.4", "b"), "0.0.0.0:8080", "b").await;
    let old = vec![
        ServicePort::new(at("10.96.0.9:80"), vec![at("10.244.0.3:8080")]),
        ServicePort::new(at("10.96.0.9:81"), vec![at("10.244.0.3:8080")]),
    ];
    network.upsert_service("default/web", old);
    assert_eq!(who(&client, "10.96.0.9:81").await.unwrap(), "a");
    network.upsert_service("default/web", vec![ServicePort::new(at("10.96.0.9:80"), vec![at("10.244.0.4:8080")])]);
    assert_eq!(who(&client, "10.96.0.9:80").await.unwrap(), "b");
    assert_eq!(who(&client, "10.96.0.9:81").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn client_ip_affinity_keeps_an_endpoint_while_it_is_ready() {
    let network = network();
    let client = pod(&network, "10.244.0.2", "client");
    let endpoints: Vec<_> = (3..13).map(|last| at(&format!("10.244.0.{last}:8080"))).collect();
    for endpoint in &endpoints {
        let name: &'static str = Box::leak(endpoint.ip().to_string().into_boxed_str());
        echo(&pod(&network, name, name), "0.0.0.0:8080", name).await;
    }
    let port = |endpoints: &[_]| ServicePort {
        affinity: Some(Duration::from_secs(10_800)),
        ..ServicePort::new(at("10.96.0.9:80"), endpoints.to_vec())
    };
    network.upsert_service("default/web", vec![port(&endpoints)]);
    let first = who(&client, "10.96.0.9:80").await.unwrap();
    for _ in 0..20 {
        assert_eq!(who(&client, "10.96.0.9:80").await.unwrap(), first);
    }
    // An update that keeps the endpoint keeps the choice; one that drops it does not.
    network.upsert_service("default/web", vec![port(&endpoints)]);
    assert_eq!(who(&client, "10.96.0.9:80").await.unwrap(), first);
    let others: Vec<_> = endpoints.iter().copied().filter(|endpoint| endpoint.ip() != ip(&first)).collect();
    network.upsert_service("default/web", vec![port(&others)]);
    assert_ne!(who(&client, "10.96.0.9:80").await.unwrap(), first);
}

#[tokio::test]
async fn servers_outside_the_cluster_can_be_attached() {
    let network = network();
    let client = pod(&network, "10.244.0.2", "client");
    let outside = network.attach(ip("203.0.113.10"), HostOptions::external("api.example.com")).unwrap();
    echo(&outside, "0.0.0.0:443", "outside").await;
    assert_eq!(who(&client, "203.0.113.10:443").await.unwrap(), "outside");
}
