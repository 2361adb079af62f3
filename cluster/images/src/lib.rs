//! The images that every embedded cluster has: an app made for mesh lessons, nginx, httpbin, and small images with a shell,
//! the usual commands and `curl`.
//!
//! Everything here runs on the container's own file system, process table and network; nothing reaches the host's.

mod curl;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod httpbin;
mod nginx;
mod output;
mod shell;
#[cfg(test)]
mod testing;
mod tls;
mod tools;
mod webapp;

use std::sync::Arc;

use meshlab_program::{Catalogue, Image};

pub use httpbin::{go_httpbin, httpbin};
pub use nginx::nginx;
pub use webapp::{tcp_echo, webapp};

/// `curlimages/curl`, and the base of every other image here: `curl`, the shell and the usual commands, so that `kubectl exec`
/// finds them everywhere. Runs `curl` by itself.
pub fn curl() -> Arc<Image> {
    Image::builder().base(&base_image()).entrypoint(["curl"]).uid(100).build()
}

/// `busybox`, `alpine` and the like: a shell, the usual commands and `curl`.
pub fn busybox() -> Arc<Image> {
    base_image()
}

fn base_image() -> Arc<Image> {
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
    catalogue.register("ghcr.io/meshlab/webapp", webapp());
    for name in ["busybox", "alpine", "nicolaka/netshoot", "governmentpaas/curl-ssl"] {
        catalogue.register(name, busybox());
    }
    catalogue.register("curlimages/curl", curl());
    catalogue.register("kennethreitz/httpbin", httpbin());
    catalogue.register("kong/httpbin", httpbin());
    catalogue.register("mccutchen/go-httpbin", go_httpbin());
    catalogue.register("nginx", nginx());
    catalogue.register("istio/tcp-echo-server", tcp_echo());
    catalogue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_of_the_istio_samples_are_there() {
        let catalogue = catalogue();
        for name in [
            "ghcr.io/meshlab/webapp:latest",
            "nginx:1.27",
            "docker.io/kennethreitz/httpbin",
            "docker.io/mccutchen/go-httpbin:v2.15.0",
            "docker.io/kong/httpbin:0.1.0",
            "curlimages/curl",
            "busybox:1.36",
            "alpine",
            "nicolaka/netshoot",
            "governmentpaas/curl-ssl",
            "docker.io/istio/tcp-echo-server:1.3",
        ] {
            let image = catalogue.find(name).unwrap_or_else(|err| panic!("{err}"));
            for tool in ["sh", "curl", "cat", "tar", "nslookup", "openssl"] {
                assert!(image.executable(tool).is_some(), "{name} has no {tool}");
            }
        }
    }
}
