//! meshlab-control

pub mod ca;
pub mod inject;
pub mod kube_client;
