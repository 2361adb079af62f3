//! TCP probes: the port accepts a connection.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, TCPSocketAction};
use meshlab_net::PodNet;

pub(super) async fn connect(
    node: &PodNet,
    pod_ip: &str,
    container: &Container,
    action: &TCPSocketAction,
    timeout: Duration,
) -> Result<(), String> {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let port = super::port(&action.port, container).ok_or_else(|| format!("couldn't find port: {:?}", action.port))?;
    match tokio::time::timeout(timeout, super::dial(node, host, port)).await {
        Ok(result) => result.map(drop),
        Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}
