//! Sessions with clients that speak the protocols frame by frame.

mod port_forward;
mod remote_command;
mod spdy_client;
mod websocket_client;

use std::time::Duration;

use http::Request;

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

fn spdy_request(protocol: &str) -> Request<()> {
    let request = Request::post("/x").header("Connection", "Upgrade").header("Upgrade", "SPDY/3.1");
    request.header("X-Stream-Protocol-Version", protocol).body(()).unwrap()
}

fn websocket_request(uri: &str, protocol: &str) -> Request<()> {
    let request = Request::get(uri).header("Connection", "Upgrade").header("Upgrade", "websocket");
    let request = request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    request.header("Sec-WebSocket-Protocol", protocol).body(()).unwrap()
}
