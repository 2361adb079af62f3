//! The world outside the embedded cluster: servers with addresses and names of their own, on which no Kubernetes object lives.
//! The lessons on egress call them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use meshlab_net::{HostOptions, Record, VirtualNet};
use meshlab_program::{Container, FileSystem, Process, Processes, Signals, SpawnError, Stdio};
use tokio::task::JoinSet;

use crate::error::CommandError;

/// Name and address of each server; the addresses are of RFC 5737's range for documentation.
const SERVERS: [(&str, Ipv4Addr); 2] =
    [("external.example.com", Ipv4Addr::new(203, 0, 113, 10)), ("other.example.com", Ipv4Addr::new(203, 0, 113, 11))];

/// The running servers; dropping this ends them.
pub struct Outside {
    _servers: JoinSet<()>,
}

/// Starts the servers on the cluster's network.
///
/// # Errors
/// An address is taken, which is a mistake in this table.
pub fn start(net: &VirtualNet) -> Result<Outside, CommandError> {
    let mut servers = JoinSet::new();
    for (name, address) in SERVERS {
        let failed = |error: String| CommandError::failed(format!("{name} does not start: {error}"));
        let host = net.attach(IpAddr::V4(address), HostOptions::external(name)).map_err(|error| failed(error.to_string()))?;
        net.upsert_record(name, Record::Addresses(vec![IpAddr::V4(address)]));
        let mut server = spawn(name, host).map_err(|error| failed(error.to_string()))?;
        servers.spawn(async move {
            server.wait().await;
        });
    }
    Ok(Outside { _servers: servers })
}

fn spawn(name: &str, net: meshlab_net::PodNet) -> Result<meshlab_program::Child, SpawnError> {
    let image = meshlab_images::webapp();
    let container =
        Container { fs: FileSystem::new(&image), image, net, hostname: name.to_owned(), uid: 0, processes: Processes::default() };
    let service = name.split('.').next().unwrap_or(name);
    let env = [("SERVICE_NAME", service), ("PORT", "80")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (_, signals) = Signals::channel();
    let process = Process {
        argv: vec!["webapp".to_owned()],
        env: env.into(),
        cwd: "/".to_owned(),
        stdio: Stdio::null(),
        signals,
        container: Arc::new(container),
    };
    process.spawn()
}
