//! Recorded traffic, read back.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use meshlab_net::{CaptureOptions, Link, LinkCondition, Listener, Net, Redirect, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{at, echo, exchange, ip, network, pod, who};

/// A sink whose content can be looked at.
#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for File {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    flags: String,
    data: Vec<u8>,
}

impl File {
    /// Parses the file as strictly as Wireshark would, checksums included.
    fn packets(&self) -> Vec<Packet> {
        let file = self.0.lock().unwrap().clone();
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 101), "nanosecond pcap of raw IP");
        let mut packets = Vec::new();
        let (mut position, mut last) = (24, (0, 0));
        while position < file.len() {
            let (time, length) = ((word(position), word(position + 4)), word(position + 8) as usize);
            assert!(time >= last && time.1 < 1_000_000_000, "time goes forward");
            assert_eq!(length, word(position + 12) as usize);
            packets.push(parse(&file[position + 16..position + 16 + length]));
            (position, last) = (position + 16 + length, time);
        }
        packets
    }

    /// One line for each packet, with sequence numbers counted from the beginning of each direction.
    fn summary(&self) -> String {
        let mut first: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
        let lines = self.packets().into_iter().map(|packet| {
            let sequence = packet.sequence.wrapping_sub(*first.entry((packet.from, packet.to)).or_insert(packet.sequence));
            let acknowledged = match first.get(&(packet.to, packet.from)) {
                Some(first) if packet.flags.contains('A') => packet.acknowledged.wrapping_sub(*first).to_string(),
                _ => "-".to_owned(),
            };
            let direction = if packet.from.port() > packet.to.port() { "client" } else { "server" };
            let data = String::from_utf8_lossy(&packet.data).into_owned();
            format!("{direction} {} seq={sequence} ack={acknowledged} {data}", packet.flags).trim_end().to_owned() + "\n"
        });
        lines.collect()
    }
}

