//! DestinationRules: which one applies to a service for a client, and what it says for a subset and a port.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshlab_istio_api::{DestinationRule, Object, Subset, TrafficPolicy};
use meshlab_proxy_config::Origin;

use crate::host;
use crate::kubernetes::Labels;
use crate::registry::{MeshService, origin, selects};
use crate::sources::Sources;
use crate::visibility::Visibility;

/// The rules for one host in one namespace, merged.
#[derive(Debug, Clone)]
pub struct ConsolidatedRule {
    /// Full host name.
    pub host: String,
    /// Top-level policies: those of the first rule that has any.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Subsets of all of them; of two with one name the older counts.
    pub subsets: Vec<(Subset, Origin)>,
    /// The clients it is for.
    pub workload_selector: Option<Labels>,
    /// Who sees it.
    pub visibility: Visibility,
    /// The rules it was merged from, oldest first.
    pub origins: Vec<Origin>,
}

/// Rules by namespace, then by host.
#[derive(Debug, Default)]
pub struct DestinationRules {
    by_namespace: BTreeMap<String, NamespaceRules>,
}

#[derive(Debug, Default)]
struct NamespaceRules {
    exact: BTreeMap<String, Vec<Arc<ConsolidatedRule>>>,
    /// The more specific first.
    wildcard: Vec<(String, Vec<Arc<ConsolidatedRule>>)>,
}

impl NamespaceRules {
    /// The rules for the most specific host that takes `host`.
    fn most_specific(&self, host: &str) -> &[Arc<ConsolidatedRule>] {
        if let Some(rules) = self.exact.get(host) {
            return rules;
        }
        let found = self.wildcard.iter().find(|(pattern, _)| host::is_subset(host, pattern));
        found.map_or(&[], |(_, rules)| rules)
    }
}

impl DestinationRules {
    /// Merges and indexes the rules.
    pub fn new(sources: &Sources) -> Self {
        let mut objects: Vec<&Arc<Object<DestinationRule>>> = sources.destination_rules.values().collect();
        objects.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let mut merged: BTreeMap<String, BTreeMap<String, Vec<ConsolidatedRule>>> = BTreeMap::new();
        for object in objects {
            let namespace = &object.meta.namespace;
            let rule = consolidated(object, sources);
            let list = merged.entry(namespace.clone()).or_default().entry(rule.host.clone()).or_default();
            let same = |other: &&mut ConsolidatedRule| {
                other.workload_selector == rule.workload_selector && other.visibility == rule.visibility
            };
            match list.iter_mut().find(same) {
                Some(existing) => merge(existing, rule),
                None => list.push(rule),
            }
        }
        let by_namespace = merged
            .into_iter()
            .map(|(namespace, by_host)| {
                let mut rules = NamespaceRules::default();
                for (host, list) in by_host {
                    let list: Vec<_> = list.into_iter().map(Arc::new).collect();
                    if host::is_wildcard(&host) {
                        rules.wildcard.push((host, list));
                    } else {
                        rules.exact.insert(host, list);
                    }
                }
                rules.wildcard.sort_by(|(a, _), (b, _)| host::specificity(a, b));
                (namespace, rules)
            })
            .collect();
        Self { by_namespace }
    }

    /// The rule for a service, as clients in `namespace` with these labels see it. The client's own namespace comes first, then
    /// the service's, then the root namespace; the first that has any is taken, and none are merged.
    pub fn lookup(
        &self,
        service: &MeshService,
        namespace: &str,
        labels: &Labels,
        root_namespace: &str,
    ) -> Option<&Arc<ConsolidatedRule>> {
        if namespace != root_namespace {
            let own = self.rules_in(namespace, &service.host);
            if !own.is_empty() {
                return select(own.iter(), labels, true);
            }
        }
        for owner in [service.namespace.as_str(), root_namespace] {
            let local = owner == namespace;
            let visible: Vec<_> = self
                .rules_in(owner, &service.host)
                .iter()
                .filter(|rule| local || rule.visibility.visible_in(namespace))
                .collect();
            if !visible.is_empty() {
                return select(visible.into_iter(), labels, local);
            }
        }
        None
    }

