//! One host's view of the network, and the way a connection takes from it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::capture::Tap;
use super::connection::{Connection, Side, VirtualStream};
use super::dns::{self, Lookup, Resolved};
use super::fabric::{Egress, Fabric};
use super::host::{Host, HostOptions, VirtualListener};
use super::redirect::{Outbound, Redirect, Verdict};
use super::service::Balanced;
use crate::Net;

/// How long Linux goes on asking for a connection: six repetitions, with the waiting time doubled from one second each time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);

/// A host of a [`VirtualNet`](crate::VirtualNet), usually a pod: its address, its loopback (which all containers of the pod
/// share), its names, and the user on whose behalf connections are opened. Cloning is cheap.
#[derive(Clone)]
pub struct PodNet {
    fabric: Arc<Fabric>,
    host: Arc<Host>,
    uid: u32,
}

/// Where a connection ends up.
enum Route {
    Host(Delivery),
    Internet(SocketAddr),
}

struct Delivery {
    server: Arc<Host>,
    client: IpAddr,
    /// The destination as the packet carries it when it reaches the server's host.
    destination: SocketAddr,
    /// The socket that accepts, after any redirection.
    socket: SocketAddr,
    original_destination: Option<SocketAddr>,
}

impl PodNet {
    pub(super) fn new(fabric: Arc<Fabric>, host: Arc<Host>) -> Self {
        Self { fabric, host, uid: 0 }
    }

    /// The same host, for processes of user `uid`.
    #[must_use]
    pub fn with_uid(&self, uid: u32) -> Self {
        Self { uid, ..self.clone() }
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The host's own address.
    pub fn address(&self) -> IpAddr {
        self.host.address
    }

    /// Host name, search domains and the like.
    pub fn host_options(&self) -> &HostOptions {
        &self.host.options
    }

    /// Sets the redirection rules of this pod, for connections opened from now on.
    pub fn set_redirect(&self, redirect: Redirect) {
        self.host.redirect.store(Some(Arc::new(redirect)));
    }

    /// Removes the redirection rules.
    pub fn clear_redirect(&self) {
        self.host.redirect.store(None);
    }

    /// The redirection rules in force.
    pub fn redirect(&self) -> Option<Arc<Redirect>> {
        self.host.redirect.load_full()
    }

    /// Resolves a name as [`Net::resolve`] does, and also says under which full name it was found.
    ///
    /// # Errors
    /// `NotFound` when the name does not exist.
    pub async fn lookup(&self, name: &str) -> io::Result<Lookup> {
        let resolved = dns::resolve(&self.fabric.tables.read().records, &self.host.options, self.host.address, name);
        match resolved {
            Resolved::Known(lookup) => Ok(lookup),
            Resolved::Outside(outside) if self.fabric.options.egress == Egress::Os => {
                let addresses = crate::OsNet.resolve(&outside).await?;
                Ok(Lookup { name: outside, addresses })
            }
            Resolved::Outside(outside) => {
                let hint = if outside.eq_ignore_ascii_case(name.trim_end_matches('.')) {
                    String::new()
                } else {
                    format!(" (an alias of {outside})")
                };
                Err(io::Error::new(io::ErrorKind::NotFound, format!("no such host: {name}{hint}")))
            }
        }
    }

    async fn open(&self, source: Option<IpAddr>, destination: SocketAddr) -> io::Result<VirtualStream> {
        self.host.check_attached()?;
        match self.route(source, destination)? {
            Route::Host(delivery) => {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.deliver(&delivery, destination)).await;
                connected.unwrap_or_else(|_| {
                    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{destination} did not answer in time")))
                })
            }
            Route::Internet(address) => VirtualStream::os(TcpStream::connect(address).await?),
        }
    }

