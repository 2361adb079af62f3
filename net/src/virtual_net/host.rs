//! A host: an address with listeners and connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::connection::{Connection, Side, VirtualStream};
use super::redirect::Redirect;

/// The ports a kernel hands out by itself: `net.ipv4.ip_local_port_range` by default.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// What a host calls itself and how it completes names: its `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Host name, which resolves to the host's own address.
    pub hostname: String,
    /// Search domains, most specific first.
    pub search: Vec<String>,
    /// A name with fewer dots is completed before it is tried as it stands. Kubernetes sets 5.
    pub ndots: usize,
    /// Further fixed names (`hostAliases`).
    pub aliases: Vec<(String, IpAddr)>,
}

impl HostOptions {
    /// A host outside any cluster: no search domains.
    pub fn external(hostname: impl Into<String>) -> Self {
        Self { hostname: hostname.into(), search: Vec::new(), ndots: 1, aliases: Vec::new() }
    }

    /// A pod with `dnsPolicy: ClusterFirst`: `namespace.svc.cluster.local`, `svc.cluster.local`, `cluster.local`, `ndots:5`.
    pub fn pod(hostname: impl Into<String>, namespace: &str, cluster_domain: &str) -> Self {
        let search =
            vec![format!("{namespace}.svc.{cluster_domain}"), format!("svc.{cluster_domain}"), cluster_domain.to_owned()];
        Self { hostname: hostname.into(), search, ndots: 5, aliases: Vec::new() }
    }
}

pub(super) struct Host {
    pub(super) address: IpAddr,
    pub(super) options: HostOptions,
    pub(super) redirect: ArcSwapOption<Redirect>,
    backlog: usize,
    detached: AtomicBool,
    next_port: AtomicU16,
    next_listener: AtomicU64,
    listeners: Mutex<HashMap<u16, Vec<Bound>>>,
    /// Open connections by local and remote address.
    connections: Mutex<HashMap<(SocketAddr, SocketAddr), Weak<Connection>>>,
}

struct Bound {
    id: u64,
    address: IpAddr,
    queue: mpsc::Sender<VirtualStream>,
}

impl Host {
    pub(super) fn new(address: IpAddr, options: HostOptions, backlog: usize) -> Arc<Self> {
        Arc::new(Self {
            address,
            options,
            redirect: ArcSwapOption::empty(),
            backlog: backlog.max(1),
            detached: AtomicBool::new(false),
            next_port: AtomicU16::new(rand::random_range(EPHEMERAL)),
            next_listener: AtomicU64::new(0),
            listeners: Mutex::default(),
            connections: Mutex::default(),
        })
    }

    /// Whether packets to `address` stay on this host.
    pub(super) fn owns(&self, address: IpAddr) -> bool {
        address == self.address || address.is_loopback() || address.is_unspecified()
    }

