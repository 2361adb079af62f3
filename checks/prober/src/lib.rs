//! The prober: sends the requests of a check from where it stands, and says truthfully what became of each.
//!
//! It is a small HTTP server, `POST /probe` on port [`PORT`], generic over the network, so that the same code runs in a virtual
//! pod and in a container.

mod exchange;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meshlab_net::{Listener, Net};
use meshlab_probe_protocol::{MAX_COUNT, PORT, ProbeRequest, ProbeResponse};

pub use exchange::Sender;

/// The largest request body that is read.
const MAX_REQUEST: usize = 1024 * 1024;

/// The most requests under way at once.
const MAX_CONCURRENCY: u32 = 256;

/// Serves probes until the listener fails. Dropping the future ends it.
///
/// # Errors
/// The port cannot be listened on, or the host went away.
pub async fn serve<N: Net>(net: N) -> io::Result<()> {
    let mut listener = net.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).await?;
    let sender = Arc::new(Sender::new(net));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = listener.accept().await?;
        let sender = sender.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(sender.clone(), request));
            // A client that breaks off concerns nobody else.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer<N: Net>(sender: Arc<Sender<N>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::POST, "/probe") => match probe(&sender, request.into_body()).await {
            Ok(response) => (StatusCode::OK, serde_json::to_vec(&response).unwrap_or_default()),
            Err(problem) => (StatusCode::BAD_REQUEST, problem.into_bytes()),
        },
        (&Method::GET, "/healthz") => (StatusCode::OK, b"ok".to_vec()),
        _ => (StatusCode::NOT_FOUND, b"the prober answers POST /probe and GET /healthz".to_vec()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

async fn probe<N: Net>(sender: &Sender<N>, body: Incoming) -> Result<ProbeResponse, String> {
    let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(|error| error.to_string())?;
    let probe: ProbeRequest = serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())?;
    if !(1..=MAX_COUNT).contains(&probe.count) {
        return Err(format!("count {} is not between 1 and {MAX_COUNT}", probe.count));
    }
    let concurrency = probe.concurrency.clamp(1, MAX_CONCURRENCY) as usize;
    let outcomes = stream::iter(0..probe.count).map(|_| sender.send(&probe.request)).buffered(concurrency).collect().await;
    Ok(ProbeResponse { outcomes })
}
