//! Upstream clusters: one for each port of each service, and one for each of its subsets.

mod endpoints;
mod tls;
pub(crate) use tls::secret_key;
mod traffic_policy;

use std::sync::Arc;

use meshlab_istio_api::{H2UpgradePolicy, Subset, TrafficPolicy};
use meshlab_proxy_config::{
    Cluster, Discovery, DnsEndpoint, Endpoints, LoadBalancer, Origin, ServiceIdentity, UpstreamProtocol, UpstreamTls,
};

use crate::destination_rule::{merge_policy, policy_for_port};
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::protocol::Protocol;
use crate::proxy::{ClusterClient, Role};
use crate::registry::{Instance, MeshPort, MeshService, Resolution, selects};
use crate::security::peer::PeerPolicies;
use crate::traffic::Target;

/// Traffic to unknown destinations goes where it was meant to go.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// Traffic that goes nowhere.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// Inbound traffic on ports that no service has.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// Istio's default limit for connecting.
const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Envoy's default idle time of an upstream connection.
const IDLE_TIMEOUT_MS: u64 = 3_600_000;

/// `outbound|PORT|SUBSET|HOST`
pub(crate) fn cluster_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `inbound|PORT||`, by the workload's port.
pub(crate) fn inbound_cluster_name(port: u16) -> String {
    format!("inbound|{port}||")
}

/// A cluster and, if it is told its endpoints, those.
pub(crate) type Compiled = (Arc<Cluster>, Option<Arc<Endpoints>>);

/// What the clusters of one service are built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClusterInputs {
    pub(crate) mesh: Same<MeshConfig>,
    pub(crate) peers: Same<PeerPolicies>,
    pub(crate) target: Target,
    pub(crate) client: Arc<ClusterClient>,
}

/// The clusters of one service.
pub(crate) fn service_clusters(inputs: &ClusterInputs, memos: &Memos) -> Arc<[Compiled]> {
    let Target { service, rule } = &inputs.target;
    let mut built = Vec::new();
    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
        let policy = policy_for_port(rule.as_ref().and_then(|rule| rule.traffic_policy.as_ref()), port.number);
        let mut origins = vec![service.origin.clone()];
        origins.extend(rule.iter().flat_map(|rule| rule.origins.iter().cloned()));
        let build = Build { mesh: &inputs.mesh, peers: &inputs.peers, client: &inputs.client, service, port };
        built.extend(build.cluster("", None, &policy, &origins));
        for (subset, origin) in rule.iter().flat_map(|rule| &rule.subsets) {
            let policy = merge_policy(policy.clone(), subset.traffic_policy.as_ref(), port.number);
            let mut origins = origins.clone();
            origins.push(origin.clone());
            built.extend(build.cluster(&subset.name, Some(subset), &policy, &origins));
        }
    }
    let shared = built.into_iter().map(|(cluster, endpoints): (Cluster, Option<Endpoints>)| {
        let endpoints = endpoints.map(|endpoints| memos.equal_endpoints.share(&cluster.name, endpoints));
        let name = cluster.name.clone();
        (memos.equal_clusters.share(&name, cluster), endpoints)
    });
    shared.collect()
}

/// What a port's clusters are built from.
pub(crate) struct Build<'a> {
    mesh: &'a MeshConfig,
    peers: &'a PeerPolicies,
    client: &'a ClusterClient,
    service: &'a MeshService,
    port: &'a MeshPort,
}

