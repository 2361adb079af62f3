//! Upgraded connections of exec and port-forward, to which a client sends whatever it likes and then hangs up.

use std::cell::RefCell;

use http::Request;
use meshlab_streams::{PortForwardUpgrade, RemoteCommandUpgrade, WantedStreams};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime"));
}

fn request(protocol: &str, query: &str) -> Request<()> {
    let request = Request::get(format!("/?{query}")).header("connection", "Upgrade");
    let request = if protocol == "SPDY/3.1" {
        request.header("upgrade", protocol).header("x-stream-protocol-version", "portforward.k8s.io")
    } else {
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if protocol == "websocket" { request } else { request.header("sec-websocket-protocol", protocol) }
    };
    request.body(()).expect("a request")
}

async fn client(bytes: &[u8]) -> DuplexStream {
    let (mut client, server) = tokio::io::duplex(bytes.len().max(1));
    client.write_all(bytes).await.expect("the pipe has room");
    server
}

/// Serves exec over WebSocket until the client's bytes are used up.
pub fn exec(protocol: &str, bytes: &[u8]) {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let upgrade = RemoteCommandUpgrade::negotiate(&request(protocol, "")).expect("the request is good");
            let wanted = WantedStreams { stdin: true, stdout: true, stderr: true, tty: false };
            drop(upgrade.start(client(bytes).await, wanted).await);
        });
    });
}

/// Serves port-forward until the client's bytes are used up.
pub fn port_forward(protocol: &str, bytes: &[u8]) {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let upgrade = PortForwardUpgrade::negotiate(&request(protocol, "ports=80")).expect("the request is good");
            let mut forward = upgrade.start(client(bytes).await).await;
            while forward.accept().await.is_some() {}
        });
    });
}
