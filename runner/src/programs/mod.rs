//! The container images that meshlab itself brings to the embedded cluster: the mesh, the prober and the addons, each an
//! ordinary program of its crate behind the cluster's `Program` trait. `mesh` and `cluster` meet only here.

mod files;
mod mesh;
mod observe;
mod prober;

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