    /// The way a packet takes: this pod's `OUTPUT` rules, the node's service rules, the server pod's `PREROUTING` rules.
    fn route(&self, source: Option<IpAddr>, destination: SocketAddr) -> io::Result<Route> {
        let loopback = self.host.owns(destination.ip());
        let client = self.source_address(source, destination, loopback)?;
        if let Some(rules) = self.host.redirect.load().as_deref() {
            let (address, port) = (destination.ip(), destination.port());
            if let Verdict::To(port) = rules.outbound(&Outbound { uid: self.uid, source, address, port, loopback }) {
                // REDIRECT in OUTPUT always leads to the loopback address.
                let socket = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
                let original_destination = Some(destination);
                let server = self.host.clone();
                return Ok(Route::Host(Delivery { server, client, destination: socket, socket, original_destination }));
            }
        }
        if loopback {
            // Linux takes an unspecified destination for the host itself.
            let ip = if destination.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { destination.ip() };
            let socket = SocketAddr::new(ip, destination.port());
            let server = self.host.clone();
            return Ok(Route::Host(Delivery { server, client, destination: socket, socket, original_destination: None }));
        }
        let tables = self.fabric.tables.read();
        let endpoint = match tables.services.balance(client, destination) {
            Balanced::Endpoint(endpoint) => endpoint,
            Balanced::NotAService => destination,
            Balanced::Refused => {
                let why = format!("service {destination} has no such port or no ready endpoint");
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, why));
            }
        };
        let Some(server) = tables.hosts.get(&endpoint.ip()).cloned() else {
            return self.leave(endpoint);
        };
        let inbound = server.redirect.load().as_deref().map_or(Verdict::Pass, |rules| rules.inbound(endpoint.port()));
        let (socket, original_destination) = match inbound {
            Verdict::To(port) => (SocketAddr::new(endpoint.ip(), port), Some(endpoint)),
            Verdict::Pass => (endpoint, None),
        };
        Ok(Route::Host(Delivery { server, client, destination: endpoint, socket, original_destination }))
    }

    fn source_address(&self, source: Option<IpAddr>, destination: SocketAddr, loopback: bool) -> io::Result<IpAddr> {
        match source {
            Some(source) if source.is_loopback() && !loopback => {
                let why = format!("cannot reach {destination} from the loopback address {source}");
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
            Some(source) if self.host.owns(source) && !source.is_unspecified() => Ok(source),
            Some(source) if !source.is_unspecified() => {
                let why = format!("cannot connect from {source}: this host is {}", self.host.address);
                Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why))
            }
            _ if destination.ip().is_loopback() || destination.ip().is_unspecified() => Ok(Ipv4Addr::LOCALHOST.into()),
            _ => Ok(self.host.address),
        }
    }

    fn leave(&self, address: SocketAddr) -> io::Result<Route> {
        let internal = self.fabric.options.internal.iter().any(|range| range.contains(&address.ip()));
        if self.fabric.options.egress == Egress::Os && !internal {
            return Ok(Route::Internet(address));
        }
        let why = if internal {
            format!("no route to host: nobody has the address {}", address.ip())
        } else {
            format!("no route to host: {} is outside the cluster, which has no way out to the Internet", address.ip())
        };
        Err(io::Error::new(io::ErrorKind::HostUnreachable, why))
    }

    async fn deliver(&self, delivery: &Delivery, dialled: SocketAddr) -> io::Result<VirtualStream> {
        let local = Arc::ptr_eq(&self.host, &delivery.server);
        let client = self.host.free_local_address(delivery.client, delivery.destination)?;
        let wire = [client, delivery.destination];
        let taps: Vec<Arc<Tap>> = self.fabric.taps().into_iter().filter(|tap| tap.wants_addresses(wire, local)).collect();
        if !local {
            self.cross_link(client, delivery.destination, &taps).await?;
        }
        let refused = || {
            taps.iter().for_each(|tap| tap.refused(client, delivery.destination));
            io::Error::new(io::ErrorKind::ConnectionRefused, format!("connection refused: nobody listens on {}", delivery.socket))
        };
        let queue = delivery.server.listener(delivery.socket).ok_or_else(refused)?;
        let place = queue.reserve_owned().await.map_err(|_| refused())?;
        // The port chosen above may have been taken while this connection waited.
        let client = self.host.free_local_address(delivery.client, delivery.destination)?;
        let wire = [client, delivery.destination];
        let connection = Connection::new(wire, [&self.host, &delivery.server], self.fabric.options.buffer);
        // Those who began to record while this connection waited are among them too.
        self.fabric.taps().iter().filter(|tap| tap.wants(&connection)).for_each(|tap| connection.tap(tap));
        connection.record_handshake();
        self.fabric.impair(&connection);
        let (ours, theirs) = VirtualStream::pair(&connection, dialled, delivery.socket, delivery.original_destination);
        place.send(theirs);
        // A host detached in the meantime has reset what it knew, which this connection was not part of yet.
        if self.host.check_attached().and_then(|()| delivery.server.check_attached()).is_err() {
            connection.kill(Side::Server);
        }
        Ok(ours)
    }

    /// Waits until the handshake's packets got through.
    async fn cross_link(&self, client: SocketAddr, server: SocketAddr, taps: &[Arc<Tap>]) -> io::Result<()> {
        let mut changes = self.fabric.conditions_changed.subscribe();
        loop {
            changes.mark_unchanged();
            let conditions = self.fabric.conditions_between(client.ip(), server.ip());
            if conditions.reset {
                taps.iter().for_each(|tap| tap.refused(client, server));
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, format!("the link to {} resets", server.ip())));
            }
            if conditions.unreachable {
                taps.iter().for_each(|tap| tap.unanswered(client, server));
                return Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("no route to host {}", server.ip())));
            }
            if !conditions.cut {
                let round_trip = conditions.one_way() + conditions.one_way();
                if !round_trip.is_zero() {
                    tokio::time::sleep(round_trip).await;
                }
                return Ok(());
            }
            taps.iter().for_each(|tap| tap.unanswered(client, server));
            // The sender lives in the fabric, which this host holds: the wait only ends by a change.
            let _ = changes.changed().await;
        }
    }
}

impl Net for PodNet {
    type Stream = VirtualStream;
    type Listener = VirtualListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<VirtualListener> {
        self.host.listen(address)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<VirtualStream> {
        self.open(None, address).await
    }

    async fn connect_from(&self, source: IpAddr, address: SocketAddr) -> io::Result<VirtualStream> {
        self.open(Some(source), address).await
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let lookup = self.lookup(host).await?;
        if lookup.addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", lookup.name)));
        }
        Ok(lookup.addresses)
    }
}

impl std::fmt::Debug for PodNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodNet").field("address", &self.host.address).field("uid", &self.uid).finish_non_exhaustive()
    }
}
