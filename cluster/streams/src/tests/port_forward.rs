//! Port-forward.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::spdy_client::SpdyClient;
use super::websocket_client::WebSocketClient;
use super::{SOON, spdy_request, websocket_request};
use crate::spdy::Frame;
use crate::{BoxReader, BoxWriter, PortForward, PortForwardUpgrade};

/// A pod that says its port, then echoes; port 9 is closed.
async fn connect(port: u16) -> Result<(BoxReader, BoxWriter), String> {
    if port == 9 {
        return Err("connection refused".to_owned());
    }
    let (ours, theirs) = tokio::io::duplex(64);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(theirs);
        write.write_all(format!("{port}:").as_bytes()).await?;
        tokio::io::copy(&mut read, &mut write).await?;
        write.shutdown().await
    });
    let (read, write) = tokio::io::split(ours);
    Ok((Box::new(read), Box::new(write)))
}

async fn serve(forward: PortForward) {
    forward.run(connect).await;
}

async fn two_connections_over_spdy<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(client: &mut SpdyClient<IO>) {
    for (error, data, id, port) in [(1, 3, "0", "80"), (5, 7, "1", "8080")] {
        client.open(error, &[("streamtype", "error"), ("port", port), ("requestid", id)]).await;
        client.data(error, b"", true).await;
        client.open(data, &[("streamtype", "data"), ("port", port), ("requestid", id)]).await;
    }
    client.data(7, b"second", true).await;
    client.data(3, b"first", true).await;
    assert_eq!(client.until_end_of(7).await, "8080:second");
    assert_eq!(client.until_end_of(3).await, "80:first");
    assert_eq!(client.until_end_of(1).await, "");
    assert_eq!(client.until_end_of(5).await, "");
}

#[tokio::test]
async fn spdy_forwards_many_connections() {
    let (ours, theirs) = tokio::io::duplex(256);
    let upgrade = PortForwardUpgrade::negotiate(&spdy_request("portforward.k8s.io")).unwrap();
    let server = tokio::spawn(serve(upgrade.start(theirs).await));
    let mut client = SpdyClient::new(ours);
    two_connections_over_spdy(&mut client).await;
    drop(client);
    timeout(SOON, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn spdy_says_why_a_port_cannot_be_reached() {
    let (ours, theirs) = tokio::io::duplex(256);
    let upgrade = PortForwardUpgrade::negotiate(&spdy_request("portforward.k8s.io")).unwrap();
    tokio::spawn(serve(upgrade.start(theirs).await));
    let mut client = SpdyClient::new(ours);
    // As old clients do it, without a request id.
    client.open(1, &[("streamtype", "error"), ("port", "9")]).await;
    client.open(3, &[("streamtype", "data"), ("port", "9")]).await;
    assert_eq!(client.until_end_of(1).await, "connection refused");
    assert_eq!(client.until_end_of(3).await, "");
}

#[tokio::test]
async fn spdy_refuses_streams_it_cannot_place() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let upgrade = PortForwardUpgrade::negotiate(&spdy_request("portforward.k8s.io")).unwrap();
    tokio::spawn(serve(upgrade.start(theirs).await));
    let mut client = SpdyClient::new(ours);
    client.open(1, &[("streamtype", "data"), ("port", "0"), ("requestid", "0")]).await;
    client.open(3, &[("streamtype", "data"), ("requestid", "0")]).await;
    client.open(5, &[("streamtype", "tea"), ("port", "80"), ("requestid", "0")]).await;
    client.open(7, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]).await;
    client.open(9, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]).await;
    let mut refused = Vec::new();
    while refused.len() < 4 {
        if let Some(Frame::RstStream { stream, .. }) = client.next().await {
            refused.push(stream);
        }
    }
    assert_eq!(refused, [1, 3, 5, 9]);
}

/// Puts the bytes of a stream into WebSocket messages of at most seven bytes, and takes them out again.
async fn tunnel(io: DuplexStream) -> DuplexStream {
    let (inner, outer) = tokio::io::duplex(256);
    let (mut sink, mut stream) = WebSocketClient::new(io).await.0.split();
    let (mut read, mut write) = tokio::io::split(outer);
    tokio::spawn(async move {
        let mut piece = [0; 7];
        while let Ok(count @ 1..) = read.read(&mut piece).await {
            sink.send(Message::binary(piece[..count].to_vec())).await.unwrap();
        }
        let _ = sink.send(Message::Close(None)).await;
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Binary(bytes) = message
                && write.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
    });
    inner
}

#[tokio::test]
async fn spdy_goes_through_websocket_messages_cut_anywhere() {
    let (ours, theirs) = tokio::io::duplex(256);
    let request = websocket_request("/portforward", "SPDY/3.1+portforward.k8s.io");
    let upgrade = PortForwardUpgrade::negotiate(&request).unwrap();
    let server = tokio::spawn(serve(upgrade.start(theirs).await));
    let mut client = SpdyClient::new(tunnel(ours).await);
    two_connections_over_spdy(&mut client).await;
    drop(client);
    timeout(SOON, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn websocket_channels_begin_with_their_port() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let request = websocket_request("/portforward?ports=80,9", "v4.channel.k8s.io");
    let upgrade = PortForwardUpgrade::negotiate(&request).unwrap();
    let server = tokio::spawn(serve(upgrade.start(theirs).await));
    let mut client = WebSocketClient::new(ours).await;
    for (channel, port) in [(0, [80, 0]), (1, [80, 0]), (2, [9, 0]), (3, [9, 0])] {
        assert_eq!(client.next().await, Some((channel, port.to_vec())));
    }
    client.send(0, b"hello").await;
    let mut received: [Vec<u8>; 4] = Default::default();
    while received[0] != b"80:hello" || received[3] != b"connection refused" {
        let (channel, data) = client.next().await.unwrap();
        received[usize::from(channel)].extend(data);
    }
    assert!(received[1].is_empty() && received[2].is_empty());
    drop(client);
    timeout(SOON, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_websocket_is_closed_when_the_pod_has_closed_all_its_ports() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let request = websocket_request("/portforward?ports=9", "v4.channel.k8s.io");
    let upgrade = PortForwardUpgrade::negotiate(&request).unwrap();
    let server = tokio::spawn(serve(upgrade.start(theirs).await));
    let mut client = WebSocketClient::new(ours).await;
    let mut last = None;
    while let Some(message) = client.next().await {
        last = Some(message);
    }
    assert_eq!(last, Some((1, b"connection refused".to_vec())));
    drop(client);
    timeout(SOON, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_server_cuts_the_connection() {
    for (upgrade, ports) in [
        (PortForwardUpgrade::negotiate(&spdy_request("portforward.k8s.io")), 0),
        (PortForwardUpgrade::negotiate(&websocket_request("/p?ports=80", "v4.channel.k8s.io")), 1),
    ] {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        let mut forward = upgrade.unwrap().start(theirs).await;
        for _ in 0..ports {
            assert_eq!(forward.accept().await.unwrap().port, 80);
        }
        drop(forward);
        let mut rest = Vec::new();
        timeout(SOON, ours.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}
