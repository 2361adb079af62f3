//! Upstream clusters: endpoints, choosing among them, connections to them, and what protects them.

pub(crate) mod breaker;
pub(crate) mod connect;
mod dns;
mod hash;
pub(crate) mod host;
pub(crate) mod members;
pub(crate) mod outlier;
pub(crate) mod pool;
pub(crate) mod stats;

pub(crate) use hash::xxh64;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use meshlab_proxy_config::{Discovery, Endpoint, LoadBalancer, ServiceIdentity, UpstreamTls};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::breaker::Breaker;
use self::host::Host;
use self::members::{Choice, Member, Members};
use self::stats::ClusterStats;
use crate::identity::CurrentIdentity;
use crate::io::Network;
use crate::options::{Limits, milliseconds};
use crate::telemetry::metrics::Metrics;
use crate::tls::client::ClientTls;
use crate::tls::{Secrets, TlsError};

/// Hosts remembered of a cluster that connects to the original destination.
const MAXIMUM_DYNAMIC_HOSTS: usize = 4096;

/// One cluster, configuration and state.
pub(crate) struct Cluster {
    pub(crate) name: Arc<str>,
    pub(crate) config: Arc<meshlab_proxy_config::Cluster>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) shared: Arc<Upstreams>,
    /// What telemetry calls it.
    pub(crate) service: Arc<ServiceIdentity>,
    tls: ClusterTls,
    members: ArcSwap<Members>,
    /// Held while members are rearranged; never while a request is served.
    pub(crate) rebuild: Mutex<()>,
    dynamic: ArcSwap<AHashMap<SocketAddr, Arc<Host>>>,
    rotation: AtomicUsize,
    is_resolved: AtomicBool,
    first_resolution: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
}

enum ClusterTls {
    None,
    /// To the hosts that take it.
    Auto(ClientTls),
    Always(ClientTls),
    /// It cannot be built: nothing is sent in the clear instead.
    Broken(String),
}

/// What the clusters of a proxy have in common.
pub(crate) struct Upstreams {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) identity: CurrentIdentity,
    pub(crate) metrics: Arc<Metrics>,
}

/// What a cluster is built with.
pub(crate) struct ClusterContext<'a> {
    pub(crate) shared: &'a Arc<Upstreams>,
    pub(crate) secrets: Secrets<'a>,
}

