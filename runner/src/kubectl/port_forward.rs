//! `kubectl port-forward`, and the same for commands that open pages.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1 as core;
use kube::{Api, Client};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::cli::PortForward;
use super::pods::Pod;
use super::rest::{self, Failure, JSON};
use super::{Session, Step, pod_of};
use crate::output::{complain, print};

/// A port of this machine that leads into a pod, for as long as this lives.
pub(crate) struct Forward {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// The pod's port.
    pub(crate) remote: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forward {
    /// Until it is dropped, or for ever.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

/// Opens `local` (0: any free port) and leads its connections to `port` of `target`: of a pod, or of a Service in whose terms
/// the port is then.
pub(crate) async fn forward(session: &Session, target: &str, local: SocketAddr, port: &str) -> Result<Forward, Failure> {
    let pod = pod_of(session, target).await?;
    let remote = remote_port(session, target, &pod, port).await?;
    let listener =
        TcpListener::bind(local).await.map_err(|error| Failure::new(format!("unable to listen on {local}: {error}")))?;
    let address = listener.local_addr().map_err(Failure::new)?;
    let client = session.client();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            let (client, pod) = (client.clone(), pod.clone());
            connections.spawn(async move {
                if let Err(failure) = carry(client, &pod, remote, connection).await {
                    complain(&format!("an error occurred forwarding {} -> {remote}: {failure}\n", address.port()));
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    Ok(Forward { address, remote, task })
}

async fn carry(client: Client, pod: &Pod, port: u16, mut connection: TcpStream) -> Result<(), Failure> {
    let api: Api<core::Pod> = Api::namespaced(client, &pod.namespace);
    let mut forwarder = api.portforward(&pod.name, &[port]).await?;
    let error = forwarder.take_error(port);
    let Some(mut stream) = forwarder.take_stream(port) else { return Err(Failure::new("no stream")) };
    // Either side may break off; that is no news.
    let _ = tokio::io::copy_bidirectional(&mut connection, &mut stream).await;
    drop(stream);
    let said = match error {
        Some(error) => error.await,
        None => None,
    };
    // Who closes first is not told as an error.
    said.map_or(Ok(()), |message| Err(Failure::new(message)))
}

/// The pod's port: a number, or the name of a container's port; of a Service, the one that its port leads to.
async fn remote_port(session: &Session, target: &str, pod: &Pod, port: &str) -> Result<u16, Failure> {
    let (kind, name) = target.split_once('/').unwrap_or(("pod", target));
    let resource = session.resources.find(kind)?;
    if resource.kind != "Service" {
        return pod_port(pod, &Value::from(port));
    }
    let service = session.rest.get(&rest::path(resource, Some(&session.namespace), Some(name)), JSON).await?;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let number = port.parse::<u64>().ok();
    let found = ports.iter().find(|entry| entry["name"] == port || (number.is_some() && entry["port"].as_u64() == number));
    let entry = found.ok_or_else(|| {
        let has: Vec<String> = ports.iter().map(|entry| entry["port"].to_string()).collect();
        Failure::new(format!("Service {name} does not have a service port {port}; it has {}", has.join(", ")))
    })?;
    let wanted = if entry["targetPort"].is_null() { &entry["port"] } else { &entry["targetPort"] };
    pod_port(pod, wanted)
}

fn pod_port(pod: &Pod, port: &Value) -> Result<u16, Failure> {
    let text = match port {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let containers = pod.object["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let found = ports.find(|entry| entry["name"] == text).and_then(|entry| entry["containerPort"].as_u64());
    found
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| Failure::new(format!("Pod '{}' does not have a named port '{text}'", pod.name)))
}

pub(super) async fn run(session: &Session, args: &PortForward) -> Result<Step, Failure> {
    let mut open = Vec::new();
    for port in &args.ports {
        let (local, remote) = match port.split_once(':') {
            Some(("", remote)) => ("0", remote),
            Some((local, remote)) => (local, remote),
            None => (port.as_str(), port.as_str()),
        };
        let local: u16 = match local.parse() {
            Ok(number) => number,
            Err(_) if local == remote => 0,
            Err(_) => return Err(Failure::new(format!("invalid local port {local}"))),
        };
        let opened = forward(session, &args.target, SocketAddr::new(args.address, local), remote).await?;
        let host = match opened.address.ip() {
            IpAddr::V6(address) => format!("[{address}]"),
            IpAddr::V4(address) => address.to_string(),
        };
        print(&format!("Forwarding from {host}:{} -> {}\n", opened.address.port(), opened.remote));
        open.push(opened);
    }
    let all = futures::future::select_all(open.iter_mut().map(|forward| Box::pin(forward.ended())));
    tokio::select! {
        _ = all => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(Step::Done)
}
