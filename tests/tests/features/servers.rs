//! Servers outside the cluster: with TLS, over WebSocket, an authorizer that speaks gRPC, keys to fetch.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_net::{HostOptions, Listener, Net, Record, VirtualNet};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The key that tokens are signed with, which `keys.example.com` tells.
pub(crate) const TOKEN_SECRET: &[u8] = b"a secret that only this test has, and long enough for it";

/// What the tests need of the servers: certificates by one authority.
pub(crate) struct Servers {
    authority: Authority,
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// PEM of a certificate and its key.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    fn issue(&self, name: &str) -> Result<Pair> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.0)?.pem(), key: key.serialize_pem() })
    }

    fn server(&self, name: &str, mutual: bool) -> Result<Arc<rustls::ServerConfig>> {
        let pair = self.issue(name)?;
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let config = if mutual {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.0.pem().as_bytes())?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?;
            builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)?
        } else {
            builder.with_no_client_auth().with_single_cert(chain, key)?
        };
        Ok(Arc::new(config))
    }
}

impl Servers {
    pub(crate) async fn start(net: &VirtualNet) -> Result<Self> {
        let authority = Authority::new()?;
        for (name, last) in [("near", 20), ("far", 21), ("none", 22), ("dns", 23)] {
            http(net, name, last).await?;
        }
        for (name, last, mutual) in [("a.tls", 30, false), ("b.tls", 31, false), ("mutual.tls", 32, true)] {
            tls(net, name, last, authority.server(&format!("{name}.example.com"), mutual)?).await?;
        }
        web_socket(net, "ws", 40).await?;
        authorizer(net, "authz", 41).await?;
        keys(net, "keys", 42).await?;
        Ok(Self { authority })
    }

    /// Secrets of the gateway, of clients and of sidecars.
    pub(crate) fn secrets(&self) -> String {
        let ca = self.authority.0.pem();
        let secret = |namespace: &str, name: &str, host: &str| {
            let pair = self.authority.issue(host).unwrap_or(Pair { certificate: String::new(), key: String::new() });
            let data = serde_json::json!({ "tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": ca });
            serde_json::json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace }, "stringData": data,
            })
            .to_string()
        };
        [
            secret("istio-system", "shop", "shop.example.com"),
            secret("istio-system", "closed", "closed.example.com"),
            secret("plain", "client-tls", "client.example.com"),
            secret("feat", "client-tls", "client.example.com"),
        ]
        .join("\n---\n")
    }
}

type Host = <meshlab_net::PodNet as Net>::Listener;

/// A listener of a host outside, which is called `<name>.example.com`.
async fn listen(net: &VirtualNet, name: &str, last: u8, port: u16) -> Result<Host> {
    let address = IpAddr::V4(Ipv4Addr::new(203, 0, 113, last));
    let name = format!("{name}.example.com");
    let host = net.attach(address, HostOptions::external(&name)).with_context(|| name.clone())?;
    net.upsert_record(&name, Record::Addresses(vec![address]));
    Ok(host.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?)
}

async fn say<S>(stream: S, text: String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let text = format!("{text} was asked {} {:?}\n", request.uri().path(), request.headers());
        async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text)))) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn http(net: &VirtualNet, name: &str, last: u8) -> Result<()> {
    let mut listener = listen(net, name, last, 80).await?;
    let name = name.to_owned();
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            tokio::spawn(say(stream, format!("server {name}")));
        }
    });
    Ok(())
}

async fn tls(net: &VirtualNet, name: &str, last: u8, config: Arc<rustls::ServerConfig>) -> Result<()> {
    let mut listener = listen(net, name, last, 443).await?;
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let name = name.to_owned();
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let (acceptor, name) = (acceptor.clone(), name.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let session = stream.get_ref().1;
                let known = if session.peer_certificates().is_some() { "with" } else { "without" };
                let text = format!("server {name} for {:?} {known} a certificate", session.server_name().unwrap_or_default());
                say(stream, text).await;
            });
        }
    });
    Ok(())
}

/// Upgrades, and then echoes.
async fn web_socket(net: &VirtualNet, name: &str, last: u8) -> Result<()> {
    let mut listener = listen(net, name, last, 80).await?;
    tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
                let _ = stream.write_all(answer).await;
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Ok(())
}

/// Allows what has `x-pass: yes` (`envoy.service.auth.v3.Authorization/Check`).
async fn authorizer(net: &VirtualNet, name: &str, last: u8) -> Result<()> {
    let mut listener = listen(net, name, last, 9000).await?;
    let service = service_fn(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let passes = body.windows(6).any(|bytes| bytes == b"x-pass");
        // CheckResponse{status{code: 0}} or {status{code: 7}, denied_response{status{code: 418}, body: "asked by gRPC"}}.
        let message: &[u8] =
            if passes { &[0x0a, 0] } else { b"\x0a\x02\x08\x07\x12\x14\x0a\x03\x08\xa2\x03\x1a\x0dasked by gRPC" };
        let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap_or(0)][..], message].concat();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)].map(Ok::<_, std::io::Error>);
        let body = StreamBody::new(futures::stream::iter(frames));
        Response::builder().header("content-type", "application/grpc").body(body)
    });
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(())
}

/// The keys that tokens are checked with.
async fn keys(net: &VirtualNet, name: &str, last: u8) -> Result<()> {
    let mut listener = listen(net, name, last, 80).await?;
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let service =
                service_fn(|_| async { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(key_set())))) });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(())
}

/// A JSON Web Key Set.
pub(crate) fn key_set() -> String {
    use base64::Engine;
    let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(TOKEN_SECRET);
    serde_json::json!({ "keys": [{ "kty": "oct", "kid": "k", "alg": "HS256", "k": key }] }).to_string()
}

/// A token of `https://issuer.example` for somebody in these groups.
pub(crate) fn token(subject: &str, groups: &[&str]) -> Result<String> {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("k".into());
    let claims = serde_json::json!({
        "iss": "https://issuer.example", "sub": subject, "groups": groups, "exp": 4_102_444_800_u64,
    });
    Ok(jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET))?)
}