fn parse(packet: &[u8]) -> Packet {
    assert_eq!(packet[0], 0x45, "IPv4 without options");
    assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
    assert_eq!(packet[9], 6, "TCP");
    assert_eq!(sum(&packet[..20]), 0xffff, "IP checksum");
    let segment = &packet[20..];
    let mut pseudo = packet[12..20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
    pseudo.extend(segment);
    assert_eq!(sum(&pseudo), 0xffff, "TCP checksum");
    let address = |at: usize, port: usize| {
        let ip = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be_bytes([segment[port], segment[port + 1]])))
    };
    let names = [(0x02, 'S'), (0x10, 'A'), (0x08, 'P'), (0x01, 'F'), (0x04, 'R')];
    Packet {
        from: address(12, 0),
        to: address(16, 2),
        sequence: u32::from_be_bytes(segment[4..8].try_into().unwrap()),
        acknowledged: u32::from_be_bytes(segment[8..12].try_into().unwrap()),
        flags: names.iter().filter(|(bit, _)| segment[13] & bit != 0).map(|(_, name)| *name).collect(),
        data: segment[20..].to_vec(),
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[tokio::test]
async fn a_conversation_is_recorded_as_tcp() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let file = File::default();
    let capture = network.capture(CaptureOptions::link(Link::Of(ip("10.244.0.2"))), file.clone()).unwrap();

    let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    let mut incoming = listener.accept().await.unwrap();
    outgoing.write_all(b"GET /").await.unwrap();
    incoming.read_exact(&mut [0; 5]).await.unwrap();
    incoming.write_all(b"200 OK").await.unwrap();
    outgoing.read_exact(&mut [0; 6]).await.unwrap();
    outgoing.shutdown().await.unwrap();
    incoming.shutdown().await.unwrap();

    assert_eq!(capture.stop().unwrap(), 11);
    insta::assert_snapshot!(file.summary(), @r"
    client S seq=0 ack=-
    server SA seq=0 ack=1
    client A seq=1 ack=1
    client AP seq=1 ack=1 GET /
    server A seq=1 ack=6
    server AP seq=1 ack=6 200 OK
    client A seq=6 ack=7
    client AF seq=6 ack=7
    server A seq=7 ack=7
    server AF seq=7 ack=7
    client A seq=7 ack=8
    ");
    let packets = file.packets();
    assert_eq!((packets[0].from, packets[0].to), (outgoing.local_addr(), at("10.244.0.3:80")));
}

#[tokio::test]
async fn a_large_write_is_cut_into_segments_that_follow_each_other() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    echo(&server, "0.0.0.0:80", "").await;
    let file = File::default();
    let capture = network.capture(CaptureOptions::link(Link::All), file.clone()).unwrap();
    let sent: Vec<u8> = (0..10_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    let mut stream = client.connect(at("10.244.0.3:80")).await.unwrap();
    assert_eq!(exchange(&mut stream, &sent).await.unwrap(), sent);
    drop(stream);
    capture.flush().unwrap();
    for to in [at("10.244.0.3:80").ip(), ip("10.244.0.2")] {
        let (mut stream, mut next) = (Vec::new(), None);
        for packet in file.packets().into_iter().filter(|packet| packet.to.ip() == to) {
            assert!(packet.data.len() <= 1460);
            if packet.flags.contains('S') {
                next = Some(packet.sequence.wrapping_add(1));
            } else {
                assert_eq!(Some(packet.sequence), next, "no gap and no overlap");
                next = Some(packet.sequence.wrapping_add(u32::try_from(packet.data.len()).unwrap()));
                stream.extend(packet.data);
                if packet.flags.contains('F') {
                    next = next.map(|next| next.wrapping_add(1));
                }
            }
        }
        assert_eq!(stream, sent);
    }
}

#[tokio::test]
async fn refused_reset_and_cut_connections_look_like_it() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let file = File::default();
    let capture = network.capture(CaptureOptions::link(Link::All), file.clone()).unwrap();
    client.connect(at("10.244.0.3:80")).await.unwrap_err();
    capture.flush().unwrap();
    insta::assert_snapshot!(file.summary(), @r"
    client S seq=0 ack=-
    server AR seq=0 ack=1
    ");
    let id = network.add_condition(Link::All, LinkCondition::Unreachable);
    client.connect(at("10.244.0.3:80")).await.unwrap_err();
    network.remove_condition(id);
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    let _incoming = listener.accept().await.unwrap();
    outgoing.reset();
    assert_eq!(capture.stop().unwrap(), 7);
    let flags: Vec<String> = file.packets().into_iter().map(|packet| packet.flags).collect();
    assert_eq!(flags, ["S", "AR", "S", "S", "SA", "A", "AR"]);
}

#[tokio::test]
async fn loopback_is_recorded_only_when_asked_for() {
    let network = network();
    let net = pod(&network, "10.244.0.2", "client");
    net.set_redirect(Redirect::default());
    echo(&net.with_uid(1337), "0.0.0.0:15001", "sidecar").await;
    let (wire, everything) = (File::default(), File::default());
    let link = Link::Of(ip("10.244.0.2"));
    let on_wire = network.capture(CaptureOptions::link(link), wire.clone()).unwrap();
    let on_all = network.capture(CaptureOptions { link, loopback: true }, everything.clone()).unwrap();
    assert_eq!(who(&net, "10.96.0.9:80").await.unwrap(), "sidecar");
    assert_eq!(on_wire.stop().unwrap(), 0);
    assert!(on_all.stop().unwrap() > 0);
    assert_eq!(everything.packets()[0].to, at("127.0.0.1:15001"));
}

#[tokio::test]
async fn an_open_connection_is_recorded_from_where_it_is() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let mut outgoing = client.connect(at("10.244.0.3:80")).await.unwrap();
    let _incoming = listener.accept().await.unwrap();
    outgoing.write_all(b"before").await.unwrap();
    let file = File::default();
    let capture = network.capture(CaptureOptions::link(Link::All), file.clone()).unwrap();
    outgoing.write_all(b"during").await.unwrap();
    assert_eq!(capture.stop().unwrap(), 2);
    outgoing.write_all(b"after").await.unwrap();
    insta::assert_snapshot!(file.summary(), @r"
    client AP seq=0 ack=- during
    server A seq=0 ack=6
    ");
}

#[tokio::test]
async fn a_full_disk_ends_the_recording_and_not_the_traffic() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(data.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(data.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    echo(&server, "0.0.0.0:80", "server").await;
    let capture = network.capture(CaptureOptions::link(Link::All), Full(100)).unwrap();
    assert_eq!(who(&client, "10.244.0.3:80").await.unwrap(), "server");
    assert_eq!(capture.stop().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(who(&client, "10.244.0.3:80").await.unwrap(), "server");
}

/// Wireshark's command line is installed by `.ci/install-tools`.
#[tokio::test]
async fn wireshark_follows_the_stream_and_finds_nothing_to_complain_about() {
    let network = network();
    let (client, server) = (pod(&network, "10.244.0.2", "client"), pod(&network, "10.244.0.3", "server"));
    let mut listener = server.listen(at("0.0.0.0:80")).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture.pcap");
    let capture = network.capture(CaptureOptions::link(Link::All), std::fs::File::create(&path).unwrap()).unwrap();
    let body = "x".repeat(100_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let serve = async {
        let mut stream = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 37]).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let request = async {
        let mut stream = client.connect(at("10.244.0.3:80")).await.unwrap();
        exchange(&mut stream, b"GET /hello HTTP/1.1\r\nHost: server\r\n\r\n").await.unwrap()
    };
    let ((), received) = tokio::join!(serve, request);
    assert_eq!(received, answer.as_bytes());
    capture.stop().unwrap();

    let tshark = |arguments: &[&str]| {
        let checks = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-r"];
        let output = std::process::Command::new("tshark").args(checks).arg(&path).args(arguments).output();
        let output = output.expect("tshark is installed (.ci/install-tools does it)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(tshark(&["-Y", "tcp.analysis.flags || _ws.malformed || _ws.expert.severity >= 0x600000"]), "");
    let http = tshark(&["-Y", "http", "-T", "fields", "-e", "http.request.uri", "-e", "http.response.code"]);
    assert_eq!(http.split_whitespace().collect::<Vec<_>>(), ["/hello", "200"]);
}
