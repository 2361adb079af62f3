//! The container images that meshlab itself brings to the embedded cluster: the mesh, the prober and the addons, each an
//! ordinary program of its crate behind the cluster's `Program` trait. `mesh` and `cluster` meet only here.
//!
//! These programs are generic over the network, and are made here for the one they run on ([`AnyNet`](meshlab_net::AnyNet)): once,
//! in a crate that is built for speed, while what surrounds them is built for size.

mod files;
mod mesh;
mod observe;
mod prober;

pub use mesh::{Place, agent, discovery};

use meshlab_program::{Catalogue, Process};
use tokio_util::sync::CancellationToken;

/// Every image the lab needs.
pub fn catalogue() -> Catalogue {
    let mut catalogue = meshlab_images::catalogue();
    catalogue.register("ghcr.io/meshlab/pilot", mesh::pilot());
    catalogue.register("ghcr.io/meshlab/proxyv2", mesh::proxy());
    catalogue.register("ghcr.io/meshlab/prober", prober::image());
    observe::register(&mut catalogue);
    catalogue
}

/// A token that is cancelled when the process is asked to end.
fn terminated(process: &Process) -> CancellationToken {
    let token = CancellationToken::new();
    let (mut signals, cancel) = (process.signals.clone(), token.clone());
    tokio::spawn(async move {
        signals.requested().await;
        cancel.cancel();
    });
    token
}
