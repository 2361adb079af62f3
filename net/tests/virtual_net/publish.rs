//! Doors from the machine into the network.

use meshlab_net::{Listener, Net, ServicePort, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{at, echo, ip, network, pod};

#[tokio::test]
async fn a_published_service_is_reached_from_the_machine() {
    let network = network();
    echo(&pod(&network, "10.244.0.3", "web"), "0.0.0.0:8080", "web: ").await;
    network.upsert_service("default/web", vec![ServicePort::new(at("10.96.0.9:80"), vec![at("10.244.0.3:8080")])]);
    let door = network.publish(0, at("10.96.0.9:80")).await.unwrap();
    assert!(door.address().ip().is_loopback() && door.is_wanted_port());
    let mut client = TcpStream::connect(door.address()).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "web: hello");
}

#[tokio::test]
async fn a_taken_port_is_exchanged_for_a_free_one() {
    let network = network();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let door = network.publish(port, at("10.96.0.9:80")).await.unwrap();
    assert_ne!(door.address().port(), port);
    assert!(!door.is_wanted_port());
}

#[tokio::test]
async fn connections_come_from_the_node_and_the_door_closes() {
    let network = network();
    let net = pod(&network, "10.244.0.3", "web");
    let mut listener = net.listen(at("0.0.0.0:8080")).await.unwrap();
    let door = network.publish(0, at("10.244.0.3:8080")).await.unwrap();
    let mut client = TcpStream::connect(door.address()).await.unwrap();
    let mut server = listener.accept().await.unwrap();
    assert_eq!(server.peer_addr().ip(), ip("10.244.0.1"));
    let address = door.address();
    drop(door);
    // The acceptor ends at its next turn.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x', "open connections live on");
}

#[tokio::test]
async fn a_target_that_does_not_answer_resets_the_client() {
    let network = network();
    let door = network.publish(0, at("10.96.0.9:80")).await.unwrap();
    let mut client = TcpStream::connect(door.address()).await.unwrap();
    assert!(client.read_u8().await.is_err());
}