    /// # Errors
    /// `NetworkDown` once the host is detached.
    pub(super) fn check_attached(&self) -> io::Result<()> {
        if self.detached.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::NetworkDown, format!("host {} is gone from the network", self.address)));
        }
        Ok(())
    }

    pub(super) fn listen(self: &Arc<Self>, address: SocketAddr) -> io::Result<VirtualListener> {
        self.check_attached()?;
        if !self.owns(address.ip()) {
            let why = format!("cannot listen on {}: this host is {}", address.ip(), self.address);
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why));
        }
        let mut listeners = self.listeners.lock();
        let port = match address.port() {
            0 => self.free_port(|port| !listeners.contains_key(&port))?,
            port => port,
        };
        let bound = listeners.entry(port).or_default();
        let ip = address.ip();
        if bound.iter().any(|other| other.address == ip || other.address.is_unspecified() || ip.is_unspecified()) {
            let why = format!("{}:{port} is in use", self.address);
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
        let (queue, incoming) = mpsc::channel(self.backlog);
        bound.push(Bound { id, address: ip, queue });
        drop(listeners);
        let listener = VirtualListener { host: self.clone(), id, address: SocketAddr::new(ip, port), incoming };
        // Detaching may have emptied the table just before the entry was made.
        self.check_attached()?;
        Ok(listener)
    }

    /// The queue of whoever listens at `address`.
    pub(super) fn listener(&self, address: SocketAddr) -> Option<mpsc::Sender<VirtualStream>> {
        let listeners = self.listeners.lock();
        let bound = listeners.get(&address.port())?;
        let exact = bound.iter().find(|bound| bound.address == address.ip());
        let found = exact.or_else(|| bound.iter().find(|bound| bound.address.is_unspecified()))?;
        Some(found.queue.clone())
    }

    fn stop_listening(&self, port: u16, id: u64) {
        let mut listeners = self.listeners.lock();
        if let Some(bound) = listeners.get_mut(&port) {
            bound.retain(|bound| bound.id != id);
            if bound.is_empty() {
                listeners.remove(&port);
            }
        }
    }

    /// A local address from `ip` that has no connection to `remote` yet.
    pub(super) fn free_local_address(&self, ip: IpAddr, remote: SocketAddr) -> io::Result<SocketAddr> {
        let connections = self.connections.lock();
        let port = self.free_port(|port| {
            let local = SocketAddr::new(ip, port);
            // The second key is a connection within this host, seen from its server.
            !connections.contains_key(&(local, remote)) && !connections.contains_key(&(remote, local))
        })?;
        Ok(SocketAddr::new(ip, port))
    }

    fn free_port(&self, is_free: impl Fn(u16) -> bool) -> io::Result<u16> {
        let (first, last) = (*EPHEMERAL.start(), *EPHEMERAL.end());
        let count = last - first + 1;
        for _ in 0..count {
            let port = first + self.next_port.fetch_add(1, Ordering::Relaxed) % count;
            if is_free(port) {
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("host {} has no free port left", self.address)))
    }

    pub(super) fn register(&self, local: SocketAddr, remote: SocketAddr, connection: &Arc<Connection>) {
        self.connections.lock().insert((local, remote), Arc::downgrade(connection));
    }

    pub(super) fn unregister(&self, local: SocketAddr, remote: SocketAddr) {
        let mut connections = self.connections.lock();
        // The addresses may already serve a newer connection.
        if connections.get(&(local, remote)).is_some_and(|connection| connection.strong_count() == 0) {
            connections.remove(&(local, remote));
        }
    }

    /// Every open connection of this host.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Closes listeners and resets connections, for good.
    pub(super) fn detach(&self) {
        self.detached.store(true, Ordering::Release);
        let listeners = std::mem::take(&mut *self.listeners.lock());
        drop(listeners);
        for connection in self.connections() {
            let [client, _] = connection.addresses();
            connection.kill(if client.ip() == self.address { Side::Client } else { Side::Server });
        }
    }
}

/// A listening socket on a [`VirtualNet`](crate::VirtualNet).
pub struct VirtualListener {
    host: Arc<Host>,
    id: u64,
    address: SocketAddr,
    incoming: mpsc::Receiver<VirtualStream>,
}

impl crate::Listener for VirtualListener {
    type Stream = VirtualStream;

    async fn accept(&mut self) -> io::Result<VirtualStream> {
        self.incoming.recv().await.ok_or_else(|| {
            let why = format!("listener {} is closed: host {} is gone from the network", self.address, self.host.address);
            io::Error::new(io::ErrorKind::NetworkDown, why)
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for VirtualListener {
    fn drop(&mut self) {
        self.host.stop_listening(self.address.port(), self.id);
        self.incoming.close();
        // As a kernel does with connections that nobody will accept any more.
        while let Ok(stream) = self.incoming.try_recv() {
            stream.reset();
        }
    }
}

impl std::fmt::Debug for VirtualListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtualListener").field("address", &self.address).finish_non_exhaustive()
    }
}
