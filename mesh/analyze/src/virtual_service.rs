//! VirtualServices.

use std::collections::BTreeMap;

use meshlab_compile::visibility::Visibility;
use meshlab_compile::{ResolvedVirtualService, Snapshot, host};
use meshlab_istio_api::{Destination, HttpMatchRequest, Object, VirtualService};

use crate::{Code, Message, origin};

pub(crate) fn analyze(snapshot: &Snapshot, out: &mut Vec<Message>) {
    for object in snapshot.sources().virtual_services.values() {
        let check = Check { snapshot, object };
        check.gateways(out);
        check.delegates(out);
        check.destinations(out);
        check.unreachable(out);
        check.claims(out);
    }
    conflicting_hosts(snapshot, out);
    subsets_at_the_edge(snapshot, out);
}

struct Check<'a> {
    snapshot: &'a Snapshot,
    object: &'a Object<VirtualService>,
}

impl Check<'_> {
    fn message(&self, code: Code, path: String, text: String) -> Message {
        Message::new(code, origin("VirtualService", &self.object.meta.namespace, &self.object.meta.name, path), text)
    }

    fn namespace(&self) -> &str {
        &self.object.meta.namespace
    }

    fn gateways(&self, out: &mut Vec<Message>) {
        for (index, named) in self.object.spec.gateways.iter().enumerate().filter(|(_, name)| *name != "mesh") {
            let path = format!("spec.gateways[{index}]");
            let full = host::resolve_gateway(named, self.namespace());
            let (namespace, name) = full.split_once('/').unwrap_or(("", &full));
            let gateway = self.snapshot.sources().gateways.get(&(namespace.to_owned(), name.to_owned()));
            if gateway.is_none() {
                let text = format!("gateway {named:?} is not found; a Gateway of another namespace is written namespace/name");
                out.push(self.message(Code::ReferencedResourceNotFound, path.clone(), text));
            }
            let hosts: Vec<String> = gateway
                .iter()
                .flat_map(|gateway| gateway.spec.servers.iter().flat_map(|server| &server.hosts))
                .filter_map(|entry| match entry.split_once('/') {
                    None => Some(entry.clone()),
                    Some((".", host)) => (namespace == self.namespace()).then(|| host.to_owned()),
                    Some((owner, host)) => (owner == "*" || owner == self.namespace()).then(|| host.to_owned()),
                })
                .collect();
            let known = self.object.spec.hosts.iter().any(|wanted| hosts.iter().any(|offered| host::matches(offered, wanted)));
            if !known && !self.object.spec.hosts.is_empty() {
                let text = format!("none of the hosts {:?} is one of gateway {named}'s, {hosts:?}", self.object.spec.hosts);
                out.push(self.message(Code::VirtualServiceHostNotFoundInGateway, path, text));
            }
        }
    }

    fn delegates(&self, out: &mut Vec<Message>) {
        for (index, rule) in self.object.spec.http.iter().enumerate() {
            let Some(delegate) = &rule.delegate else { continue };
            let namespace = if delegate.namespace.is_empty() { self.namespace() } else { &delegate.namespace };
            let found = self.snapshot.sources().virtual_services.get(&(namespace.to_owned(), delegate.name.clone()));
            if found.is_none_or(|found| !found.spec.hosts.is_empty()) {
                let text =
                    format!("delegate \"{namespace}/{}\" is not found among the VirtualServices without hosts", delegate.name);
                out.push(self.message(Code::ReferencedResourceNotFound, format!("spec.http[{index}].delegate"), text));
            }
        }
    }

    fn destinations(&self, out: &mut Vec<Message>) {
        let spec = &self.object.spec;
        let mut all: Vec<(String, &Destination)> = Vec::new();
        for (index, rule) in spec.http.iter().enumerate() {
            let routes =
                rule.route.iter().enumerate().map(|(i, route)| (format!("spec.http[{index}].route[{i}]"), &route.destination));
            all.extend(routes);
            all.extend(rule.mirror.iter().map(|mirror| (format!("spec.http[{index}].mirror"), mirror)));
            let mirrors = rule.mirrors.iter().enumerate();
            all.extend(mirrors.map(|(i, mirror)| (format!("spec.http[{index}].mirrors[{i}]"), &mirror.destination)));
        }
        for (index, rule) in spec.tls.iter().enumerate() {
            all.extend(
                rule.route.iter().enumerate().map(|(i, route)| (format!("spec.tls[{index}].route[{i}]"), &route.destination)),
            );
        }
        for (index, rule) in spec.tcp.iter().enumerate() {
            all.extend(
                rule.route.iter().enumerate().map(|(i, route)| (format!("spec.tcp[{index}].route[{i}]"), &route.destination)),
            );
        }
        for (path, destination) in all {
            self.destination(destination, path, out);
        }
    }

    fn destination(&self, destination: &Destination, path: String, out: &mut Vec<Message>) {
        let mesh = &self.snapshot.sources().mesh;
        let full = host::resolve(&destination.host, self.namespace(), &mesh.domain_suffix).to_lowercase();
        let Some(service) = self.snapshot.service_or_wildcard(&full, self.namespace()) else {
            let text = format!("host {:?} is not found; it was looked for as {full}", destination.host);
            out.push(self.message(Code::ReferencedResourceNotFound, path, text));
            return;
        };
        if !destination.subset.is_empty() && !self.has_subset(&full, &destination.subset) {
            let text =
                format!("host and subset \"{}+{}\" are not found in any DestinationRule", destination.host, destination.subset);
            out.push(self.message(Code::ReferencedResourceNotFound, path.clone(), text));
        }
        if destination.port.is_none() && service.ports.len() > 1 {
            let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
            let text =
                format!("service {} has several ports ({}); name one in the destination", destination.host, ports.join(", "));
            out.push(self.message(Code::VirtualServiceDestinationPortSelectorRequired, path, text));
        }
    }

    fn has_subset(&self, full: &str, subset: &str) -> bool {
        let rules = self.snapshot.destination_rules().all().filter(|rule| host::is_subset(full, &rule.host));
        rules.into_iter().any(|rule| rule.subsets.iter().any(|(known, _)| known.name == subset))
    }

    /// Rules that an earlier one leaves nothing to.
    fn unreachable(&self, out: &mut Vec<Message>) {
        let rules = &self.object.spec.http;
        let name =
            |index: usize| if rules[index].name.is_empty() { format!("#{index}") } else { format!("{:?}", rules[index].name) };
        let mut catch_all: Option<usize> = None;
        let mut seen: Vec<(usize, HttpMatchRequest)> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("spec.http[{index}]");
            if let Some(earlier) = catch_all {
                let text = format!(
                    "rule {} is never reached: rule {} before it has no match and takes every request",
                    name(index),
                    name(earlier)
                );
                out.push(self.message(Code::VirtualServiceUnreachableRule, path, text));
                continue;
            }
            if rule.r#match.is_empty() {
                catch_all = Some(index);
                continue;
            }
            let mut repeated = 0;
            for (entry, m) in rule.r#match.iter().enumerate() {
                let unnamed = HttpMatchRequest { name: String::new(), ..m.clone() };
                if let Some((earlier, _)) = seen.iter().find(|(_, known)| covers(known, &unnamed)) {
                    repeated += 1;
                    let text =
                        format!("rule {} match #{entry} has no effect: rule {} takes what it would", name(index), name(*earlier));
                    out.push(self.message(Code::VirtualServiceIneffectiveMatch, format!("{path}.match[{entry}]"), text));
                } else {
                    seen.push((index, unnamed));
                }
            }
            if repeated == rule.r#match.len() {
                let text = format!("rule {} is never reached: earlier rules have all of its matches", name(index));
                out.push(self.message(Code::VirtualServiceUnreachableRule, path, text));
            }
        }
    }

    /// Claims are only known where tokens are validated.
    fn claims(&self, out: &mut Vec<Message>) {
        let sources = self.snapshot.sources();
        for (index, rule) in self.object.spec.http.iter().enumerate() {
            for entry in &rule.r#match {
                let Some(key) =
                    entry.headers.keys().chain(entry.without_headers.keys()).find(|key| key.starts_with("@request.auth.claims"))
                else {
                    continue;
                };
                for named in self.object.spec.gateways.iter().filter(|name| *name != "mesh") {
                    let full = host::resolve_gateway(named, self.namespace());
                    let (namespace, name) = full.split_once('/').unwrap_or(("", &full));
                    let Some(gateway) = sources.gateways.get(&(namespace.to_owned(), name.to_owned())) else { continue };
                    let pods = sources
                        .pods
                        .values()
                        .filter(|pod| meshlab_compile::registry::selects(&gateway.spec.selector, &pod.meta.labels));
                    for pod in pods {
                        let validated = sources.request_authentications.values().any(|policy| {
                            let scope = policy.meta.namespace == pod.meta.namespace
                                || policy.meta.namespace == sources.mesh.root_namespace;
                            let selector = policy.spec.selector.as_ref();
                            scope
                                && selector.is_none_or(|selector| {
                                    meshlab_compile::registry::selects(&selector.match_labels, &pod.meta.labels)
                                })
                        });
                        if !validated {
                            let text = format!(
                                "{key} is looked at on gateway {full}, but no RequestAuthentication validates tokens at its pod {}",
                                pod.meta.name
                            );
                            out.push(self.message(
                                Code::JwtClaimBasedRoutingWithoutRequestAuthN,
                                format!("spec.http[{index}]"),
                                text,
                            ));
                        }
                    }
                }
            }
        }
    }
}

