//! Links in a bad condition.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use meshlab_net::{Link, LinkCondition, Listener, Net, PodNet, VirtualNet, VirtualStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::fixture::{SOON, at, echo, ip, network, pod, who};

/// Long enough for a task that could run to have run.
const MOMENT: Duration = Duration::from_millis(30);

struct Pair {
    network: VirtualNet,
    client: PodNet,
    outgoing: VirtualStream,
    incoming: VirtualStream,
    link: Link,
}

async fn pair() -> Pair {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    let incoming = listener.accept().await.unwrap();
    drop(listener);
    echo(&server, "0.0.0.0:80", "server").await;
    Pair { network, client, outgoing, incoming, link: Link::Between(ip("10.244.0.3"), ip("10.244.0.2")) }
}

#[tokio::test]
async fn latency_delays_every_byte_and_takes_a_round_trip_to_connect() {
    let mut pair = pair().await;
    let delay = Duration::from_millis(40);
    let id = pair.network.add_condition(pair.link, LinkCondition::Latency { delay, jitter: Duration::ZERO });

    let started = Instant::now();
    pair.outgoing.write_all(b"late").await.unwrap();
    assert!(started.elapsed() < delay, "writing does not wait");
    pair.incoming.read_exact(&mut [0; 4]).await.unwrap();
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());

    let started = Instant::now();
    assert_eq!(who(&pair.client, "10.244.0.3:80").await.unwrap(), "server");
    // A round trip to connect, the way there for the end of the request, and back for that of the answer.
    assert!(started.elapsed() >= delay * 4, "{:?}", started.elapsed());

    assert!(pair.network.remove_condition(id));
    assert!(!pair.network.remove_condition(id));
    let started = Instant::now();
    pair.outgoing.write_all(b"now").await.unwrap();
    pair.incoming.read_exact(&mut [0; 3]).await.unwrap();
    assert!(started.elapsed() < delay, "{:?}", started.elapsed());
}

#[tokio::test]
async fn jitter_never_reorders() {
    let mut pair = pair().await;
    let condition = LinkCondition::Latency { delay: Duration::ZERO, jitter: Duration::from_millis(4) };
    pair.network.add_condition(Link::All, condition);
    let sent: Vec<u8> = (0..=255).collect();
    for byte in &sent {
        pair.outgoing.write_all(&[*byte]).await.unwrap();
    }
    pair.outgoing.shutdown().await.unwrap();
    let mut received = Vec::new();
    pair.incoming.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_cut_link_stalls_and_goes_on_when_mended() {
    let mut pair = pair().await;
    let id = pair.network.add_condition(pair.link, LinkCondition::Cut);
    pair.outgoing.write_all(b"held up").await.unwrap();
    let mut received = [0; 7];
    assert!(timeout(MOMENT, pair.incoming.read_exact(&mut received)).await.is_err());
    let client = pair.client.clone();
    let connecting = tokio::spawn(async move { who(&client, "10.244.0.3:80").await });
    assert!(timeout(MOMENT, pair.incoming.read_exact(&mut received)).await.is_err());
    assert!(!connecting.is_finished());

    pair.network.remove_condition(id);
    timeout(SOON, pair.incoming.read_exact(&mut received)).await.unwrap().unwrap();
    assert_eq!(&received, b"held up");
    assert_eq!(timeout(SOON, connecting).await.unwrap().unwrap().unwrap(), "server");
}

#[tokio::test]
async fn an_unreachable_host_is_said_to_be_so() {
    let mut pair = pair().await;
    pair.network.add_condition(Link::Of(ip("10.244.0.3")), LinkCondition::Unreachable);
    let error = pair.client.connect(at("10.244.0.3:80")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    pair.outgoing.write_all(b"x").await.unwrap();
    assert!(timeout(MOMENT, pair.incoming.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_resetting_link_kills_what_is_open_and_what_is_new() {
    let mut pair = pair().await;
    let id = pair.network.add_condition(pair.link, LinkCondition::Reset);
    for stream in [&mut pair.outgoing, &mut pair.incoming] {
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(who(&pair.client, "10.244.0.3:80").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    pair.network.remove_condition(id);
    assert_eq!(who(&pair.client, "10.244.0.3:80").await.unwrap(), "server");
}

#[tokio::test]
async fn an_absurd_latency_is_no_reason_to_panic() {
    let mut pair = pair().await;
    for _ in 0..2 {
        pair.network.add_condition(pair.link, LinkCondition::Latency { delay: Duration::MAX, jitter: Duration::MAX });
    }
    pair.outgoing.write_all(b"x").await.unwrap();
    assert!(timeout(MOMENT, pair.incoming.read_u8()).await.is_err());
    assert!(timeout(MOMENT, pair.client.connect(at("10.244.0.3:80"))).await.is_err());
}

#[tokio::test]
async fn other_links_and_the_pods_own_loopback_are_not_concerned() {
    let pair = pair().await;
    let other = pod(&pair.network, "10.244.0.4", "other");
    echo(&pair.client, "0.0.0.0:81", "client").await;
    pair.network.add_condition(pair.link, LinkCondition::Reset);
    assert_eq!(who(&other, "10.244.0.3:80").await.unwrap(), "server");
    assert_eq!(who(&pair.client, "10.244.0.2:81").await.unwrap(), "client");
    assert_eq!(pair.network.conditions().len(), 1);
}
