//! Accepting connections and handing each to the chain that is for it.

pub(crate) mod chain;
pub(crate) mod connection;
pub(crate) mod sniff;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::io::Socket;
use crate::proxy::Shared;

/// Pause after an error of `accept`: file descriptors may have run out, and come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts on a socket until it is closed. Whatever happens to one connection concerns that connection only.
pub(crate) async fn accept(proxy: Arc<Shared>, mut socket: Box<dyn Socket>, address: SocketAddr, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(proxy.limits.max_connections));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, %address, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            // Beyond the limit connections are closed at once, as Envoy does.
            proxy.counters.connections_overflow.increment();
            continue;
        };
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let _place = place;
            connection::serve(proxy, accepted, address).await;
        });
    }
}
