//! A compiled configuration, placed on this machine: its listener on a free port, its endpoints at the scripted upstreams.
//!
//! The same changes are made for both proxies. Several scenarios become one configuration, so their names get a prefix.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use meshlab_proxy_config::{
    AttributeMatch, CertificateSource, ChainProtocol, Cluster, Discovery, Endpoint, Endpoints, FilterChain, HttpAccess, Listener,
    LoadBalancer, ProxyConfig, RouteAction, RouteConfiguration, UpstreamTls,
};

use crate::case::Role;
use crate::upstream::Upstreams;
use crate::world::{POD_PORT, SERVICE_PORT, World};

/// Ports for listeners, each given out once. They lie below those that systems give to outgoing connections (32768 and above on
/// Linux), so that none is taken between now and the moment a proxy binds it.
pub struct Ports(Mutex<u16>);

const PORTS: Range<u16> = 12_000..32_000;

impl Default for Ports {
    /// Processes that run at the same time begin at different places.
    fn default() -> Self {
        let length = u32::from(PORTS.end - PORTS.start);
        let offset = std::process::id().wrapping_mul(997) % length;
        Self(Mutex::new(PORTS.start + u16::try_from(offset).unwrap_or(0)))
    }
}

impl Ports {
    /// So many addresses where nobody listens.
    ///
    /// # Errors
    /// There are none left.
    pub fn take(&self, count: usize) -> Result<Vec<SocketAddr>> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        for _ in PORTS {
            if out.len() == count {
                return Ok(out);
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *next));
            *next = if *next + 1 < PORTS.end { *next + 1 } else { PORTS.start };
            if TcpListener::bind(address).is_ok() {
                out.push(address);
            }
        }
        bail!("there are no {count} free ports between {} and {}", PORTS.start, PORTS.end)
    }
}

/// Where a scenario is put.
pub struct Place<'a> {
    /// The scenario's name.
    pub scenario: &'a str,
    /// Its proxy.
    pub role: Role,
    /// The pods.
    pub world: &'a World,
    /// The servers.
    pub upstreams: &'a Upstreams,
    /// Where its listener is.
    pub listen: SocketAddr,
}

/// The prefix of a scenario's names.
pub fn prefix(scenario: &str) -> String {
    format!("{}/", scenario.replace(' ', "_"))
}

