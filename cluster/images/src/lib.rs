//! The images that every embedded cluster has: an app made for mesh lessons, nginx, httpbin, and small images with a shell,
//! the usual commands and `curl`.
//!
//! Everything here runs on the container's own file system, process table and network; nothing reaches the host's.

mod http;
mod output;
mod shell;
#[cfg(test)]
mod testing;
mod tools;
mod webapp;

use std::sync::Arc;

use meshlab_program::{Catalogue, Image};

pub use webapp::{tcp_echo_image, webapp_image};

/// The shell and the usual commands; every other image here has them too, so that `kubectl exec` finds them.
pub fn base_image() -> Arc<Image> {
    let image = Image::builder()
        .cmd(["sh"])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        .file("/etc/os-release", "NAME=\"meshlab\"\nID=meshlab\nPRETTY_NAME=\"meshlab built-in image\"\n");
    tools::install(image).build()
}

/// All images of this crate, under the names that the Istio documentation and this course use.
pub fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::default();
    let webapp = webapp_image();
    catalogue.register("ghcr.io/meshlab/webapp", webapp);
    catalogue.register("istio/tcp-echo-server", tcp_echo_image());
    catalogue
}
