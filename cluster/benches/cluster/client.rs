//! Clients over TLS: as little as there can be of them, for they share the machine with the server.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::config::Kubeconfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What a kubeconfig says.
#[derive(Clone)]
pub(crate) struct Access {
    address: SocketAddr,
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Access {
    pub(crate) fn new(kubeconfig: &str) -> Self {
        let kubeconfig = serde_json::to_value(Kubeconfig::from_yaml(kubeconfig).expect("a kubeconfig")).expect("JSON");
        let text = |path: &str| kubeconfig.pointer(path).and_then(Value::as_str).expect("what every kubeconfig has");
        let pem = |path| BASE64_STANDARD.decode(text(path)).expect("base64");
        let certificate = |path| CertificateDer::from_pem_slice(&pem(path)).expect("a certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate("/clusters/0/cluster/certificate-authority-data")).expect("an authority");
        let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")).expect("a key");
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate("/users/0/user/client-certificate-data")], key)
            .expect("an identity");
        let http1 = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let address = text("/clusters/0/cluster/server").trim_start_matches("https://");
        Self { address: address.parse().expect("an address"), http1, http2: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self, tls: &TlsConnector) -> TokioIo<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let name = ServerName::IpAddress(self.address.ip().into());
        TokioIo::new(tls.connect(name, stream).await.expect("TLS"))
    }

    /// A new connection with HTTP/1.1.
    pub(crate) async fn http1(&self) -> Http1 {
        let (sender, connection) = http1::handshake(self.connect(&self.http1).await).await.expect("HTTP/1.1");
        // What ends the connection early is seen by the request.
        tokio::spawn(async move { drop(connection.await) });
        Http1(sender)
    }

    /// A new connection with HTTP/2.
    pub(crate) async fn http2(&self) -> Http2 {
        let stream = self.connect(&self.http2).await;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        Http2(sender)
    }
}

/// What is asked for.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
    pub(crate) body: String,
}

impl<'a> Call<'a> {
    /// GET, answered in JSON.
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, accept: "application/json", body: String::new() }
    }

    /// POST of an object.
    pub(crate) fn post(path: &'a str, object: &Value) -> Self {
        Self { method: Method::POST, path, accept: "application/json", body: object.to_string() }
    }

    fn request(self, host: &str) -> Request<Full<Bytes>> {
        let request = Request::builder().method(self.method).uri(format!("{host}{}", self.path)).header("accept", self.accept);
        let request = request.header("content-type", "application/json").header("host", "localhost");
        request.body(Full::from(self.body)).expect("a request")
    }
}

/// A connection with HTTP/1.1.
pub(crate) struct Http1(http1::SendRequest<Full<Bytes>>);

/// A connection with HTTP/2; clones share it.
#[derive(Clone)]
pub(crate) struct Http2(http2::SendRequest<Full<Bytes>>);

impl Http1 {
    /// The answer's body as it comes in.
    pub(crate) async fn open(&mut self, call: Call<'_>) -> Incoming {
        self.0.ready().await.expect("the connection is kept");
        sound(self.0.send_request(call.request("")).await.expect("an answer")).await
    }

    /// The whole answer.
    pub(crate) async fn ask(&mut self, call: Call<'_>) -> Bytes {
        whole(self.open(call).await).await
    }
}

impl Http2 {
    /// The answer's body as it comes in.
    pub(crate) async fn open(&mut self, call: Call<'_>) -> Incoming {
        self.0.ready().await.expect("the connection is kept");
        sound(self.0.send_request(call.request("https://localhost")).await.expect("an answer")).await
    }

    /// The whole answer.
    pub(crate) async fn ask(&mut self, call: Call<'_>) -> Bytes {
        whole(self.open(call).await).await
    }
}

async fn sound(answer: http::Response<Incoming>) -> Incoming {
    let (parts, body) = answer.into_parts();
    if parts.status != StatusCode::OK && parts.status != StatusCode::CREATED {
        panic!("{}: {}", parts.status, String::from_utf8_lossy(&whole(body).await));
    }
    body
}

async fn whole(body: Incoming) -> Bytes {
    body.collect().await.expect("the whole answer").to_bytes()
}

/// A body line by line, as watches send it.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new() }
    }

    /// The next line.
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                return std::mem::replace(&mut self.buffer, rest);
            }
            let frame = self.body.frame().await.expect("the watch goes on").expect("a frame");
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
