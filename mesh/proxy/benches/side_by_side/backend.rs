//! The backend: answers every request with 1 KiB, as cheaply as can be.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Serves until it is killed.
pub(crate) fn serve(port: u16) {
    let answer: &'static [u8] = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\nx-powered-by: benchmark\r\n\r\n{}",
        "x".repeat(1024)
    )
    .into_bytes()
    .leak();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.expect("the port is free");
        loop {
            let (mut stream, _) = listener.accept().await.expect("connections");
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let mut seen = Vec::with_capacity(4096);
                while let Ok(1..) = stream.read_buf(&mut seen).await {
                    // Requests have no body, and the next one waits for the answer.
                    if seen.ends_with(b"\r\n\r\n") {
                        seen.clear();
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}
