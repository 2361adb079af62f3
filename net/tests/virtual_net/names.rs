//! Names.

use std::io::ErrorKind;
use std::net::IpAddr;

use meshlab_net::{Egress, HostOptions, Net, PodNet, Record, VirtualNet, VirtualNetOptions};

use crate::fixture::{ip, network, pod};

async fn one(net: &PodNet, name: &str) -> IpAddr {
    let addresses = net.resolve(name).await.unwrap();
    assert_eq!(addresses.len(), 1, "{name}: {addresses:?}");
    addresses[0]
}

#[tokio::test]
async fn a_service_has_every_name_that_kubernetes_gives_it() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "client");
    network.upsert_record("web.default.svc.cluster.local", Record::Addresses(vec![ip("10.96.0.9")]));
    network.upsert_record("web.other.svc.cluster.local.", Record::Addresses(vec![ip("10.96.0.10")]));
    for name in
        ["web", "WEB", "web.default", "web.default.svc", "web.default.svc.cluster.local", "web.default.svc.cluster.local."]
    {
        assert_eq!(one(&net, name).await, ip("10.96.0.9"), "{name}");
    }
    for name in ["web.other", "web.other.svc", "web.other.svc.cluster.local"] {
        assert_eq!(one(&net, name).await, ip("10.96.0.10"), "{name}");
    }
    // A final dot means: this name and no other.
    for absent in ["web.", "web.default.", "nothing", "web.third"] {
        let error = net.resolve(absent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{absent}");
        assert_eq!(error.to_string(), format!("no such host: {absent}"));
    }
    assert_eq!(net.lookup("web").await.unwrap().name, "web.default.svc.cluster.local");
}

#[tokio::test]
async fn a_name_in_the_own_namespace_hides_one_of_the_same_form_outside() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "client");
    network.upsert_record("api.example.com", Record::Addresses(vec![ip("203.0.113.10")]));
    assert_eq!(one(&net, "api.example.com").await, ip("203.0.113.10"));
    network.upsert_record("api.example.com.default.svc.cluster.local", Record::Addresses(vec![ip("10.96.0.9")]));
    assert_eq!(one(&net, "api.example.com").await, ip("10.96.0.9"), "two dots are fewer than ndots:5");
    assert_eq!(one(&network.host(), "api.example.com").await, ip("203.0.113.10"), "the node has no search domains");
}

#[tokio::test]
async fn a_headless_service_answers_with_its_pods_and_may_have_none() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "client");
    network.upsert_record("db.default.svc.cluster.local", Record::Addresses(vec![ip("10.244.0.3"), ip("10.244.0.4")]));
    let mut addresses = net.resolve("db").await.unwrap();
    addresses.sort();
    assert_eq!(addresses, vec![ip("10.244.0.3"), ip("10.244.0.4")]);
    network.upsert_record("db.default.svc.cluster.local", Record::Addresses(Vec::new()));
    assert_eq!(net.resolve("db").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(net.lookup("db").await.unwrap().addresses.is_empty());
}

#[tokio::test]
async fn external_names_are_followed() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "client");
    network.upsert_record("api.default.svc.cluster.local", Record::Cname("alias.example.com".into()));
    network.upsert_record("alias.example.com", Record::Cname("api.example.com.".into()));
    let error = net.resolve("api").await.unwrap_err();
    insta::assert_snapshot!(error, @"no such host: api (an alias of api.example.com)");
    network.upsert_record("api.example.com", Record::Addresses(vec![ip("203.0.113.10")]));
    let lookup = net.lookup("api").await.unwrap();
    assert_eq!((lookup.name.as_str(), lookup.addresses), ("api.example.com", vec![ip("203.0.113.10")]));
    network.upsert_record("api.example.com", Record::Cname("api.default.svc.cluster.local".into()));
    assert_eq!(net.resolve("api").await.unwrap_err().kind(), ErrorKind::NotFound, "a circle ends");
    network.remove_record("api.default.svc.cluster.local");
    assert_eq!(net.resolve("api").await.unwrap_err().to_string(), "no such host: api");
}

#[tokio::test]
async fn a_host_knows_itself_and_its_aliases() {
    let network = network();
    let aliases = vec![("legacy.example.com".to_owned(), ip("10.1.2.3"))];
    let options = HostOptions { aliases, ..HostOptions::pod("web-0", "default", "cluster.local") };
    let net = network.attach(ip("10.244.0.2"), options).unwrap();
    assert_eq!(one(&net, "web-0").await, ip("10.244.0.2"));
    assert_eq!(one(&net, "localhost").await, ip("127.0.0.1"));
    assert_eq!(one(&net, "legacy.example.com").await, ip("10.1.2.3"));
    assert_eq!(one(&net, "203.0.113.7").await, ip("203.0.113.7"));
    assert_eq!(one(&net, "[2001:db8::1]").await, ip("2001:db8::1"));
}

#[tokio::test]
async fn with_a_way_out_the_operating_system_is_asked_last() {
    let network = VirtualNet::new(VirtualNetOptions { egress: Egress::Os, ..VirtualNetOptions::default() });
    let net = pod(&network, "10.244.0.2", "client");
    network.upsert_record("web.default.svc.cluster.local", Record::Addresses(vec![ip("10.96.0.9")]));
    assert_eq!(one(&net, "web").await, ip("10.96.0.9"));
    // Reserved never to exist, RFC 2606.
    assert!(net.resolve("nothing.invalid").await.is_err());
    let internal = net.connect("10.96.9.9:80".parse().unwrap()).await.unwrap_err();
    assert_eq!(internal.kind(), ErrorKind::HostUnreachable, "the cluster's own addresses never leave it");
}