impl Place<'_> {
    /// Adds the scenario's part of `config` to `out`.
    ///
    /// # Errors
    /// There is no listener for the role, or an endpoint is no pod of the world.
    pub fn add(&self, config: &ProxyConfig, out: &mut ProxyConfig) -> Result<()> {
        let mut listener = self.listener(config)?;
        let mut clusters = BTreeSet::new();
        for chain in &mut listener.filter_chains {
            if let Some(tls) = &mut chain.tls {
                self.rename_secret(&mut tls.certificate);
            }
            match &mut chain.protocol {
                ChainProtocol::Http(http) => {
                    let route = config.routes.get(&http.route_config).context("the chain's route table is missing")?;
                    let route = self.routes(route, &mut clusters);
                    http.route_config.clone_from(&route.name);
                    out.routes.insert(route.name.clone(), Arc::new(route));
                    self.ports_of(&mut http.access);
                    for custom in &mut http.access.custom {
                        self.rename(&mut custom.provider.cluster, &mut clusters);
                    }
                }
                ChainProtocol::Tcp(tcp) => {
                    tcp.clusters.iter_mut().for_each(|target| self.rename(&mut target.cluster, &mut clusters));
                }
            }
        }
        for name in clusters {
            // A cluster that is not there is a case of its own.
            let Some(cluster) = config.clusters.get(&name) else { continue };
            let members = config.endpoints.get(&name);
            let cluster = self.cluster(cluster, members.map(|members| members.as_ref()))?;
            out.clusters.insert(cluster.name.clone(), Arc::new(cluster));
        }
        out.secrets.extend(config.secrets.iter().map(|(name, secret)| (self.named(name), secret.clone())));
        out.listeners.insert(listener.name.clone(), Arc::new(listener));
        out.telemetry = config.telemetry.clone();
        Ok(())
    }

    fn listener(&self, config: &ProxyConfig) -> Result<Listener> {
        let name = match self.role {
            Role::Gateway => format!("0.0.0.0_{POD_PORT}"),
            Role::Outbound => format!("0.0.0.0_{SERVICE_PORT}"),
            Role::Inbound => "virtualInbound".to_owned(),
        };
        let found = config.listeners.get(&name).with_context(|| format!("{}: there is no listener {name}", self.scenario))?;
        let mut listener = Listener::clone(found);
        if self.role == Role::Inbound {
            listener.filter_chains.retain(|chain: &FilterChain| chain.matches.destination_port == Some(POD_PORT));
            listener.filter_chains.iter_mut().for_each(|chain| chain.matches.destination_port = None);
        }
        // What is not HTTP would go to its original destination, which this machine does not know.
        listener.default_filter_chain = None;
        listener.name = prefix(self.scenario);
        listener.address = self.listen;
        listener.bind = true;
        listener.use_original_destination = false;
        Ok(listener)
    }

    fn rename(&self, cluster: &mut String, used: &mut BTreeSet<String>) {
        used.insert(cluster.clone());
        *cluster = self.named(cluster);
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", prefix(self.scenario))
    }

    /// What a Secret is used for decides what a proxy gets of it, so each scenario has its own.
    fn rename_secret(&self, source: &mut CertificateSource) {
        if let CertificateSource::Secret(name) = source {
            *name = self.named(name);
        }
    }

    fn routes(&self, table: &RouteConfiguration, used: &mut BTreeSet<String>) -> RouteConfiguration {
        let mut table = table.clone();
        table.name = self.named(&table.name);
        for route in table.virtual_hosts.iter_mut().flat_map(|host| &mut Arc::make_mut(host).routes) {
            if let RouteAction::Forward(forward) = &mut route.action {
                forward.destinations.iter_mut().for_each(|destination| self.rename(&mut destination.cluster, used));
                forward.mirrors.iter_mut().for_each(|mirror| self.rename(&mut mirror.cluster, used));
            }
        }
        table
    }

    /// Policies that name the workload's port mean the listener's.
    fn ports_of(&self, access: &mut HttpAccess) {
        let custom = access.custom.iter_mut().map(|custom| &mut custom.policy);
        let policies = [&mut access.audit, &mut access.deny, &mut access.allow].into_iter().flatten().chain(custom);
        let conditions =
            policies.flat_map(|policy| &mut policy.rules).flat_map(|rule| rule.to.iter_mut().flatten().chain(&mut rule.when));
        for condition in conditions {
            for value in condition.values.iter_mut().chain(&mut condition.not_values) {
                if *value == AttributeMatch::Port(POD_PORT) {
                    *value = AttributeMatch::Port(self.listen.port());
                }
            }
        }
    }

    fn cluster(&self, cluster: &Cluster, members: Option<&Endpoints>) -> Result<Cluster> {
        let mut cluster = cluster.clone();
        cluster.name = self.named(&cluster.name);
        if let UpstreamTls::Custom { client_certificate, ca, .. } = &mut cluster.tls {
            client_certificate.iter_mut().chain(ca).for_each(|source| self.rename_secret(source));
        }
        let mut endpoints = match (&cluster.discovery, members) {
            (Discovery::Eds, members) => members.cloned().unwrap_or_default(),
            (Discovery::Static(endpoints), _) => endpoints.clone(),
            // The workload's own port, or wherever the client wanted to go: there is one server on this machine.
            (Discovery::OriginalDestination, _) if self.role == Role::Inbound => {
                cluster.load_balancer = LoadBalancer::RoundRobin { warmup_ms: 0 };
                let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), POD_PORT);
                Endpoints { endpoints: vec![Endpoint { address, weight: 1, priority: 0, metadata: Default::default() }] }
            }
            // Unknown destinations: nobody is there.
            (Discovery::OriginalDestination, _) => {
                cluster.load_balancer = LoadBalancer::RoundRobin { warmup_ms: 0 };
                Endpoints::default()
            }
            (other, _) => bail!("{}: discovery {other:?} is not placed", cluster.name),
        };
        for endpoint in &mut endpoints.endpoints {
            let pod = if endpoint.address.ip().is_loopback() { Some("server") } else { self.world.pod_at(endpoint.address) };
            let address = pod.and_then(|pod| self.upstreams.address(pod));
            endpoint.address = address.with_context(|| format!("{} is no pod of the world", endpoint.address))?;
        }
        cluster.discovery = Discovery::Static(endpoints);
        Ok(cluster)
    }
}
