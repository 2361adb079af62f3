//! VirtualServices as the compiler sees them: names resolved, delegates merged in, oldest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshlab_istio_api::{
    Delegate, Destination, HttpMatchRequest, HttpRoute, Object, StringMatch, TcpRoute, TlsRoute, VirtualService,
};
use meshlab_proxy_config::Origin;

use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::registry::origin;
use crate::sources::{Key, Sources, Store};
use crate::visibility::Visibility;
use crate::{Problem, host, usable};

/// A VirtualService ready to be compiled.
#[derive(Debug, Clone)]
pub struct ResolvedVirtualService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Full host names, lower case.
    pub hosts: Vec<String>,
    /// `namespace/name` of gateways, and `mesh`.
    pub gateways: Vec<String>,
    /// HTTP rules, those of delegates among them.
    pub http: Vec<ResolvedRoute>,
    /// TLS rules.
    pub tls: Vec<TlsRoute>,
    /// TCP rules.
    pub tcp: Vec<TcpRoute>,
    /// Who sees it.
    pub visibility: Visibility,
    /// When it was made.
    pub created: String,
}

/// An HTTP rule and where it was written.
#[derive(Debug, Clone)]
pub struct ResolvedRoute {
    /// The rule, with full destination names.
    pub rule: HttpRoute,
    /// `spec.http[N]` of the VirtualService that has it.
    pub origin: Origin,
}

impl ResolvedVirtualService {
    /// Whether it applies to sidecars.
    pub fn on_mesh(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway == "mesh")
    }

    /// Every destination of its HTTP rules, mirrors among them.
    pub(crate) fn http_destinations(&self) -> impl Iterator<Item = &Destination> {
        self.http.iter().flat_map(|route| {
            let rule = &route.rule;
            rule.route.iter().map(|r| &r.destination).chain(&rule.mirror).chain(rule.mirrors.iter().map(|m| &m.destination))
        })
    }

    /// Every destination it can route to.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let tls = self.tls.iter().flat_map(|rule| rule.route.iter().map(|r| &r.destination));
        let tcp = self.tcp.iter().flat_map(|rule| rule.route.iter().map(|r| &r.destination));
        self.http_destinations().chain(tls).chain(tcp)
    }
}

/// All VirtualServices that have hosts.
#[derive(Debug, Default)]
pub(crate) struct VirtualServices {
    /// Oldest first, delegates merged into their roots.
    pub(crate) list: Vec<Arc<ResolvedVirtualService>>,
    by_gateway: BTreeMap<String, Vec<usize>>,
    /// What is wrong with them.
    pub(crate) problems: Vec<Problem>,
}

/// What the VirtualServices are made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VirtualServicesInputs {
    mesh: Same<MeshConfig>,
    virtual_services: Same<Store<Object<VirtualService>>>,
}

/// What one VirtualService is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VirtualServiceInputs {
    mesh: Same<MeshConfig>,
    object: Same<Object<VirtualService>>,
    /// The delegates of the http rules that have one, in their order; `None` where there is none of that name.
    delegates: Vec<Option<Same<Object<VirtualService>>>>,
}

/// A VirtualService, and what is wrong with it.
pub(crate) type Resolved = (Arc<ResolvedVirtualService>, Arc<[Problem]>);

impl VirtualServicesInputs {
    pub(crate) fn of(sources: &Sources) -> Self {
        Self { mesh: Same::of(&sources.mesh), virtual_services: Same::of(&sources.virtual_services) }
    }

    fn one(&self, object: &Arc<Object<VirtualService>>) -> VirtualServiceInputs {
        let named = object.spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
        let delegates = named.map(|delegate| {
            let key = delegate_key(delegate, &object.meta.namespace);
            self.virtual_services.get(&key).filter(|found| found.spec.hosts.is_empty()).map(Same::of)
        });
        VirtualServiceInputs { mesh: self.mesh.clone(), object: Same::of(object), delegates: delegates.collect() }
    }
}

fn delegate_key(delegate: &Delegate, namespace: &str) -> Key {
    let namespace = if delegate.namespace.is_empty() { namespace } else { &delegate.namespace };
    (namespace.to_owned(), delegate.name.clone())
}

