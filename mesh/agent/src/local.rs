//! The commands that a shell in the container uses: `request` and `wait`, which talk to the ports of this pod.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use thiserror::Error;
use tokio::time::Instant;

/// The proxy's administration port.
const ADMIN: u16 = 15000;
/// How often readiness is asked for while it is waited for.
const PERIOD: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);

/// A command did not do what it should.
#[derive(Debug, Error)]
pub(crate) enum LocalError {
    #[error(
        "usage: pilot-agent request [--debug-port=15000] <method> <path>, for example: pilot-agent request GET stats/prometheus"
    )]
    Usage,
    #[error("unknown flag: {0}")]
    Flag(String),
    #[error("invalid argument {value:?} for {name}: want a number")]
    Number { name: String, value: String },
    #[error("no answer from port {port}: {reason}")]
    NoAnswer { port: u16, reason: String },
    #[error("{0}")]
    Status(StatusCode),
    #[error("timeout waiting for the proxy to become ready: {0}")]
    NotReady(String),
}

/// `request [--debug-port=N] METHOD PATH`: asks the proxy's administration port and returns what it says.
pub(crate) async fn request<N: Net>(net: &N, args: &[String]) -> Result<String, LocalError> {
    let mut port = ADMIN;
    let mut words = Vec::new();
    for arg in args {
        match arg.split_once('=') {
            Some(("--debug-port", value)) => {
                port = value.parse().map_err(|_| LocalError::Number { name: "--debug-port".into(), value: value.into() })?;
            }
            _ if arg.starts_with("--") => return Err(LocalError::Flag(arg.clone())),
            _ => words.push(arg.as_str()),
        }
    }
    let [method, path] = words.as_slice() else { return Err(LocalError::Usage) };
    let method = method.parse().map_err(|_| LocalError::Usage)?;
    let (status, body) = ask(net, port, method, path).await?;
    if status.is_success() { Ok(body) } else { Err(LocalError::Status(status)) }
}

/// `wait [--timeoutSeconds=60]`: returns when the proxy is ready.
pub(crate) async fn wait<N: Net>(net: &N, args: &[String]) -> Result<(), LocalError> {
    let mut patience = PATIENCE;
    for arg in args {
        match arg.split_once('=') {
            Some(("--timeoutSeconds", value)) => {
                let seconds =
                    value.parse().map_err(|_| LocalError::Number { name: "--timeoutSeconds".into(), value: value.into() })?;
                patience = Duration::from_secs(seconds);
            }
            Some(("--periodMillis" | "--requestTimeoutMillis" | "--url", _)) => {}
            _ => return Err(LocalError::Flag(arg.clone())),
        }
    }
    let deadline = Instant::now() + patience;
    loop {
        let lack = match ask(net, 15021, Method::GET, "/healthz/ready").await {
            Ok((StatusCode::OK, _)) => return Ok(()),
            Ok((_, lack)) => lack.trim().to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() + PERIOD > deadline {
            return Err(LocalError::NotReady(lack));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn ask<N: Net>(net: &N, port: u16, method: Method, path: &str) -> Result<(StatusCode, String), LocalError> {
    let failed = |reason: String| LocalError::NoAnswer { port, reason };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = net.connect(address).await.map_err(|error| failed(error.to_string()))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(error.to_string()))?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let request = Request::builder().method(method).uri(path).header(header::HOST, format!("localhost:{port}"));
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| LocalError::Usage)?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::pin!(exchange, connection);
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error),
        },
    };
    let (status, body) = answer.map_err(|error| failed(error.to_string()))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