/// Whether all requests of `later` are surely taken by `earlier`.
fn covers(earlier: &HttpMatchRequest, later: &HttpMatchRequest) -> bool {
    if earlier == later {
        return true;
    }
    let rest = |m: &HttpMatchRequest| HttpMatchRequest { uri: None, ..m.clone() };
    let prefix = |m: &HttpMatchRequest| m.uri.as_ref().and_then(|uri| uri.prefix.clone());
    let text = |m: &HttpMatchRequest| m.uri.as_ref().and_then(|uri| uri.prefix.clone().or_else(|| uri.exact.clone()));
    match (prefix(earlier), text(later)) {
        (Some(outer), Some(inner)) => inner.starts_with(&outer) && rest(earlier) == rest(later),
        _ => false,
    }
}

/// Two VirtualServices for one host: sidecars take the older alone.
fn conflicting_hosts(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let mut by_host: BTreeMap<&str, Vec<&ResolvedVirtualService>> = BTreeMap::new();
    for vs in snapshot.virtual_services().iter().filter(|vs| vs.on_mesh()) {
        for name in &vs.hosts {
            by_host.entry(name).or_default().push(vs);
        }
    }
    for (name, list) in by_host {
        for vs in &list {
            let rivals: Vec<String> = list
                .iter()
                .filter(|other| std::ptr::eq(**other, *vs) || meet(&vs.visibility, &other.visibility))
                .map(|other| format!("{}/{}", other.namespace, other.name))
                .collect();
            if rivals.len() > 1 {
                let text = format!(
                    "VirtualServices {} are all for host {name} inside the mesh, where only the oldest has an effect; merge them into one",
                    rivals.join(", ")
                );
                let place = origin("VirtualService", &vs.namespace, &vs.name, "spec.hosts".into());
                out.push(Message::new(Code::ConflictingMeshGatewayVirtualServiceHosts, place, text));
            }
        }
    }
}