impl VirtualServices {
    pub(crate) fn new(inputs: &VirtualServicesInputs, memos: &Memos) -> Same<Self> {
        let mut objects: Vec<_> = inputs.virtual_services.values().filter(|object| !object.spec.hosts.is_empty()).collect();
        objects.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let mut out = Self::default();
        for (index, object) in objects.into_iter().enumerate() {
            let (resolved, problems) = memos.resolved.get(inputs.one(object), memos, resolve);
            for gateway in &resolved.gateways {
                let list = out.by_gateway.entry(gateway.clone()).or_default();
                if list.last() != Some(&index) {
                    list.push(index);
                }
            }
            out.list.push(resolved);
            out.problems.extend(problems.iter().cloned());
        }
        Same::new(out)
    }

    /// The VirtualServices that name a gateway (`namespace/name`) or `mesh` and that `namespace` sees: first those that only it
    /// sees, then those exported to it, then the public ones, each oldest first.
    pub(crate) fn on_gateway(&self, gateway: &str, namespace: &str) -> Vec<&Arc<ResolvedVirtualService>> {
        let named = self.by_gateway.get(gateway).into_iter().flatten().map(|index| &self.list[*index]);
        let mut list: Vec<_> = named.filter(|vs| vs.visibility.visible_in(namespace)).collect();
        list.sort_by_key(|vs| match &vs.visibility {
            Visibility::Namespaces(_) if vs.namespace == namespace => 0,
            Visibility::Namespaces(_) | Visibility::None => 1,
            Visibility::Public => 2,
        });
        list
    }
}

fn resolve(inputs: &VirtualServiceInputs, _: &Memos) -> Resolved {
    let VirtualServiceInputs { mesh, object, delegates } = inputs;
    let mut delegates = delegates.iter();
    let mut problems = Vec::new();
    let namespace = &object.meta.namespace;
    let spec = &object.spec;
    let mut http = Vec::new();
    for (index, rule) in spec.http.iter().enumerate() {
        let place = origin("VirtualService", namespace, &object.meta.name, &format!("spec.http[{index}]"));
        match &rule.delegate {
            None => http.push(ResolvedRoute { rule: resolve_rule(rule, namespace, &mesh.domain_suffix), origin: place }),
            Some(delegate) => {
                let key = delegate_key(delegate, namespace);
                let visible = |d: &Object<VirtualService>| {
                    Visibility::parse(&d.spec.export_to, &mesh.default_virtual_service_export_to, &d.meta.namespace)
                        .visible_in(namespace)
                };
                match delegates.next().and_then(Option::as_ref) {
                    Some(found) if visible(found) => {
                        http.extend(merge_delegate(rule, found, namespace, &mesh.domain_suffix, &place, &mut problems));
                    }
                    Some(_) => problems.push(Problem::new(
                        place,
                        format!("delegate {}/{} is not exported to namespace {namespace}", key.0, key.1),
                    )),
                    None => problems.push(Problem::new(
                        place,
                        format!("delegate {}/{} does not exist, or has hosts of its own", key.0, key.1),
                    )),
                }
            }
        }
    }
    http.retain(|route: &ResolvedRoute| match usable::objection(&route.rule) {
        None => true,
        Some(objection) => {
            problems.push(Problem::new(route.origin.clone(), format!("{objection}; the rule is left out")));
            false
        }
    });
    let resolve_destination = |destination: &mut Destination| {
        destination.host = host::resolve(&destination.host, namespace, &mesh.domain_suffix).to_lowercase()
    };
    let mut tls = spec.tls.clone();
    for rule in &mut tls {
        rule.route.iter_mut().for_each(|route| resolve_destination(&mut route.destination));
        rule.r#match.iter_mut().for_each(|m| resolve_gateways(&mut m.gateways, namespace));
    }
    let mut tcp = spec.tcp.clone();
    for rule in &mut tcp {
        rule.route.iter_mut().for_each(|route| resolve_destination(&mut route.destination));
        rule.r#match.iter_mut().for_each(|m| resolve_gateways(&mut m.gateways, namespace));
    }
    let mut gateways = spec.gateways.clone();
    resolve_gateways(&mut gateways, namespace);
    if gateways.is_empty() {
        gateways.push("mesh".into());
    }
    let resolved = ResolvedVirtualService {
        namespace: namespace.clone(),
        name: object.meta.name.clone(),
        hosts: spec.hosts.iter().map(|name| host::resolve(name, namespace, &mesh.domain_suffix).to_lowercase()).collect(),
        gateways,
        http,
        tls,
        tcp,
        visibility: Visibility::parse(&spec.export_to, &mesh.default_virtual_service_export_to, namespace),
        created: object.meta.creation_timestamp.clone(),
    };
    (Arc::new(resolved), problems.into())
}

