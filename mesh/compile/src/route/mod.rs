//! HTTP routes: from VirtualService rules, and the ones that every service has.

mod action;
mod matching;
mod policy;
mod sidecar;

use std::sync::Arc;

use meshlab_proxy_config::{Destination, Forward, HashPolicy, HeaderOperations, PathMatch, Route, RouteAction, RouteMatch};

use crate::destination_rule::{ConsolidatedRule, merge_policy, policy_for_port};
use crate::kubernetes::Labels;
use crate::registry::MeshService;
use crate::snapshot::Snapshot;
use crate::virtual_service::ResolvedVirtualService;

pub(crate) use action::destination_port;
pub(crate) use matching::is_catch_all;
pub(crate) use policy::{default_retry, inbound_retry};
pub(crate) use sidecar::{port_virtual_hosts, sidecar_route, sniffed_route};

/// Finds the service that a full host name means.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<&'a Arc<MeshService>> + 'a;

/// For whom and where routes are compiled.
pub(crate) struct RouteContext<'a, 'b> {
    /// All there is.
    pub snapshot: &'a Snapshot,
    /// The proxy's namespace.
    pub namespace: &'b str,
    /// The proxy's labels.
    pub labels: &'b Labels,
    /// `mesh`, or the gateway.
    pub gateway: &'b str,
    /// The port that requests are addressed to.
    pub port: u16,
    /// They come in over TLS that is terminated here.
    pub tls: bool,
    /// Finds services.
    pub lookup: &'b Lookup<'a>,
}

impl<'a> RouteContext<'a, '_> {
    /// The destination rule for a service.
    fn destination_rule(&self, service: &MeshService) -> Option<&'a Arc<ConsolidatedRule>> {
        let root = &self.snapshot.sources().mesh.root_namespace;
        self.snapshot.destination_rules().lookup(service, self.namespace, self.labels, root)
    }

    /// What a request to a destination is hashed by.
    pub(crate) fn hash_policy(&self, service: &MeshService, subset: &str, port: u16) -> Option<HashPolicy> {
        let rule = self.destination_rule(service)?;
        let mut policy = policy_for_port(rule.traffic_policy.as_ref(), port);
        if !subset.is_empty() {
            let (subset, _) = rule.subsets.iter().find(|(known, _)| known.name == subset)?;
            policy = merge_policy(policy, subset.traffic_policy.as_ref(), port);
        }
        policy::hash_policy(policy.load_balancer?.consistent_hash.as_ref()?)
    }
}

/// The routes of a VirtualService on one port, in order. After one that takes every request there are no more.
pub(crate) fn http_routes(virtual_service: &ResolvedVirtualService, context: &RouteContext<'_, '_>) -> Vec<Route> {
    let mut out = Vec::new();
    for resolved in &virtual_service.http {
        if resolved.rule.r#match.is_empty() {
            out.extend(action::translate(virtual_service, resolved, None, context));
            break;
        }
        for (index, entry) in resolved.rule.r#match.iter().enumerate() {
            let Some(route) = action::translate(virtual_service, resolved, Some((index, entry)), context) else { continue };
            let catch_all = is_catch_all(&route);
            out.push(route);
            if catch_all {
                return out;
            }
        }
    }
    out
}

/// The route of a service that no VirtualService speaks of.
pub(crate) fn default_route(cluster: String, operation: String, forward: Forward) -> Route {
    Route {
        name: "default".into(),
        matches: everything(),
        action: RouteAction::Forward(Box::new(Forward { destinations: vec![whole(cluster)], ..forward })),
        request_headers: HeaderOperations::default(),
        response_headers: HeaderOperations::default(),
        fault: None,
        cors: None,
        operation,
        origin: None,
    }
}

/// A match that takes every request.
pub(crate) fn everything() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix("/".into()),
        ignore_path_case: false,
        headers: Vec::new(),
        query: Vec::new(),
        claims: Vec::new(),
    }
}

/// A destination that takes all.
pub(crate) fn whole(cluster: String) -> Destination {
    Destination {
        cluster,
        weight: 1,
        request_headers: HeaderOperations::default(),
        response_headers: HeaderOperations::default(),
        authority_rewrite: None,
    }
}

/// Forwarding without any policy.
pub(crate) fn plain_forward() -> Forward {
    Forward {
        destinations: Vec::new(),
        rewrite: None,
        authority_rewrite: None,
        timeout_ms: 0,
        retry: None,
        mirrors: Vec::new(),
        hash_policy: Vec::new(),
        upgrades: vec!["websocket".into()],
    }
}
