//! HTTP routes: from VirtualService rules, and the ones that every service has.

mod action;
mod matching;
mod policy;
mod sidecar;

use std::sync::Arc;

use meshlab_proxy_config::{Destination, Forward, HashPolicy, HeaderOperations, PathMatch, Route, RouteAction, RouteMatch};

use crate::destination_rule::{merge_policy, policy_for_port};
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::proxy::RouteClient;
use crate::registry::MeshService;
use crate::traffic::{Target, Traffic};
use crate::virtual_service::ResolvedVirtualService;

pub(crate) use action::destination_port;
pub(crate) use matching::is_catch_all;
pub(crate) use policy::{default_retry, inbound_retry};
pub(crate) use sidecar::{Named, ServiceRouteInputs, SidecarRoutes, SniffedInputs, VirtualHostInputs};

/// Finds the service that a full host name means.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<&'a Arc<MeshService>> + 'a;

/// Routes in order, shared by all that have the same.
pub(crate) type Routes = Same<Vec<Route>>;

/// For whom and where routes are compiled.
pub(crate) struct RouteContext<'a, 'b> {
    /// All there is.
    pub traffic: &'a Traffic,
    /// Who sends.
    pub client: &'b Arc<RouteClient>,
    /// `mesh`, or the gateway.
    pub gateway: &'b str,
    /// The port that requests are addressed to.
    pub port: u16,
    /// They come in over TLS that is terminated here.
    pub tls: bool,
    /// Finds services.
    pub lookup: &'b Lookup<'a>,
    /// What is remembered.
    pub memos: &'b Memos,
}

impl RouteContext<'_, '_> {
    /// The routes of a VirtualService.
    pub(crate) fn routes(&self, virtual_service: &Arc<ResolvedVirtualService>) -> Routes {
        let target = |host: &str| (self.lookup)(host).map(|service| self.traffic.target(service, self.client));
        let inputs = RoutesInputs {
            mesh: self.traffic.mesh.clone(),
            virtual_service: Same::of(virtual_service),
            targets: virtual_service.http_destinations().map(|destination| target(&destination.host)).collect(),
            client: self.client.clone(),
            gateway: self.gateway.to_owned(),
            port: self.port,
            tls: self.tls,
        };
        self.memos.routes.get(inputs, self.memos, http_routes)
    }
}

/// What the routes of a VirtualService on one port are compiled from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RoutesInputs {
    mesh: Same<MeshConfig>,
    virtual_service: Same<ResolvedVirtualService>,
    /// What its destinations mean, in the order of [`ResolvedVirtualService::http_destinations`].
    targets: Vec<Option<Target>>,
    client: Arc<RouteClient>,
    gateway: String,
    port: u16,
    tls: bool,
}

impl RoutesInputs {
    /// What one of the destinations means.
    fn target(&self, host: &str) -> Option<&Target> {
        let at = self.virtual_service.http_destinations().position(|destination| destination.host == host)?;
        self.targets.get(at)?.as_ref()
    }
}

impl Target {
    /// What a request is hashed by.
    fn hash_policy(&self, subset: &str, port: u16) -> Option<HashPolicy> {
        let rule = self.rule.as_ref()?;
        let mut policy = policy_for_port(rule.traffic_policy.as_ref(), port);
        if !subset.is_empty() {
            let (subset, _) = rule.subsets.iter().find(|(known, _)| known.name == subset)?;
            policy = merge_policy(policy, subset.traffic_policy.as_ref(), port);
        }
        policy::hash_policy(policy.load_balancer?.consistent_hash.as_ref()?)
    }
}

/// The routes of a VirtualService on one port, in order. After one that takes every request there are no more.
fn http_routes(inputs: &RoutesInputs, _: &Memos) -> Routes {
    let mut out = Vec::new();
    for resolved in &inputs.virtual_service.http {
        if resolved.rule.r#match.is_empty() {
            out.extend(action::translate(resolved, None, inputs));
            break;
        }
        for (index, entry) in resolved.rule.r#match.iter().enumerate() {
            let Some(route) = action::translate(resolved, Some((index, entry)), inputs) else { continue };
            let catch_all = is_catch_all(&route);
            out.push(route);
            if catch_all {
                return Same::new(out);
            }
        }
    }
    Same::new(out)
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
