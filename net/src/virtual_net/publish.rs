//! Doors from the machine into the fabric.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::pod_net::PodNet;
use crate::Net;

/// Connections one door serves at a time; the next one waits in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;

/// A port of 127.0.0.1 that leads into the fabric. Dropping it closes the port; open connections live on.
#[derive(Debug)]
pub struct Published {
    address: SocketAddr,
    wanted: u16,
    acceptor: JoinHandle<()>,
}

impl Published {
    pub(super) async fn start(node: PodNet, wanted: u16, target: SocketAddr) -> io::Result<Self> {
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).await {
            Ok(listener) => listener,
            Err(error) if wanted != 0 => {
                tracing::warn!(port = wanted, %target, %error, "cannot publish on this port, taking a free one");
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?
            }
            Err(error) => return Err(error),
        };
        let address = listener.local_addr()?;
        let acceptor = tokio::spawn(accept(listener, node, target));
        Ok(Self { address, wanted, acceptor })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it got the port that was asked for.
    pub fn is_wanted_port(&self) -> bool {
        self.wanted == 0 || self.address.port() == self.wanted
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, node: PodNet, target: SocketAddr) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    forward(stream, &node, target).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Usually too many open files: going on at once would only burn the processor.
                tracing::warn!(%target, %error, "cannot accept a published connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn forward(mut outside: TcpStream, node: &PodNet, target: SocketAddr) {
    let _ = outside.set_nodelay(true);
    match node.connect(target).await {
        Ok(mut inside) => {
            if let Err(error) = tokio::io::copy_bidirectional(&mut outside, &mut inside).await {
                tracing::debug!(%target, %error, "published connection ended");
                // The client should see that this was no orderly end.
                let _ = socket2::SockRef::from(&outside).set_linger(Some(Duration::ZERO));
            }
        }
        Err(error) => {
            tracing::debug!(%target, %error, "published connection cannot reach its target");
            let _ = socket2::SockRef::from(&outside).set_linger(Some(Duration::ZERO));
        }
    }
}
