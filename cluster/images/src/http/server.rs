//! Serving HTTP/1.1 and cleartext HTTP/2 on a pod's port.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use meshlab_net::{Listener, Net, Stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Body;

/// Connections that one port serves at a time; more wait in the listen queue.
pub(crate) const MAX_CONNECTIONS: usize = 1024;

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// The two ends of the connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request<Incoming>, ends: Ends) -> impl Future<Output = Response<Body>> + Send;
}

/// Serves until `stop`, then finishes the requests under way and returns.
pub(crate) async fn serve<L: Listener>(mut listener: L, handler: Arc<impl Handler>, stop: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).title_case_headers(true);
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        // The pod's network is gone.
        let Ok(stream) = accepted else { break };
        let ends = Ends { peer: stream.peer_addr(), local: stream.local_addr() };
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let handler = handler.clone();
            async move { Ok::<_, std::convert::Infallible>(handler.handle(request, ends).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(err) = connection.await {
                tracing::debug!(%err, "connection ended");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Binds a port on all of the pod's addresses.
pub(crate) async fn listen<N: Net>(net: &N, port: u16) -> std::io::Result<N::Listener> {
    net.listen(SocketAddr::from(([0, 0, 0, 0], port))).await
}