impl Cluster {
    /// Builds a cluster. The second value says what is wrong with its TLS: its connections are refused, all else works.
    pub(crate) fn new(
        config: Arc<meshlab_proxy_config::Cluster>,
        stats: Arc<ClusterStats>,
        context: &ClusterContext<'_>,
    ) -> (Arc<Self>, Option<TlsError>) {
        let (tls, problem) = match build_tls(&config, context) {
            Ok(tls) => (tls, None),
            Err(error) => (ClusterTls::Broken(error.to_string()), Some(error)),
        };
        let named = matches!(config.discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_));
        let cluster = Arc::new(Self {
            name: config.name.as_str().into(),
            breaker: Breaker::new(config.circuit_breaker),
            stats,
            service: context.shared.metrics.service(&config.service),
            shared: context.shared.clone(),
            tls,
            members: ArcSwap::from_pointee(Members::default()),
            rebuild: Mutex::new(()),
            dynamic: ArcSwap::default(),
            rotation: AtomicUsize::new(0),
            is_resolved: AtomicBool::new(!named),
            first_resolution: Notify::new(),
            tasks: Mutex::new(Vec::new()),
            config,
        });
        if let Discovery::Static(endpoints) = &cluster.config.discovery {
            cluster.set_endpoints(&endpoints.endpoints);
        }
        (cluster, problem)
    }

    /// Starts what a cluster does by itself. Called once it is in use.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut tasks = self.tasks.lock();
        if !tasks.is_empty() {
            return;
        }
        if matches!(self.config.discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_)) {
            tasks.push(tokio::spawn(dns::follow(Arc::downgrade(self))).abort_handle());
        }
        if let Some(config) = self.config.outlier_detection {
            let period = milliseconds(config.interval_ms.max(1));
            tasks.push(every(period, Arc::downgrade(self), move |cluster| outlier::sweep(cluster, &config)));
        }
        if self.config.idle_timeout_ms > 0 {
            let limit = milliseconds(self.config.idle_timeout_ms);
            let period = (limit / 2).clamp(Duration::from_millis(100), Duration::from_secs(30));
            tasks.push(every(period, Arc::downgrade(self), move |cluster| cluster.close_idle(limit)));
        }
    }

    pub(crate) fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Replaces the endpoints; those that stay keep their connections and their record.
    pub(crate) fn set_endpoints(&self, endpoints: &[Endpoint]) {
        let _rebuilding = self.rebuild.lock();
        let before = self.members();
        let known: AHashMap<SocketAddr, &Member> = before.all.iter().map(|member| (member.host.address, member)).collect();
        let mut seen = ahash::AHashSet::new();
        let members: Vec<Member> = endpoints
            .iter()
            .filter(|endpoint| endpoint.weight > 0 && seen.insert(endpoint.address))
            .map(|endpoint| {
                let host = match known.get(&endpoint.address) {
                    Some(member) if member.host.metadata == endpoint.metadata => member.host.clone(),
                    _ => Host::new(endpoint.address, endpoint.metadata.clone(), &self.shared.metrics.peers),
                };
                Member { host, weight: endpoint.weight, priority: endpoint.priority }
            })
            .collect();
        for gone in &before.all {
            if !members.iter().any(|member| Arc::ptr_eq(&member.host, &gone.host)) {
                gone.host.pool.close_all();
                if gone.host.health.ejected() {
                    self.stats.outlier_detection_ejections_active.decrement();
                }
            }
        }
        self.rearrange(members);
    }

    /// Arranges members anew. The caller holds `rebuild`.
    fn rearrange(&self, members: Vec<Member>) {
        let min_health = self.config.outlier_detection.map_or(0, |config| config.min_health_percent);
        self.members.store(Arc::new(Members::new(members, self.config.load_balancer, min_health)));
    }

    /// Chooses a host.
    pub(crate) fn choose(&self, choice: Choice<'_>) -> Option<Arc<Host>> {
        let original =
            self.config.discovery == Discovery::OriginalDestination || self.config.load_balancer == LoadBalancer::Passthrough;
        let chosen = if original {
            choice.original_destination.map(|address| self.dynamic_host(address))
        } else {
            self.members.load().choose(self.config.load_balancer, &self.rotation, choice)
        };
        if chosen.is_none() {
            self.stats.upstream_cx_none_healthy.increment();
        }
        chosen
    }

    fn dynamic_host(&self, address: SocketAddr) -> Arc<Host> {
        // An endpoint that is known keeps what is known of it (passthrough in a cluster with endpoints).
        if let Some(member) = self.members.load().all.iter().find(|member| member.host.address == address) {
            return member.host.clone();
        }
        if let Some(host) = self.dynamic.load().get(&address) {
            return host.clone();
        }
        let host = Host::new(address, Default::default(), &self.shared.metrics.peers);
        self.dynamic.rcu(|hosts| {
            let mut hosts = AHashMap::clone(hosts);
            if hosts.len() >= MAXIMUM_DYNAMIC_HOSTS {
                hosts.retain(|_, host| host.active() > 0);
            }
            hosts.entry(address).or_insert_with(|| host.clone());
            hosts
        });
        self.dynamic.load().get(&address).cloned().unwrap_or(host)
    }

    /// All hosts there are, for `/clusters`.
    pub(crate) fn hosts(&self) -> Vec<Member> {
        let mut hosts = self.members().all.clone();
        hosts.extend(self.dynamic.load().values().map(|host| Member { host: host.clone(), weight: 1, priority: 0 }));
        hosts
    }

    /// Waits for the first resolution of the cluster's names, if it has any, up to its connect timeout.
    pub(crate) async fn warmed(&self) {
        if self.is_resolved.load(Ordering::Acquire) {
            return;
        }
        let resolution = self.first_resolution.notified();
        tokio::pin!(resolution);
        resolution.as_mut().enable();
        if !self.is_resolved.load(Ordering::Acquire) {
            // No resolution in time: the request finds no endpoint.
            let _ = tokio::time::timeout(milliseconds(self.config.connect_timeout_ms), resolution).await;
        }
    }

    fn resolved(&self) {
        self.is_resolved.store(true, Ordering::Release);
        self.first_resolution.notify_waiters();
    }

    /// TLS for connections to `host`, or why there can be none.
    fn tls_for(&self, host: &Host) -> Result<Option<&ClientTls>, String> {
        match &self.tls {
            ClusterTls::None => Ok(None),
            ClusterTls::Auto(tls) => Ok(host.metadata.mtls.then_some(tls)),
            ClusterTls::Always(tls) => Ok(Some(tls)),
            ClusterTls::Broken(reason) => Err(reason.clone()),
        }
    }

    pub(crate) fn is_tls(&self, host: &Host) -> bool {
        !matches!(self.tls_for(host), Ok(None))
    }

    fn wake_waiting(&self) {
        for member in &self.members.load().all {
            member.host.pool.wake_waiting();
        }
        for host in self.dynamic.load().values() {
            host.pool.wake_waiting();
        }
    }

    fn close_idle(&self, limit: Duration) {
        for member in self.hosts() {
            member.host.pool.close_idle(limit);
        }
        if !self.dynamic.load().is_empty() {
            self.dynamic.rcu(|hosts| {
                let mut hosts = AHashMap::clone(hosts);
                hosts.retain(|_, host| host.active() > 0 || host.added.elapsed() < limit);
                hosts
            });
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
        for member in &self.members.load().all {
            member.host.pool.close_all();
            if member.host.health.ejected() {
                self.stats.outlier_detection_ejections_active.decrement();
            }
        }
        for host in self.dynamic.load().values() {
            host.pool.close_all();
        }
    }
}

fn every(period: Duration, cluster: Weak<Cluster>, act: impl Fn(&Cluster) + Send + 'static) -> AbortHandle {
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Some(cluster) = cluster.upgrade() else { return };
            act(&cluster);
        }
    })
    .abort_handle()
}

fn build_tls(config: &meshlab_proxy_config::Cluster, context: &ClusterContext<'_>) -> Result<ClusterTls, TlsError> {
    Ok(match &config.tls {
        UpstreamTls::Disable => ClusterTls::None,
        UpstreamTls::Auto(mesh) => ClusterTls::Auto(ClientTls::mesh(mesh, &context.shared.identity)?),
        UpstreamTls::Mesh(mesh) => ClusterTls::Always(ClientTls::mesh(mesh, &context.shared.identity)?),
        custom @ UpstreamTls::Custom { .. } => {
            let fallback = match &config.discovery {
                Discovery::StrictDns(names) | Discovery::LogicalDns(names) => names.first().map(|name| name.host.clone()),
                _ => None,
            };
            let fallback = fallback.unwrap_or_else(|| config.service.host.clone());
            match ClientTls::custom(custom, &fallback, context.secrets, &context.shared.identity)? {
                Some(tls) => ClusterTls::Always(tls),
                None => ClusterTls::None,
            }
        }
    })
}
