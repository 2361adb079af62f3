//! Whole requests to an API server, which is in memory and begun anew now and then, as what they create stays in it. No answer is
//! a 500.

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, Method, Request};
use meshlab_apiserver::{ApiServer, ApiServerOptions, UserInfo};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use serde_json::json;
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

/// Sends a request as the administrator.
///
/// # Panics
/// The answer is a 500.
fn ask(request: Request<Vec<u8>>) {
    let asked = format!("{} {}", request.method(), request.uri());
    // These have no end of their own.
    if asked.contains("watch") || asked.contains("follow") {
        return;
    }
    SERVER.with_borrow_mut(|slot| {
        let server = slot.get_or_insert_with(Server::start);
        let client = server.client.clone();
        let answer = server.runtime.block_on(async move { client.request_text(request).await });
        server.left -= 1;
        if server.left == 0 {
            *slot = None;
        }
        if let Err(kube::Error::Api(status)) = answer {
            // This one 500 is Kubernetes' own: https://github.com/kubernetes/kubernetes/issues/122480
            let own = status.message.starts_with("failed to create typed patch object");
            assert!(status.code != 500 || own, "{asked}: {}", status.message);
        }
    });
}

/// The first line is `METHOD path?query content-type`, the rest the body.
pub(crate) fn request(input: &[u8]) {
    let Some((line, body)) = input.iter().position(|byte| *byte == b'\n').map(|end| (&input[..end], &input[end + 1..])) else {
        return;
    };
    let Ok(line) = std::str::from_utf8(line) else { return };
    let mut words = line.splitn(3, ' ');
    let (Some(method), Some(uri)) = (words.next(), words.next()) else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let request = Request::builder().method(method).uri(uri).header("content-type", words.next().unwrap_or_default());
    if let Ok(request) = request.body(body.to_vec()) {
        ask(request);
    }
}

/// The headers that the server looks at: one for each line, in this order.
pub(crate) fn headers(lines: &[u8]) {
    let names =
        ["accept", "content-type", "accept-encoding", "user-agent", "impersonate-user", "impersonate-group", "if-none-match"];
    for (method, uri) in [("GET", "/api/v1/namespaces"), ("POST", "/api/v1/namespaces?dryRun=All"), ("GET", "/openapi/v3/api/v1")]
    {
        let Ok(mut request) = Request::builder().method(method).uri(uri).body(br#"{"metadata":{"name":"a"}}"#.to_vec()) else {
            return;
        };
        for (name, line) in names.into_iter().zip(lines.split(|byte| *byte == b'\n')) {
            match HeaderValue::from_bytes(line) {
                Ok(value) if !line.is_empty() => drop(request.headers_mut().insert(HeaderName::from_static(name), value)),
                _ => {}
            }
        }
        ask(request);
    }
}

/// `continue` of a list, which a client hands back.
pub(crate) fn continue_token(token: &[u8]) {
    let token: String = token.iter().map(|byte| format!("%{byte:02X}")).collect();
    if let Ok(request) = Request::get(format!("/api/v1/configmaps?limit=1&continue={token}")).body(Vec::new()) {
        ask(request);
    }
}

/// A service account's token. Its sections in clear, one for each line, spare the fuzzer base64.
pub(crate) fn bearer_token(token: &str) {
    let readable = token.split('\n').map(|section| URL_SAFE_NO_PAD.encode(section)).collect::<Vec<_>>().join(".");
    for token in [token, &readable] {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews").header("content-type", "application/json");
        if let Ok(request) = request.body(review.to_string().into_bytes()) {
            ask(request);
        }
    }
}
