//! The fabric: every host, service address and name of one virtual network.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use ipnet::{IpNet, Ipv4Net};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::capture::{Capture, CaptureOptions, Tap};
use super::connection::Connection;
use super::dns::{Record, Records};
use super::host::{Host, HostOptions};
use super::link::{ConditionId, Conditions, Link, LinkCondition};
use super::pod_net::PodNet;
use super::publish::Published;
use super::service::{ServicePort, Services};

/// What happens to connections to addresses that nobody in the fabric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Egress {
    /// They fail with `HostUnreachable`: a lab needs no Internet.
    #[default]
    Deny,
    /// The operating system opens them, and resolves the names the fabric does not know.
    Os,
}

/// How a [`VirtualNet`] is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualNetOptions {
    /// The node's address.
    pub node_address: IpAddr,
    /// The node's host name.
    pub node_name: String,
    /// Addresses that never leave the fabric, whatever [`VirtualNetOptions::egress`] says: pods and services.
    pub internal: Vec<IpNet>,
    /// The way out.
    pub egress: Egress,
    /// Bytes a connection holds in each direction before its writer has to wait.
    pub buffer: usize,
    /// Connections that may wait to be accepted, for each listener.
    pub backlog: usize,
}

impl Default for VirtualNetOptions {
    fn default() -> Self {
        let net = |a, b, length| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
        Self {
            node_address: IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1)),
            node_name: "meshlab".to_owned(),
            internal: vec![net(10, 244, 16), net(10, 96, 12)],
            egress: Egress::Deny,
            buffer: 64 * 1024,
            backlog: 1024,
        }
    }
}

/// A network inside the process. Cloning is cheap and yields the same network.
#[derive(Clone)]
pub struct VirtualNet(Arc<Fabric>);

pub(super) struct Fabric {
    pub(super) options: VirtualNetOptions,
    pub(super) tables: RwLock<Tables>,
    /// Counts the changes of conditions, for those who wait for a cut link.
    pub(super) conditions_changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct Tables {
    pub(super) hosts: HashMap<IpAddr, Arc<Host>>,
    pub(super) services: Services,
    pub(super) records: Records,
    conditions: Vec<(ConditionId, Link, LinkCondition)>,
    next_condition: u64,
    taps: Vec<Weak<Tap>>,
}

impl VirtualNet {
    /// A network with nothing but its node.
    pub fn new(options: VirtualNetOptions) -> Self {
        let node = Host::new(options.node_address, HostOptions::external(&options.node_name), options.backlog);
        let mut tables = Tables::default();
        tables.hosts.insert(options.node_address, node);
        let conditions_changed = watch::Sender::new(0);
        Self(Arc::new(Fabric { options, tables: RwLock::new(tables), conditions_changed }))
    }

    /// How this network was set up.
    pub fn options(&self) -> &VirtualNetOptions {
        &self.0.options
    }