impl Build<'_> {
    fn cluster(
        &self,
        name: &str,
        subset: Option<&Subset>,
        policy: &TrafficPolicy,
        origins: &[Origin],
    ) -> Option<(Cluster, Option<Endpoints>)> {
        let instances: Vec<&Arc<Instance>> = self
            .service
            .endpoints
            .get(&self.port.number)
            .into_iter()
            .flatten()
            .filter(|instance| subset.is_none_or(|subset| selects(&subset.labels, &instance.labels)))
            .collect();
        let load_balancer = traffic_policy::load_balancer(policy.load_balancer.as_ref());
        let discovery = self.discovery(load_balancer, &instances)?;
        let original = discovery == Discovery::OriginalDestination;
        let mesh = self.mesh;
        let pool = policy.connection_pool.as_ref();
        let tcp = pool.and_then(|pool| pool.tcp.as_ref());
        let http = pool.and_then(|pool| pool.http.as_ref());
        let connect_timeout = tcp.and_then(|tcp| tcp.connect_timeout).or(mesh.connect_timeout);
        let keepalive = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()).or(mesh.tcp_keepalive.as_ref());
        let protocol = self.protocol(policy);
        let endpoints = (discovery == Discovery::Eds).then(|| self.endpoints(&instances, policy));
        let cluster = Cluster {
            name: cluster_name(self.port.number, name, &self.service.host),
            discovery,
            load_balancer: if original { LoadBalancer::Passthrough } else { load_balancer },
            connect_timeout_ms: connect_timeout.map_or(CONNECT_TIMEOUT_MS, |timeout| timeout.millis()),
            protocol,
            tls: tls::upstream(self, name, policy.tls.as_ref(), protocol, original, &instances),
            circuit_breaker: traffic_policy::circuit_breaker(pool),
            outlier_detection: policy.outlier_detection.as_ref().map(traffic_policy::outlier_detection),
            max_requests_per_connection: http.map_or(0, |http| u32::try_from(http.max_requests_per_connection).unwrap_or(0)),
            idle_timeout_ms: http.and_then(|http| http.idle_timeout).map_or(IDLE_TIMEOUT_MS, |timeout| timeout.millis()),
            tcp_keepalive: keepalive.map(traffic_policy::keepalive),
            proxy_protocol: policy.proxy_protocol.as_ref().map(traffic_policy::proxy_protocol),
            service: ServiceIdentity {
                host: self.service.host.clone(),
                name: self.service.name.clone(),
                namespace: self.service.namespace.clone(),
            },
            origins: origins.to_vec(),
        };
        Some((cluster, endpoints))
    }

    fn discovery(&self, load_balancer: LoadBalancer, instances: &[&Arc<Instance>]) -> Option<Discovery> {
        let names = || -> Vec<DnsEndpoint> {
            let name = |instance: &&Arc<Instance>| DnsEndpoint {
                host: instance.address.clone(),
                port: instance.port,
                weight: instance.weight,
                metadata: endpoints::metadata(instance, self.mesh, self.peers),
            };
            instances.iter().map(name).collect()
        };
        Some(match self.service.resolution {
            // A gateway has no original destination.
            Resolution::Passthrough if self.client.role == Role::Sidecar => Discovery::OriginalDestination,
            Resolution::Passthrough => Discovery::Eds,
            Resolution::Eds if load_balancer == LoadBalancer::Passthrough && self.client.role == Role::Sidecar => {
                Discovery::OriginalDestination
            }
            Resolution::Eds => Discovery::Eds,
            // A name that cannot be resolved makes no cluster, so that requests to it end in NC.
            Resolution::Dns | Resolution::DnsRoundRobin if instances.is_empty() => return None,
            Resolution::Dns => Discovery::StrictDns(names()),
            Resolution::DnsRoundRobin => Discovery::LogicalDns(names()),
        })
    }

    fn protocol(&self, policy: &TrafficPolicy) -> UpstreamProtocol {
        let http = policy.connection_pool.as_ref().and_then(|pool| pool.http.as_ref());
        let upgrade = match http.map(|http| http.h2_upgrade_policy) {
            Some(H2UpgradePolicy::Upgrade) => true,
            Some(H2UpgradePolicy::DoNotUpgrade) => false,
            Some(H2UpgradePolicy::Default) | None => self.mesh.h2_upgrade_policy == "UPGRADE",
        };
        let protocol = self.port.protocol;
        if protocol == Protocol::Sniffed || (protocol.is_http() && http.is_some_and(|http| http.use_client_protocol)) {
            UpstreamProtocol::SameAsDownstream
        } else if protocol.is_http2() || (protocol.is_http() && upgrade) {
            UpstreamProtocol::Http2
        } else if protocol.is_http() {
            UpstreamProtocol::Http1
        } else {
            UpstreamProtocol::Tcp
        }
    }
}

/// The clusters that every sidecar has.
pub(crate) fn fixed_clusters(role: Role) -> Vec<Arc<Cluster>> {
    let fixed = |name: &str, discovery: Discovery, protocol: UpstreamProtocol| {
        let load_balancer = match discovery {
            Discovery::OriginalDestination => LoadBalancer::Passthrough,
            _ => LoadBalancer::RoundRobin { warmup_ms: 0 },
        };
        Arc::new(Cluster {
            name: name.into(),
            discovery,
            load_balancer,
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            protocol,
            tls: UpstreamTls::Disable,
            circuit_breaker: Default::default(),
            outlier_detection: None,
            max_requests_per_connection: 0,
            idle_timeout_ms: IDLE_TIMEOUT_MS,
            tcp_keepalive: None,
            proxy_protocol: None,
            service: ServiceIdentity { host: name.into(), name: name.into(), namespace: "unknown".into() },
            origins: Vec::new(),
        })
    };
    let mut out = vec![fixed(BLACK_HOLE, Discovery::Static(Endpoints::default()), UpstreamProtocol::Tcp)];
    if role == Role::Sidecar {
        out.push(fixed(PASSTHROUGH, Discovery::OriginalDestination, UpstreamProtocol::SameAsDownstream));
        out.push(fixed(INBOUND_PASSTHROUGH, Discovery::OriginalDestination, UpstreamProtocol::SameAsDownstream));
    }
    out
}

/// The cluster of a workload's own port.
pub(crate) fn inbound_cluster(
    port: u16,
    protocol: Protocol,
    service: ServiceIdentity,
    pool: Option<&meshlab_istio_api::ConnectionPoolSettings>,
    origin: Option<Origin>,
) -> Cluster {
    let http = pool.and_then(|pool| pool.http.as_ref());
    Cluster {
        name: inbound_cluster_name(port),
        discovery: Discovery::OriginalDestination,
        load_balancer: LoadBalancer::Passthrough,
        connect_timeout_ms: CONNECT_TIMEOUT_MS,
        protocol: match protocol {
            Protocol::Sniffed => UpstreamProtocol::SameAsDownstream,
            protocol if protocol.is_http2() => UpstreamProtocol::Http2,
            protocol if protocol.is_http() => UpstreamProtocol::Http1,
            _ => UpstreamProtocol::Tcp,
        },
        tls: UpstreamTls::Disable,
        circuit_breaker: traffic_policy::circuit_breaker(pool),
        outlier_detection: None,
        max_requests_per_connection: http.map_or(0, |http| u32::try_from(http.max_requests_per_connection).unwrap_or(0)),
        idle_timeout_ms: http.and_then(|http| http.idle_timeout).map_or(IDLE_TIMEOUT_MS, |timeout| timeout.millis()),
        tcp_keepalive: None,
        proxy_protocol: None,
        service,
        origins: origin.into_iter().collect(),
    }
}
