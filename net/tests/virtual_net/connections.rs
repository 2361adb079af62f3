//! Connecting, and the bytes that flow.

use std::io::{ErrorKind, IoSlice};

use meshlab_net::{HostOptions, Listener, Net, Stream, VirtualNet, VirtualNetOptions};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::fixture::{SOON, at, echo, exchange, ip, network, pod, who};

#[tokio::test]
async fn a_server_sees_the_clients_own_address() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    let incoming = listener.accept().await.unwrap();
    assert_eq!(incoming.peer_addr(), outgoing.local_addr());
    assert_eq!(incoming.peer_addr().ip(), ip("10.244.0.2"));
    assert_eq!(incoming.local_addr(), at("10.244.0.3:80"));
    assert_eq!(outgoing.peer_addr(), at("10.244.0.3:80"));
    assert_eq!(incoming.original_destination(), None);
}

#[tokio::test]
async fn each_half_closes_by_itself() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    echo(&server, "0.0.0.0:80", "").await;
    let mut stream = client.connect(at("10.244.0.3:80")).await.unwrap();
    assert_eq!(exchange(&mut stream, b"still answered").await.unwrap(), b"still answered");
    assert_eq!(stream.write_all(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_large_transfer_needs_no_large_buffer() {
    let network = VirtualNet::new(VirtualNetOptions { buffer: 1000, ..VirtualNetOptions::default() });
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    echo(&server, "0.0.0.0:80", "").await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    let (mut read, mut write) = tokio::io::split(client.connect(at("10.244.0.3:80")).await.unwrap());
    let mut received = Vec::new();
    let upload = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    let (uploaded, downloaded) = tokio::join!(upload, read.read_to_end(&mut received));
    uploaded.unwrap();
    downloaded.unwrap();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_reader() {
    let network = VirtualNet::new(VirtualNetOptions { buffer: 10, ..VirtualNetOptions::default() });
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    let mut incoming = listener.accept().await.unwrap();
    assert_eq!(outgoing.write(&[1; 30]).await.unwrap(), 10);
    assert!(futures::poll!(std::pin::pin!(outgoing.write(&[2; 30]))).is_pending());
    incoming.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(outgoing.write(&[2; 30]).await.unwrap(), 4);
}

#[tokio::test]
async fn vectored_writes_arrive_in_order() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    assert!(tokio::io::AsyncWrite::is_write_vectored(&outgoing));
    let parts = [IoSlice::new(b"head, "), IoSlice::new(b""), IoSlice::new(b"body")];
    assert_eq!(outgoing.write_vectored(&parts).await.unwrap(), 10);
    drop(outgoing);
    let mut received = String::new();
    listener.accept().await.unwrap().read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "head, body");
}

#[tokio::test]
async fn a_reset_is_seen_at_the_other_end() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    outgoing.write_all(b"unread").await.unwrap();
    let mut incoming = listener.accept().await.unwrap();
    outgoing.reset();
    assert_eq!(incoming.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(incoming.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn closing_with_unread_bytes_is_a_reset_and_without_an_end_of_file() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    for (request, expected) in [(&b"request"[..], Err(ErrorKind::ConnectionReset)), (b"", Ok(()))] {
        let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
        outgoing.write_all(request).await.unwrap();
        let mut incoming = listener.accept().await.unwrap();
        incoming.write_all(b"answer").await.unwrap();
        drop(incoming);
        let mut answer = Vec::new();
        let end = outgoing.read_to_end(&mut answer).await;
        assert_eq!(answer, b"answer");
        assert_eq!(end.map(drop).map_err(|error| error.kind()), expected);
        assert_eq!(outgoing.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn nobody_listening_is_refused_and_nobody_there_is_unreachable() {
    let network = network();
    let client = pod(&network, "10.244.0.2", "client");
    pod(&network, "10.244.0.3", "server");
    let fail = async |address| client.connect(at(address)).await.unwrap_err();
    let refused = fail("10.244.0.3:80").await;
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    insta::assert_snapshot!(refused, @"connection refused: nobody listens on 10.244.0.3:80");
    let nobody = fail("10.244.9.9:80").await;
    assert_eq!(nobody.kind(), ErrorKind::HostUnreachable);
    insta::assert_snapshot!(nobody, @"no route to host: nobody has the address 10.244.9.9");
    let outside = fail("198.51.100.7:80").await;
    assert_eq!(outside.kind(), ErrorKind::HostUnreachable);
    insta::assert_snapshot!(outside, @"no route to host: 198.51.100.7 is outside the cluster, which has no way out to the Internet");
}

#[tokio::test]
async fn loopback_belongs_to_the_pod_and_all_its_containers() {
    let network = network();
    let (one, other) = (pod(&network, "10.244.0.2", "one"), pod(&network, "10.244.0.3", "other"));
    echo(&one, "127.0.0.1:9000", "one").await;
    echo(&other, "127.0.0.1:9000", "other").await;
    assert_eq!(who(&one.with_uid(7), "127.0.0.1:9000").await.unwrap(), "one");
    assert_eq!(who(&other, "127.0.0.1:9000").await.unwrap(), "other");
    // What listens on the loopback address only is not to be had from outside, nor at the pod's own address.
    for (net, address) in [(&other, "10.244.0.2:9000"), (&one, "10.244.0.2:9000")] {
        assert_eq!(who(net, address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn addresses_are_bound_as_a_kernel_does() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "pod");
    let any = net.listen(at("0.0.0.0:80")).await.unwrap();
    for taken in ["0.0.0.0:80", "127.0.0.1:80", "10.244.0.2:80", "[::]:80"] {
        assert_eq!(net.listen(at(taken)).await.unwrap_err().kind(), ErrorKind::AddrInUse, "{taken}");
    }
    drop(any);
    let loopback = net.listen(at("127.0.0.1:80")).await.unwrap();
    let own = net.listen(at("10.244.0.2:80")).await.unwrap();
    assert_eq!((loopback.local_addr(), own.local_addr()), (at("127.0.0.1:80"), at("10.244.0.2:80")));
    let foreign = net.listen(at("10.244.0.9:80")).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    insta::assert_snapshot!(foreign, @"cannot listen on 10.244.0.9: this host is 10.244.0.2");
    let (first, second) = (net.listen(at("0.0.0.0:0")).await.unwrap(), net.listen(at("0.0.0.0:0")).await.unwrap());
    assert_ne!(first.local_addr().port(), 0);
    assert_ne!(first.local_addr(), second.local_addr());
}

#[tokio::test]
async fn a_client_may_choose_among_its_own_addresses() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "pod");
    pod(&network, "10.244.0.3", "other");
    let mut listener = net.listen(at("0.0.0.0:80")).await.unwrap();
    net.connect_from(ip("127.0.0.6"), at("10.244.0.2:80")).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer_addr().ip(), ip("127.0.0.6"));
    let fail = async |source, address| net.connect_from(ip(source), at(address)).await.unwrap_err().kind();
    assert_eq!(fail("10.244.0.3", "10.244.0.2:80").await, ErrorKind::AddrNotAvailable);
    assert_eq!(fail("127.0.0.6", "10.244.0.3:80").await, ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_full_backlog_makes_clients_wait() {
    let network = VirtualNet::new(VirtualNetOptions { backlog: 1, ..VirtualNetOptions::default() });
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let _first = client.connect(at("10.244.0.3:80")).await.unwrap();
    let mut second = std::pin::pin!(client.connect(at("10.244.0.3:80")));
    assert!(futures::poll!(second.as_mut()).is_pending());
    listener.accept().await.unwrap();
    timeout(SOON, second).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_that_nobody_will_accept_are_reset() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let mut waiting = client.connect(at("10.244.0.3:80")).await.unwrap();
    drop(listener);
    assert_eq!(waiting.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.connect(at("10.244.0.3:80")).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_detached_pod_is_gone_at_once() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    let mut incoming = listener.accept().await.unwrap();
    assert!(network.detach(ip("10.244.0.3")));
    assert!(!network.detach(ip("10.244.0.3")));
    assert_eq!(outgoing.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(incoming.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(server.listen(at("0.0.0.0:81")).await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(server.connect(at("10.244.0.2:80")).await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(client.connect(at("10.244.0.3:80")).await.unwrap_err().kind(), ErrorKind::HostUnreachable);
    // The address is free again, and what is left of the old pod does not disturb the new one.
    let again = pod(&network, "10.244.0.3", "server-2");
    echo(&again, "0.0.0.0:80", "again").await;
    drop((listener, outgoing, incoming));
    assert_eq!(who(&client, "10.244.0.3:80").await.unwrap(), "again");
}

#[tokio::test]
async fn an_address_belongs_to_one_host() {
    let network = network();
    pod(&network, "10.244.0.2", "pod");
    let attach = |address| network.attach(ip(address), HostOptions::external("other")).unwrap_err().kind();
    assert_eq!(attach("10.244.0.2"), ErrorKind::AddrInUse);
    assert_eq!(attach("10.244.0.1"), ErrorKind::AddrInUse);
    assert_eq!(attach("127.0.0.1"), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn the_node_reaches_pods_and_pods_reach_the_node() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "pod");
    echo(&net, "0.0.0.0:8080", "pod").await;
    echo(&network.host(), "0.0.0.0:6443", "node").await;
    assert_eq!(who(&network.host(), "10.244.0.2:8080").await.unwrap(), "pod");
    assert_eq!(who(&net, "10.244.0.1:6443").await.unwrap(), "node");
    assert!(!network.detach(ip("10.244.0.1")));
}

#[tokio::test]
async fn two_networks_do_not_see_each_other() {
    let (here, there) = (network(), network());
    let (client, server) = (pod(&here, "10.244.0.2", "client"), pod(&there, "10.244.0.3", "server"));
    echo(&server, "0.0.0.0:80", "there").await;
    assert_eq!(who(&client, "10.244.0.3:80").await.unwrap_err().kind(), ErrorKind::HostUnreachable);
}

#[tokio::test]
async fn local_ports_are_not_handed_out_twice() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let mut open = Vec::new();
    let mut ports = std::collections::HashSet::new();
    for _ in 0..500 {
        let stream = client.connect(at("10.244.0.3:80")).await.unwrap();
        assert!(ports.insert(stream.local_addr()));
        open.push((stream, listener.accept().await.unwrap()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn bytes_arrive_whole_and_in_order(
        writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
        buffer in 1_usize..400,
        read_size in 1_usize..300,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sent, received) = runtime.block_on(async {
            let network = VirtualNet::new(VirtualNetOptions { buffer, ..VirtualNetOptions::default() });
            let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
            let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
            let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
            let mut incoming = listener.accept().await.unwrap();
            let sent: Vec<u8> = writes.concat();
            let writing = async move {
                for write in &writes {
                    outgoing.write_all(write).await.unwrap();
                }
            };
            let reading = async {
                let (mut received, mut piece) = (Vec::new(), vec![0; read_size]);
                loop {
                    match incoming.read(&mut piece).await.unwrap() {
                        0 => return received,
                        count => received.extend_from_slice(&piece[..count]),
                    }
                }
            };
            let ((), received) = tokio::join!(writing, reading);
            (sent, received)
        });
        prop_assert_eq!(received, sent);
    }
}