    /// Adds a host: a pod, or a server outside the cluster.
    ///
    /// # Errors
    /// `AddrInUse` when the address is taken, `InvalidInput` when it cannot be a host's.
    pub fn attach(&self, address: IpAddr, options: HostOptions) -> io::Result<PodNet> {
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address} cannot be the address of a host")));
        }
        let mut tables = self.0.tables.write();
        if tables.hosts.contains_key(&address) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("address {address} is taken by another host")));
        }
        let host = Host::new(address, options, self.0.options.backlog);
        tables.hosts.insert(address, host.clone());
        Ok(PodNet::new(self.0.clone(), host))
    }

    /// Removes a host: its listeners close, its connections are reset, and what is left of its [`PodNet`]s fails with
    /// `NetworkDown`. The node stays. True if there was such a host.
    pub fn detach(&self, address: IpAddr) -> bool {
        if address == self.0.options.node_address {
            return false;
        }
        let removed = self.0.tables.write().hosts.remove(&address);
        match removed {
            Some(host) => {
                host.detach();
                true
            }
            None => false,
        }
    }

    /// The node: it reaches every pod, and every pod reaches it.
    pub fn host(&self) -> PodNet {
        let node = self.0.tables.read().hosts[&self.0.options.node_address].clone();
        PodNet::new(self.0.clone(), node)
    }

    /// Adds a service, or replaces all of its ports. `key` names it (`namespace/name`).
    pub fn upsert_service(&self, key: &str, ports: Vec<ServicePort>) {
        self.0.tables.write().services.upsert(key, ports);
    }

    /// Removes a service. Its open connections live on, as they do on a real node.
    pub fn remove_service(&self, key: &str) {
        self.0.tables.write().services.remove_service(key);
    }

    /// Adds or replaces a DNS name, written in full (`web.default.svc.cluster.local`).
    pub fn upsert_record(&self, name: &str, record: Record) {
        self.0.tables.write().records.upsert(name, record);
    }

    /// Removes a DNS name.
    pub fn remove_record(&self, name: &str) {
        self.0.tables.write().records.remove(name);
    }

    /// Publishes `target` (a service or a pod) on 127.0.0.1 of the machine, at `port` or, if that cannot be had, at a free one;
    /// [`Published::address`] says which. Connections arrive from the node's address.
    ///
    /// # Errors
    /// The operating system gives out no port at all.
    pub async fn publish(&self, port: u16, target: SocketAddr) -> io::Result<Published> {
        Published::start(self.host(), port, target).await
    }

    /// Puts a link into a condition until [`VirtualNet::remove_condition`]. Conditions add up.
    pub fn add_condition(&self, link: Link, condition: LinkCondition) -> ConditionId {
        let mut tables = self.0.tables.write();
        let id = ConditionId(tables.next_condition);
        tables.next_condition += 1;
        tables.conditions.push((id, link, condition));
        drop(tables);
        self.0.conditions_changed();
        id
    }

    /// Ends a condition; true if it was there.
    pub fn remove_condition(&self, id: ConditionId) -> bool {
        let mut tables = self.0.tables.write();
        let before = tables.conditions.len();
        tables.conditions.retain(|(other, _, _)| *other != id);
        let removed = tables.conditions.len() < before;
        drop(tables);
        self.0.conditions_changed();
        removed
    }

    /// The conditions there are, oldest first.
    pub fn conditions(&self) -> Vec<(ConditionId, Link, LinkCondition)> {
        self.0.tables.read().conditions.clone()
    }

    /// Records traffic as a pcap file into `sink` until the [`Capture`] is stopped or dropped. Connections already open are
    /// recorded from here on.
    ///
    /// # Errors
    /// The file's header cannot be written.
    pub fn capture(&self, options: CaptureOptions, sink: impl io::Write + Send + 'static) -> io::Result<Capture> {
        let tap = Tap::start(options, Box::new(sink))?;
        let mut tables = self.0.tables.write();
        tables.taps.retain(|tap| tap.strong_count() > 0);
        tables.taps.push(Arc::downgrade(&tap));
        drop(tables);
        for connection in self.0.connections() {
            if tap.wants(&connection) {
                connection.tap(&tap);
            }
        }
        Ok(Capture::new(tap))
    }
}

impl Fabric {
    pub(super) fn conditions_between(&self, a: IpAddr, b: IpAddr) -> Conditions {
        Conditions::of(&self.tables.read().conditions, a, b)
    }

    /// Everybody who records now.
    pub(super) fn taps(&self) -> Vec<Arc<Tap>> {
        self.tables.read().taps.iter().filter_map(Weak::upgrade).collect()
    }

    /// Puts a connection into the condition its link is in.
    pub(super) fn impair(&self, connection: &Connection) {
        if connection.is_local() {
            return;
        }
        let [client, server] = connection.addresses();
        // The lock is held until the connection has changed: a condition added meanwhile would otherwise be overwritten by what
        // was true before it.
        let tables = self.tables.read();
        connection.impair(&Conditions::of(&tables.conditions, client.ip(), server.ip()));
    }

    fn conditions_changed(&self) {
        for connection in self.connections() {
            self.impair(&connection);
        }
        self.conditions_changed.send_modify(|count| *count += 1);
    }

    /// Every connection; those between two hosts appear twice.
    fn connections(&self) -> Vec<Arc<Connection>> {
        let hosts: Vec<Arc<Host>> = self.tables.read().hosts.values().cloned().collect();
        hosts.iter().flat_map(|host| host.connections()).collect()
    }
}