fn resolve_gateways(gateways: &mut [String], namespace: &str) {
    for gateway in gateways {
        *gateway = host::resolve_gateway(gateway, namespace);
    }
}

fn resolve_rule(rule: &HttpRoute, namespace: &str, domain: &str) -> HttpRoute {
    let mut rule = rule.clone();
    let resolve =
        |destination: &mut Destination| destination.host = host::resolve(&destination.host, namespace, domain).to_lowercase();
    rule.route.iter_mut().for_each(|route| resolve(&mut route.destination));
    rule.mirror.iter_mut().for_each(resolve);
    rule.mirrors.iter_mut().for_each(|mirror| resolve(&mut mirror.destination));
    rule.r#match.iter_mut().for_each(|m| resolve_gateways(&mut m.gateways, namespace));
    rule
}

/// The routes of a delegate under the conditions of the rule that names it.
fn merge_delegate(
    root: &HttpRoute,
    delegate: &Object<VirtualService>,
    root_namespace: &str,
    domain: &str,
    place: &Origin,
    problems: &mut Vec<Problem>,
) -> Vec<ResolvedRoute> {
    let mut root_matches = root.r#match.clone();
    root_matches.iter_mut().for_each(|m| resolve_gateways(&mut m.gateways, root_namespace));
    let mut out = Vec::new();
    for (index, rule) in delegate.spec.http.iter().enumerate() {
        let origin = origin("VirtualService", &delegate.meta.namespace, &delegate.meta.name, &format!("spec.http[{index}]"));
        if rule.delegate.is_some() {
            problems.push(Problem::new(origin, "a delegate cannot delegate in turn; the route is dropped".into()));
            continue;
        }
        let mut merged = resolve_rule(rule, &delegate.meta.namespace, domain);
        match merge_matches(&root_matches, &merged.r#match) {
            Some(matches) => merged.r#match = matches,
            None => {
                let message = format!(
                    "its match does not fit within that of {}/{} {}; the route is dropped",
                    place.namespace, place.name, place.path
                );
                problems.push(Problem::new(origin, message));
                continue;
            }
        }
        inherit(root, &mut merged);
        out.push(ResolvedRoute { rule: merged, origin });
    }
    out
}

/// What the delegate does not say is taken from the root.
fn inherit(root: &HttpRoute, merged: &mut HttpRoute) {
    if merged.name.is_empty() {
        merged.name.clone_from(&root.name);
    } else if !root.name.is_empty() {
        merged.name = format!("{}-{}", root.name, merged.name);
    }
    merged.rewrite = merged.rewrite.take().or_else(|| root.rewrite.clone());
    merged.direct_response = merged.direct_response.take().or_else(|| root.direct_response.clone());
    merged.timeout = merged.timeout.or(root.timeout);
    merged.retries = merged.retries.take().or_else(|| root.retries.clone());
    merged.fault = merged.fault.take().or_else(|| root.fault.clone());
    merged.mirror = merged.mirror.take().or_else(|| root.mirror.clone());
    merged.mirror_percent = merged.mirror_percent.or(root.mirror_percent);
    merged.mirror_percentage = merged.mirror_percentage.or(root.mirror_percentage);
    merged.cors_policy = merged.cors_policy.take().or_else(|| root.cors_policy.clone());
    if merged.mirrors.is_empty() {
        merged.mirrors.clone_from(&root.mirrors);
    }
    if let Some(root_headers) = &root.headers {
        let headers = merged.headers.get_or_insert_default();
        inherit_headers(root_headers.request.as_ref(), &mut headers.request);
        inherit_headers(root_headers.response.as_ref(), &mut headers.response);
    }
}

