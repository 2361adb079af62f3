//! `proxy-config route`.

use std::collections::BTreeSet;

use meshlab_proxy_config::{PathMatch, ProxyConfig, Route, RouteAction};

use super::table::table;

/// Which route tables to show; an unset field shows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// `--name`
    pub name: Option<String>,
}

/// Routes of every virtual host, the tables of numbered ports first.
pub fn routes(config: &ProxyConfig, filter: &RouteFilter) -> String {
    let mut tables: Vec<_> =
        config.routes.iter().filter(|(name, _)| filter.name.as_ref().is_none_or(|wanted| wanted == *name)).collect();
    tables.sort_by_key(|(name, _)| (name.parse::<u16>().unwrap_or(u16::MAX), (*name).clone()));
    let mut rows = Vec::new();
    for (name, routes) in tables {
        for host in &routes.virtual_hosts {
            let row =
                |matches: String, origin: String| [name.clone(), host.name.clone(), domains(&host.domains), matches, origin];
            let shown = host.routes.iter().filter(|route| !is_passthrough(route));
            rows.extend(shown.map(|route| row(matches(route), virtual_service(route))));
            if host.routes.is_empty() {
                rows.push(row("/*".into(), "404".into()));
            }
        }
    }
    table(["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"], rows)
}

fn is_passthrough(route: &Route) -> bool {
    let RouteAction::Forward(forward) = &route.action else { return false };
    forward.destinations.iter().any(|destination| destination.cluster == "PassthroughCluster")
}

/// The shortest forms of the names, two at most.
fn domains(domains: &[String]) -> String {
    if let [one] = domains {
        return one.clone();
    }
    let all: BTreeSet<_> = domains.iter().map(String::as_str).collect();
    let is_longer_form = |domain: &str| {
        [".svc.cluster.local", ".svc"].iter().any(|end| domain.strip_suffix(end).is_some_and(|short| all.contains(short)))
    };
    let shown: Vec<_> = domains
        .iter()
        .map(String::as_str)
        .filter(|domain| !domain.contains(':') && !domain.ends_with('.') && !is_longer_form(domain))
        .collect();
    match shown.as_slice() {
        [first, second, rest @ ..] if !rest.is_empty() => format!("{first}, {second} + {} more...", rest.len()),
        few => few.join(", "),
    }
}

fn matches(route: &Route) -> String {
    let path = match &route.matches.path {
        PathMatch::Prefix(prefix) => format!("{prefix}*"),
        PathMatch::SegmentPrefix(prefix) => format!("PathPrefix:{prefix}"),
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Regex(regex) => format!("regex {regex}"),
    };
    let more = route.matches.headers.len() + route.matches.query.len() + route.matches.claims.len();
    if more > 0 { format!("{path} + {more} conditions") } else { path }
}

fn virtual_service(route: &Route) -> String {
    let origin = route.origin.as_ref().filter(|origin| origin.kind == "VirtualService");
    origin.map(|origin| format!("{}.{}", origin.name, origin.namespace)).unwrap_or_default()
}
