//! The container images that meshlab itself brings to the embedded cluster: the mesh, the prober and the addons, each an
//! ordinary program of its crate behind the cluster's `Program` trait. `mesh` and `cluster` meet only here.

mod files;
mod mesh;
mod prober;

use meshlab_program::Catalogue;

/// Every image the lab needs.
pub fn catalogue() -> Catalogue {
    let mut catalogue = meshlab_images::catalogue();
    catalogue.register("ghcr.io/meshlab/pilot", mesh::pilot());
    catalogue.register("ghcr.io/meshlab/proxyv2", mesh::proxy());
    catalogue.register("ghcr.io/meshlab/prober", prober::image());
    catalogue
}
