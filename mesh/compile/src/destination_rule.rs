//! DestinationRules: which one applies to a service for a client, and what it says for a subset and a port.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshlab_istio_api::{DestinationRule, Object, Subset, TrafficPolicy};
use meshlab_proxy_config::Origin;

use crate::host;
use crate::kubernetes::Labels;
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::registry::{MeshService, origin, selects};
use crate::sources::{Sources, Store};
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
    exact: BTreeMap<String, Arc<[Arc<ConsolidatedRule>]>>,
    /// The more specific first.
    wildcard: Vec<(String, Arc<[Arc<ConsolidatedRule>]>)>,
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

/// What the rules are made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DestinationRulesInputs {
    mesh: Same<MeshConfig>,
    destination_rules: Same<Store<Object<DestinationRule>>>,
}

/// What the rules for one host in one namespace are made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RuleInputs {
    mesh: Same<MeshConfig>,
    objects: Objects,
}

/// Rules as they were written, the oldest first.
type Objects = Vec<Same<Object<DestinationRule>>>;

impl DestinationRulesInputs {
    pub(crate) fn of(sources: &Sources) -> Self {
        Self { mesh: Same::of(&sources.mesh), destination_rules: Same::of(&sources.destination_rules) }
    }
}

/// Merges the rules for one host in one namespace. Those for other clients, or that others see, stay apart.
fn merged(inputs: &RuleInputs, _: &Memos) -> Arc<[Arc<ConsolidatedRule>]> {
    let mut out: Vec<ConsolidatedRule> = Vec::new();
    for object in &inputs.objects {
        let rule = consolidated(object, &inputs.mesh);
        let same = |other: &&mut ConsolidatedRule| {
            other.workload_selector == rule.workload_selector && other.visibility == rule.visibility
        };
        match out.iter_mut().find(same) {
            Some(existing) => merge(existing, rule),
            None => out.push(rule),
        }
    }
    out.into_iter().map(Arc::new).collect()
}

fn host_of(object: &Object<DestinationRule>, mesh: &MeshConfig) -> String {
    host::resolve(&object.spec.host, &object.meta.namespace, &mesh.domain_suffix).to_lowercase()
}

impl DestinationRules {
    /// Merges and indexes the rules.
    pub(crate) fn new(inputs: &DestinationRulesInputs, memos: &Memos) -> Same<Self> {
        let mesh = &inputs.mesh;
        let mut objects: Vec<&Arc<Object<DestinationRule>>> = inputs.destination_rules.values().collect();
        objects.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let mut grouped: BTreeMap<&str, BTreeMap<String, Objects>> = BTreeMap::new();
        for object in objects {
            let by_host = grouped.entry(&object.meta.namespace).or_default();
            by_host.entry(host_of(object, mesh)).or_default().push(Same::of(object));
        }
        let mut by_namespace = BTreeMap::new();
        for (namespace, by_host) in grouped {
            let mut rules = NamespaceRules::default();
            for (host, objects) in by_host {
                let list = memos.rules.get(RuleInputs { mesh: mesh.clone(), objects }, memos, merged);
                if host::is_wildcard(&host) {
                    rules.wildcard.push((host, list));
                } else {
                    rules.exact.insert(host, list);
                }
            }
            rules.wildcard.sort_by(|(a, _), (b, _)| host::specificity(a, b));
            by_namespace.insert(namespace.to_owned(), rules);
        }
        Same::new(Self { by_namespace })
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
            .flat_map(|rules| rules.exact.values().chain(rules.wildcard.iter().map(|(_, list)| list)))
            .flat_map(|list| list.iter())
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

fn consolidated(object: &Object<DestinationRule>, mesh: &MeshConfig) -> ConsolidatedRule {
    let namespace = &object.meta.namespace;
    let spec = &object.spec;
    let place = |path: &str| origin("DestinationRule", namespace, &object.meta.name, path);
    ConsolidatedRule {
        host: host_of(object, mesh),
        traffic_policy: spec.traffic_policy.clone(),
        subsets: spec
            .subsets
            .iter()
            .enumerate()
            .map(|(i, subset)| (subset.clone(), place(&format!("spec.subsets[{i}]"))))
            .collect(),
        workload_selector: spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone()),
        visibility: Visibility::parse(&spec.export_to, &mesh.default_destination_rule_export_to, namespace),
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
