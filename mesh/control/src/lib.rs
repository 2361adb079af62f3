//! istiod: the mesh's control plane.
//!
//! - [`ca`]: the certificate authority;
//! - [`inject`]: sidecar injection;
//! - `inventory`: watches that keep what is in the cluster;
//! - `discovery`: configuration compiled once per class of proxy and streamed to each;
//! - `webhook`, `webhook_config`, `root_cert`, `status`, `jwks`, `settings`: what istiod does at the Kubernetes API besides;
//! - `debug`: its own pages and metrics; [`istioctl`] prints them.
//!
//! [`run`] is all of it. It is generic over the network and the files, and never knows whether it runs in a pod of the embedded
//! cluster or on Linux.

pub mod ca;
mod debug;
mod discovery;
mod http;
pub mod inject;
mod inventory;
pub mod istioctl;
mod jwks;
pub mod kube_client;
mod manifests;
mod metrics;
mod options;
mod root_cert;
mod server;
mod settings;
mod status;
mod watch;
mod webhook;
mod webhook_config;
mod world;

pub use crate::http::TlsError;
pub use manifests::manifests;
pub use options::{NativeSidecars, Options, OptionsError};
pub use server::{ControlError, run};
