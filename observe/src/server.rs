//! The HTTP server that all of the crate's programs share: an axum router on a listener of any [`Net`].

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use meshlab_net::{Listener, Net};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// So many connections are served at a time; the next ones wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
/// A client that has not sent its request's head by then is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests under way get so long when the program ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// All addresses of this host, at `port`.
pub(crate) fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

/// Binds `address`; the error says which one could not be had.
pub(crate) async fn bind<N: Net>(net: &N, address: SocketAddr) -> io::Result<N::Listener> {
    net.listen(address).await.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Serves `router` with HTTP/1.1 and HTTP/2 in clear text until `shutdown`. A connection that fails ends alone.
///
/// # Errors
/// The listener has ended.
pub(crate) async fn serve<L: Listener>(mut listener: L, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let connections = TaskTracker::new();
    let permits = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let result = loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { break Ok(()) };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) => break Err(error),
            },
            () = shutdown.cancelled() => break Ok(()),
        };
        let (service, shutdown) = (TowerToHyperService::new(router.clone()), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                // A connection that breaks is its client's to notice.
                _ = &mut connection => {}
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    // A stream of live updates never ends by itself.
                    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connection).await;
                }
            }
        });
    };
    connections.close();
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await;
    result
}
