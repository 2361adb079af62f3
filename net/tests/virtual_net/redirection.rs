//! What a sidecar gets to see.

use meshlab_net::{Listener, Net, PodNet, Redirect, ServicePort, Stream, VirtualListener, VirtualStream};

use crate::fixture::{at, echo, ip, network, pod, who};

const SIDECAR: u32 = 1337;

/// A pod with a sidecar's listeners.
struct Meshed {
    app: PodNet,
    sidecar: PodNet,
    outbound: VirtualListener,
    inbound: VirtualListener,
}

async fn meshed(net: PodNet, rules: Redirect) -> Meshed {
    net.set_redirect(rules);
    let sidecar = net.with_uid(SIDECAR);
    let outbound = sidecar.listen(at("127.0.0.1:15001")).await.unwrap();
    let inbound = sidecar.listen(at("0.0.0.0:15006")).await.unwrap();
    Meshed { app: net.with_uid(1000), sidecar, outbound, inbound }
}

/// The ends of a connection to `address` that `listener` gets.
async fn caught(net: &PodNet, address: &str, listener: &mut VirtualListener) -> (VirtualStream, VirtualStream) {
    let client = net.connect(at(address)).await.unwrap();
    let server = listener.accept().await.unwrap();
    assert_eq!(client.peer_addr(), at(address), "the client must not notice");
    (client, server)
}

#[tokio::test]
async fn outbound_traffic_is_caught_before_the_service_is_resolved() {
    let network = network();
    let mut client = meshed(pod(&network, "10.244.0.2", "client"), Redirect::default()).await;
    let server = pod(&network, "10.244.0.3", "server");
    echo(&server, "0.0.0.0:8080", "server").await;
    network.upsert_service("default/web", vec![ServicePort::new(at("10.96.0.9:80"), vec![at("10.244.0.3:8080")])]);

    let (_, caught) = caught(&client.app, "10.96.0.9:80", &mut client.outbound).await;
    assert_eq!(caught.original_destination(), Some(at("10.96.0.9:80")));
    assert_eq!(caught.peer_addr().ip(), ip("10.244.0.2"));
    assert_eq!(caught.local_addr(), at("127.0.0.1:15001"));
    // The sidecar itself goes on to the service, or to a pod.
    assert_eq!(who(&client.sidecar, "10.96.0.9:80").await.unwrap(), "server");
    assert_eq!(who(&client.sidecar, "10.244.0.3:8080").await.unwrap(), "server");
}

#[tokio::test]
async fn even_what_does_not_exist_goes_to_the_sidecar() {
    let network = network();
    let mut client = meshed(pod(&network, "10.244.0.2", "client"), Redirect::default()).await;
    let (_, caught) = caught(&client.app, "203.0.113.9:443", &mut client.outbound).await;
    assert_eq!(caught.original_destination(), Some(at("203.0.113.9:443")));
}

#[tokio::test]
async fn inbound_traffic_is_caught_at_the_servers_pod() {
    let network = network();
    let client = pod(&network, "10.244.0.2", "client");
    let mut server = meshed(pod(&network, "10.244.0.3", "server"), Redirect::default()).await;
    network.upsert_service("default/web", vec![ServicePort::new(at("10.96.0.9:80"), vec![at("10.244.0.3:8080")])]);

    let (_, direct) = caught(&client, "10.244.0.3:8080", &mut server.inbound).await;
    assert_eq!(direct.original_destination(), Some(at("10.244.0.3:8080")));
    assert_eq!(direct.peer_addr().ip(), ip("10.244.0.2"));
    assert_eq!(direct.local_addr(), at("10.244.0.3:15006"));
    let (_, by_service) = caught(&client, "10.96.0.9:80", &mut server.inbound).await;
    assert_eq!(by_service.original_destination(), Some(at("10.244.0.3:8080")));
    let (_, from_node) = caught(&network.host(), "10.244.0.3:8080", &mut server.inbound).await;
    assert_eq!(from_node.peer_addr().ip(), ip("10.244.0.1"));
}

#[tokio::test]
async fn the_sidecars_own_ports_stay_open() {
    let network = network();
    let server = meshed(pod(&network, "10.244.0.3", "server"), Redirect::default()).await;
    for port in [15008, 15020, 15021, 15090] {
        let address = format!("0.0.0.0:{port}");
        echo(&server.sidecar, &address, "sidecar").await;
        assert_eq!(who(&network.host(), &format!("10.244.0.3:{port}")).await.unwrap(), "sidecar");
    }
}

#[tokio::test]
async fn the_sidecar_reaches_its_application() {
    let network = network();
    let mut server = meshed(pod(&network, "10.244.0.3", "server"), Redirect::default()).await;
    echo(&server.app, "0.0.0.0:8080", "app").await;
    let from_passthrough = server.sidecar.connect_from(ip("127.0.0.6"), at("10.244.0.3:8080")).await.unwrap();
    assert_eq!(from_passthrough.local_addr().ip(), ip("127.0.0.6"));
    assert_eq!(who(&server.sidecar, "127.0.0.1:8080").await.unwrap(), "app");
    assert_eq!(who(&server.app, "127.0.0.1:8080").await.unwrap(), "app");
    assert_eq!(who(&server.app, "10.244.0.3:8080").await.unwrap(), "app");
    // Its own pod chosen as a service's endpoint: the call comes in as any other would.
    let (_, hairpin) = caught(&server.sidecar, "10.244.0.3:8080", &mut server.inbound).await;
    assert_eq!(hairpin.original_destination(), Some(at("10.244.0.3:8080")));
}

#[tokio::test]
async fn annotations_leave_traffic_alone() {
    let network = network();
    let rules = Redirect {
        exclude_outbound_ip_ranges: Redirect::ip_ranges("10.244.0.3/32").unwrap(),
        exclude_inbound_ports: vec![9090],
        ..Redirect::default()
    };
    let client = meshed(pod(&network, "10.244.0.2", "client"), rules).await;
    let server = pod(&network, "10.244.0.3", "server");
    echo(&server, "0.0.0.0:80", "server").await;
    echo(&client.app, "0.0.0.0:9090", "client").await;
    assert_eq!(who(&client.app, "10.244.0.3:80").await.unwrap(), "server");
    assert_eq!(who(&server, "10.244.0.2:9090").await.unwrap(), "client");
}

#[tokio::test]
async fn without_a_sidecar_behind_the_rules_nothing_works() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    echo(&server, "0.0.0.0:80", "server").await;
    client.set_redirect(Redirect::default());
    let error = who(&client, "10.244.0.3:80").await.unwrap_err();
    insta::assert_snapshot!(error, @"connection refused: nobody listens on 127.0.0.1:15001");
    client.clear_redirect();
    assert_eq!(who(&client, "10.244.0.3:80").await.unwrap(), "server");
}
