//! The images that every embedded cluster has: an app made for mesh lessons, nginx, httpbin, and small images with a shell,
//! the usual commands and `curl`.
//!
//! Everything here runs on the container's own file system, process table and network; nothing reaches the host's.

mod http;
mod output;
mod shell;
#[cfg(test)]
mod testing;
mod webapp;

use meshlab_program::Catalogue;

pub use webapp::{tcp_echo_image, webapp_image};

/// All images of this crate, under the names that the Istio documentation and this course use.
pub fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::default();
    let webapp = webapp_image();
    catalogue.register("ghcr.io/meshlab/webapp", webapp);
    catalogue.register("istio/tcp-echo-server", tcp_echo_image());
    catalogue
}
