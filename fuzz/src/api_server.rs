//! One API server in memory for all inputs, begun anew now and then, as what they create stays in it.

use std::cell::RefCell;

use http::{Method, Request};
use meshlab_apiserver::{ApiServer, ApiServerOptions, UserInfo};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use tokio::runtime::{Builder, Runtime};

/// After so many requests the server is replaced.
const REQUESTS: u32 = 5000;

struct Server {
    runtime: Runtime,
    client: kube::Client,
    _server: ApiServer,
    left: u32,
}

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(ApiServer::start(ApiServerOptions::new(VirtualNet::new(VirtualNetOptions::default()))));
        let server = server.expect("the server starts");
        let inside = runtime.enter();
        let client = server.client(UserInfo::admin());
        drop(inside);
        Self { runtime, client, _server: server, left: REQUESTS }
    }
}

/// Sends a request as the administrator: the code and message of its refusal, nothing if it was taken or is no request.
pub fn ask(method: &str, uri: &str, content_type: &str, body: &[u8]) -> Option<(u16, String)> {
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    // A watch has no end of its own.
    if uri.contains("watch") || uri.contains("follow") {
        return None;
    }
    let request = Request::builder().method(method).uri(uri).header("content-type", content_type).body(body.to_vec()).ok()?;
    SERVER.with_borrow_mut(|slot| {
        let server = slot.get_or_insert_with(Server::start);
        let client = server.client.clone();
        let answer = server.runtime.block_on(async move { client.request_text(request).await });
        server.left -= 1;
        if server.left == 0 {
            *slot = None;
        }
        match answer {
            Err(kube::Error::Api(status)) => Some((status.code, status.message.clone())),
            _ => None,
        }
    })
}
