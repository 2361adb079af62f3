//! Upgraded connections of exec and port-forward, to which a client sends whatever it likes and then hangs up.

use std::cell::RefCell;

use http::Request;
use meshlab_streams::{PortForwardUpgrade, ProcessStreams, RemoteCommandUpgrade, WantedStreams};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime"));
}

fn request(protocol: &str, version: &str, query: &str) -> Request<()> {
    let request = Request::get(format!("/?{query}")).header("connection", "Upgrade");
    let request = if protocol == "SPDY/3.1" {
        request.header("upgrade", protocol).header("x-stream-protocol-version", version)
    } else {
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if version.is_empty() { request } else { request.header("sec-websocket-protocol", version) }
    };
    request.body(()).expect("a request")
}

async fn client(bytes: &[u8]) -> DuplexStream {
    let (mut client, server) = tokio::io::duplex(bytes.len().max(1));
    client.write_all(bytes).await.expect("the pipe has room");
    server
}

/// Serves exec until the client's bytes are used up, with a process that reads everything: input and sizes of the terminal.
fn exec(protocol: &str, version: &str, bytes: &[u8]) {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let upgrade = RemoteCommandUpgrade::negotiate(&request(protocol, version, "")).expect("the request is good");
            let wanted = WantedStreams { stdin: true, stdout: true, stderr: false, tty: true };
            let Ok(session) = upgrade.start(client(bytes).await, wanted).await else { return };
            let (resize, mut sizes) = mpsc::channel(1);
            tokio::spawn(async move { while sizes.recv().await.is_some() {} });
            let process =
                ProcessStreams { stdin: Some(Box::new(tokio::io::sink())), resize: Some(resize), ..ProcessStreams::default() };
            // The process never ends by itself, so the client's end of file is what ends the session.
            let _ = session.run(process, std::future::pending()).await;
        });
    });
}

/// Serves port-forward until the client's bytes are used up.
fn port_forward(protocol: &str, version: &str, bytes: &[u8]) {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let upgrade = PortForwardUpgrade::negotiate(&request(protocol, version, "ports=80")).expect("the request is good");
            let mut forward = upgrade.start(client(bytes).await).await;
            while forward.accept().await.is_some() {}
        });
    });
}

/// A SPDY/3.1 connection: frames, and the header blocks in them.
pub(crate) fn spdy(bytes: &[u8]) {
    let _ = meshlab_streams::spdy::decode_all(bytes);
}

/// A SPDY/3.1 connection as port-forward and exec serve it.
pub(crate) fn spdy_session(bytes: &[u8]) {
    port_forward("SPDY/3.1", "portforward.k8s.io", bytes);
    exec("SPDY/3.1", "v4.channel.k8s.io", bytes);
}

/// A WebSocket connection as exec and port-forward serve it, and SPDY in its frames.
pub(crate) fn websocket(bytes: &[u8]) {
    exec("websocket", "v5.channel.k8s.io", bytes);
    exec("websocket", "base64.channel.k8s.io", bytes);
    port_forward("websocket", "", bytes);
    port_forward("websocket", "SPDY/3.1+portforward.k8s.io", bytes);
}
