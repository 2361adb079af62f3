//! The members of a cluster: identity, mutual TLS, and priority by locality.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use meshlab_istio_api::{LocalityLbSetting, TrafficPolicy};
use meshlab_proxy_config::{Endpoint, EndpointMetadata, Endpoints};

use super::Build;
use crate::kubernetes::Labels;
use crate::mesh_config::MeshConfig;
use crate::registry::Instance;
use crate::security::peer::{Mode, PeerPolicies};

/// Labels that telemetry wants of an endpoint.
const TELEMETRY_LABELS: [&str; 6] = [
    "app",
    "version",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
];

/// SPIFFE identity of an endpoint in the mesh.
pub(super) fn identity(instance: &Instance, trust_domain: &str) -> Option<String> {
    let known = instance.sidecar && !instance.service_account.is_empty();
    known.then(|| format!("spiffe://{trust_domain}/ns/{}/sa/{}", instance.namespace, instance.service_account))
}

/// Whether an endpoint takes mutual TLS: it has a sidecar, and no policy forbids it on its port.
pub(super) fn takes_mtls(instance: &Instance, peers: &PeerPolicies) -> bool {
    instance.sidecar && peers.of_workload(&instance.namespace, &instance.labels).of_port(instance.port) != Mode::Disable
}

pub(super) fn metadata(instance: &Instance, mesh: &MeshConfig, peers: &PeerPolicies) -> EndpointMetadata {
    let labels = TELEMETRY_LABELS.iter().filter_map(|key| instance.labels.get_key_value(*key));
    EndpointMetadata {
        mtls: takes_mtls(instance, peers),
        locality: instance.locality.clone(),
        workload: instance.workload.clone(),
        namespace: instance.namespace.clone(),
        identity: identity(instance, &mesh.trust_domain),
        labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

impl Build<'_> {
    /// The members, in order of address.
    pub(super) fn endpoints(&self, instances: &[&Arc<Instance>], policy: &TrafficPolicy) -> Endpoints {
        let mut endpoints: Vec<(Endpoint, &Instance)> = instances
            .iter()
            .filter_map(|instance| {
                let address: IpAddr = instance.address.parse().ok()?;
                let endpoint = Endpoint {
                    address: SocketAddr::new(address, instance.port),
                    weight: instance.weight,
                    priority: 0,
                    metadata: metadata(instance, self.mesh, self.peers),
                };
                Some((endpoint, instance.as_ref()))
            })
            .collect();
        let own = policy.load_balancer.as_ref().and_then(|lb| lb.locality_lb_setting.as_ref());
        let setting = own.or(self.mesh.locality_lb_setting.as_ref());
        let close = LocalityLbSetting::default();
        let setting = if self.service.prefer_close && own.is_none() { Some(&close) } else { setting };
        let enabled = setting.is_some_and(|setting| setting.enabled.unwrap_or(true));
        if let Some(setting) = setting.filter(|_| enabled) {
            if setting.distribute.is_empty() {
                // Failing over needs to know who has failed.
                if policy.outlier_detection.is_some() || self.service.prefer_close {
                    self.failover(setting, &mut endpoints);
                }
            } else {
                distribute(setting, &self.client.locality, &mut endpoints);
            }
        }
        let mut endpoints: Vec<Endpoint> = endpoints.into_iter().map(|(endpoint, _)| endpoint).collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        Endpoints { endpoints }
    }

    fn failover(&self, setting: &LocalityLbSetting, endpoints: &mut [(Endpoint, &Instance)]) {
        if !setting.failover_priority.is_empty() {
            let own = with_topology(&self.client.labels, &self.client.locality, "");
            for (endpoint, instance) in endpoints.iter_mut() {
                let theirs = with_topology(&instance.labels, &instance.locality, &instance.node);
                endpoint.priority = label_priority(&setting.failover_priority, &own, &theirs);
            }
        } else if self.client.locality.is_empty() {
            return;
        } else {
            for (endpoint, instance) in endpoints.iter_mut() {
                endpoint.priority = locality_priority(&self.client.locality, &instance.locality, setting);
            }
        }
        // Priorities are numbered without gaps.
        let used: BTreeSet<u32> = endpoints.iter().map(|(endpoint, _)| endpoint.priority).collect();
        let rank: BTreeMap<u32, u32> = used.into_iter().zip(0..).collect();
        for (endpoint, _) in endpoints.iter_mut() {
            endpoint.priority = rank[&endpoint.priority];
        }
    }
}

/// The same subzone first, then the zone, then the region, then the region named for failing over, then the rest.
fn locality_priority(own: &str, theirs: &str, setting: &LocalityLbSetting) -> u32 {
    let part = |locality: &'_ str, index: usize| locality.split('/').nth(index).unwrap_or_default().to_owned();
    let same = |index: usize| part(own, index) == part(theirs, index);
    if !same(0) {
        let region = part(own, 0);
        return match setting.failover.iter().find(|failover| failover.from == region) {
            Some(failover) if failover.to == part(theirs, 0) => 3,
            Some(_) => 4,
            None => 3,
        };
    }
    match (same(1), same(2)) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// The number of labels, from the last, that are not matched in a row from the first.
fn label_priority(wanted: &[String], own: &Labels, theirs: &Labels) -> u32 {
    let matched = wanted
        .iter()
        .take_while(|entry| match entry.split_once('=') {
            Some((key, value)) => theirs.get(key).is_some_and(|theirs| theirs == value),
            None => theirs.get(entry.as_str()) == own.get(entry.as_str()),
        })
        .count();
    u32::try_from(wanted.len() - matched).unwrap_or(u32::MAX)
}

/// Labels with those that Istio derives from the locality.
fn with_topology(labels: &Labels, locality: &str, node: &str) -> Labels {
    let mut out = labels.clone();
    for (index, key) in
        ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"].iter().enumerate()
    {
        if let Some(value) = locality.split('/').nth(index).filter(|value| !value.is_empty()) {
            out.entry((*key).to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    if !node.is_empty() {
        out.entry("kubernetes.io/hostname".to_owned()).or_insert_with(|| node.to_owned());
    }
    out
}

/// Gives every locality its share; those that have none get no traffic.
fn distribute(setting: &LocalityLbSetting, own: &str, endpoints: &mut Vec<(Endpoint, &Instance)>) {
    let Some(rule) = setting.distribute.iter().find(|rule| locality_matches(&rule.from, own)) else { return };
    let mut shares: Vec<(u64, Vec<usize>)> = rule
        .to
        .iter()
        .map(|(pattern, share)| {
            let members = endpoints.iter().enumerate().filter(|(_, (_, instance))| locality_matches(pattern, &instance.locality));
            (u64::from(*share), members.map(|(index, _)| index).collect())
        })
        .collect();
    let mut weights: BTreeMap<usize, u32> = BTreeMap::new();
    for (share, members) in &mut shares {
        members.retain(|index| !weights.contains_key(index));
        let total: u64 = members.iter().map(|index| u64::from(endpoints[*index].0.weight)).sum();
        for index in members.iter() {
            let weight = *share * 10_000 * u64::from(endpoints[*index].0.weight) / total.max(1);
            weights.insert(*index, u32::try_from(weight.max(1)).unwrap_or(u32::MAX));
        }
    }
    let mut index = 0;
    endpoints.retain_mut(|(endpoint, _)| {
        let weight = weights.get(&index);
        index += 1;
        endpoint.weight = weight.copied().unwrap_or(endpoint.weight);
        weight.is_some()
    });
}

/// `region/zone/*` takes every subzone.
fn locality_matches(pattern: &str, locality: &str) -> bool {
    let mut parts = locality.split('/');
    for wanted in pattern.split('/') {
        let part = parts.next().unwrap_or_default();
        if wanted == "*" {
            return true;
        }
        if wanted != part {
            return false;
        }
    }
    true
}