/// Header operations of both are kept; the delegate's win.
fn inherit_headers(root: Option<&meshlab_istio_api::HeaderOperations>, merged: &mut Option<meshlab_istio_api::HeaderOperations>) {
    let Some(root) = root else { return };
    let own = merged.get_or_insert_default();
    for (key, value) in &root.set {
        own.set.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in &root.add {
        own.add.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let missing: Vec<String> = root.remove.iter().filter(|key| !own.remove.contains(key)).cloned().collect();
    own.remove.extend(missing);
}

/// Every combination of a root's entry and a delegate's that fits within it. `None` when there are entries and none fit.
fn merge_matches(root: &[HttpMatchRequest], delegate: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut out = Vec::new();
    for outer in root {
        for inner in delegate {
            if !conflicts(outer, inner) {
                out.push(merge_match(outer, inner));
            }
        }
    }
    (!out.is_empty()).then_some(out)
}

fn merge_match(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    let mut out = delegate.clone();
    match (root.name.is_empty(), delegate.name.is_empty()) {
        (false, true) => out.name.clone_from(&root.name),
        (false, false) => out.name = format!("{}-{}", root.name, delegate.name),
        _ => {}
    }
    out.uri = out.uri.or_else(|| root.uri.clone());
    out.scheme = out.scheme.or_else(|| root.scheme.clone());
    out.method = out.method.or_else(|| root.method.clone());
    out.authority = out.authority.or_else(|| root.authority.clone());
    for (key, value) in &root.headers {
        out.headers.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in &root.without_headers {
        out.without_headers.insert(key.clone(), value.clone());
    }
    for (key, value) in &root.query_params {
        out.query_params.insert(key.clone(), value.clone());
    }
    if out.port == 0 {
        out.port = root.port;
    }
    // Only the root says where the entry applies.
    out.source_labels.clone_from(&root.source_labels);
    out.gateways.clone_from(&root.gateways);
    if out.source_namespace.is_empty() {
        out.source_namespace.clone_from(&root.source_namespace);
    }
    out.stat_prefix = if out.stat_prefix.is_empty() { root.stat_prefix.clone() } else { out.stat_prefix };
    out.ignore_uri_case |= root.ignore_uri_case;
    out
}

/// Whether a delegate's entry reaches beyond its root's.
fn conflicts(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> bool {
    let outside = |root: &Option<StringMatch>, leaf: &Option<StringMatch>| match (root, leaf) {
        (Some(root), Some(leaf)) => !within(root, leaf),
        _ => false,
    };
    let differs = |root: &BTreeMap<String, StringMatch>, leaf: &BTreeMap<String, StringMatch>| {
        root.iter().any(|(key, value)| leaf.get(key).is_some_and(|leaf| !within(value, leaf)))
    };
    root.ignore_uri_case != delegate.ignore_uri_case
        || outside(&root.uri, &delegate.uri)
        || outside(&root.scheme, &delegate.scheme)
        || outside(&root.method, &delegate.method)
        || outside(&root.authority, &delegate.authority)
        || differs(&root.headers, &delegate.headers)
        || differs(&root.without_headers, &delegate.without_headers)
        || differs(&root.query_params, &delegate.query_params)
        || (root.port != 0 && delegate.port != 0 && root.port != delegate.port)
        || delegate.source_labels.iter().any(|(key, value)| root.source_labels.get(key).is_some_and(|root| root != value))
        || (!root.source_namespace.is_empty()
            && !delegate.source_namespace.is_empty()
            && root.source_namespace != delegate.source_namespace)
}

/// Whether all that `leaf` matches is surely matched by `root` too; expressions are only within themselves.
fn within(root: &StringMatch, leaf: &StringMatch) -> bool {
    match (root, leaf) {
        (StringMatch { regex: Some(root), .. }, StringMatch { regex: Some(leaf), .. }) => root == leaf,
        (StringMatch { regex: Some(_), .. }, _) | (_, StringMatch { regex: Some(_), .. }) => false,
        (StringMatch { exact: Some(root), .. }, StringMatch { exact: Some(leaf), .. }) => root == leaf,
        (StringMatch { exact: Some(_), .. }, _) => false,
        (
            StringMatch { prefix: Some(root), .. },
            StringMatch { prefix: Some(leaf), .. } | StringMatch { exact: Some(leaf), .. },
        ) => leaf.starts_with(root.as_str()),
        _ => true,
    }
}