    fn rules_in(&self, namespace: &str, host: &str) -> &[Arc<ConsolidatedRule>] {
        self.by_namespace.get(namespace).map_or(&[], |rules| rules.most_specific(host))
    }

    /// All rules of all namespaces.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ConsolidatedRule>> {
        self.by_namespace
            .values()
            .flat_map(|rules| rules.exact.values().chain(rules.wildcard.iter().map(|(_, list)| list)).flatten())
    }
}

/// A rule that selects this client is taken before one for everybody; selectors only hold within their namespace.
fn select<'a>(
    rules: impl Iterator<Item = &'a Arc<ConsolidatedRule>> + Clone,
    labels: &Labels,
    local: bool,
) -> Option<&'a Arc<ConsolidatedRule>> {
    let mine =
        rules.clone().find(|rule| local && rule.workload_selector.as_ref().is_some_and(|selector| selects(selector, labels)));
    mine.or_else(|| rules.clone().find(|rule| rule.workload_selector.is_none()))
}

fn consolidated(object: &Object<DestinationRule>, sources: &Sources) -> ConsolidatedRule {
    let namespace = &object.meta.namespace;
    let spec = &object.spec;
    let place = |path: &str| origin("DestinationRule", namespace, &object.meta.name, path);
    ConsolidatedRule {
        host: host::resolve(&spec.host, namespace, &sources.mesh.domain_suffix).to_lowercase(),
        traffic_policy: spec.traffic_policy.clone(),
        subsets: spec
            .subsets
            .iter()
            .enumerate()
            .map(|(i, subset)| (subset.clone(), place(&format!("spec.subsets[{i}]"))))
            .collect(),
        workload_selector: spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone()),
        visibility: Visibility::parse(&spec.export_to, &sources.mesh.default_destination_rule_export_to, namespace),
        origins: vec![place("")],
    }
}

fn merge(existing: &mut ConsolidatedRule, rule: ConsolidatedRule) {
    for (subset, origin) in rule.subsets {
        if existing.subsets.iter().all(|(known, _)| known.name != subset.name) {
            existing.subsets.push((subset, origin));
        }
    }
    existing.traffic_policy = existing.traffic_policy.take().or(rule.traffic_policy);
    existing.origins.extend(rule.origins);
}

/// The policies for one port: those of the port, if there are any, replace the others as a whole.
pub(crate) fn policy_for_port(policy: Option<&TrafficPolicy>, port: u16) -> TrafficPolicy {
    merge_policy(TrafficPolicy::default(), policy, port)
}

/// Lays a subset's policies over those of the service, block by block.
pub(crate) fn merge_policy(base: TrafficPolicy, over: Option<&TrafficPolicy>, port: u16) -> TrafficPolicy {
    let Some(over) = over else { return base };
    let mut out = base;
    let over = over.clone();
    out.connection_pool = over.connection_pool.or(out.connection_pool);
    out.outlier_detection = over.outlier_detection.or(out.outlier_detection);
    out.load_balancer = over.load_balancer.or(out.load_balancer);
    out.tls = over.tls.or(out.tls);
    out.tunnel = over.tunnel.or(out.tunnel);
    out.proxy_protocol = over.proxy_protocol.or(out.proxy_protocol);
    out.retry_budget = over.retry_budget.or(out.retry_budget);
    let of_port = |number: u32| number == u32::from(port);
    if let Some(own) = over.port_level_settings.into_iter().find(|own| own.port.is_some_and(|selector| of_port(selector.number)))
    {
        out.connection_pool = own.connection_pool;
        out.outlier_detection = own.outlier_detection;
        out.load_balancer = own.load_balancer;
        out.tls = own.tls;
    }
    out.port_level_settings = Vec::new();
    out
}