/// Whether some namespace sees both.
fn meet(a: &Visibility, b: &Visibility) -> bool {
    match (a, b) {
        (Visibility::None, _) | (_, Visibility::None) => false,
        (Visibility::Public, _) | (_, Visibility::Public) => true,
        (Visibility::Namespaces(a), Visibility::Namespaces(b)) => !a.is_disjoint(b),
    }
}

/// A route at the edge goes to its destination directly: the rules that a VirtualService has for that host do not apply.
fn subsets_at_the_edge(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let all = snapshot.virtual_services();
    for edge in all.iter().filter(|vs| vs.gateways.iter().any(|gateway| gateway != "mesh")) {
        for resolved in &edge.http {
            for route in resolved.rule.route.iter().filter(|route| route.destination.subset.is_empty()) {
                let inside = all
                    .iter()
                    .filter(|vs| vs.on_mesh() && !std::ptr::eq(*vs, edge) && vs.hosts.contains(&route.destination.host));
                for vs in inside.filter(|vs| vs.destinations().any(|d| !d.subset.is_empty() && d.host == route.destination.host))
                {
                    let place = origin("VirtualService", &edge.namespace, &edge.name, resolved.origin.path.clone());
                    let text = format!(
                        "requests from the gateway go to {} directly; the subsets in VirtualService {}/{} have no effect on them. Route to subsets here",
                        route.destination.host, vs.namespace, vs.name
                    );
                    out.push(Message::new(Code::IngressRouteRulesNotAffected, place, text));
                }
            }
        }
    }
}
