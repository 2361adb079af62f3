//! Route tables, compiled: everything that can be known before a request comes is.

pub(crate) mod action;
pub(crate) mod cors;
pub(crate) mod headers;
pub(crate) mod matcher;
pub(crate) mod redirect;
pub(crate) mod rewrite;

use std::borrow::Cow;
use std::sync::Arc;

use ahash::AHashMap;
use http::HeaderValue;
use meshlab_proxy_config as config;
use meshlab_proxy_config::Origin;

use self::action::Action;
use self::cors::Cors;
use self::headers::{HeaderChanges, Side};
use self::matcher::{Claims, RouteMatcher};
use crate::matching::{MatchError, RequestView};
use crate::telemetry::format::View;

/// A compiled route table.
pub(crate) struct RouteTable {
    pub(crate) hosts: Vec<Arc<VirtualHost>>,
    exact: AHashMap<String, usize>,
    /// `*.example.com`, the longest first: length of the suffix, then the suffix itself.
    suffixes: Vec<(usize, AHashMap<String, usize>)>,
    /// `example.*`, the longest first.
    prefixes: Vec<(usize, AHashMap<String, usize>)>,
    catch_all: Option<usize>,
    ignore_port: bool,
}

/// The routes of some domains.
pub(crate) struct VirtualHost {
    pub(crate) config: Arc<config::VirtualHost>,
    pub(crate) routes: Vec<Arc<Route>>,
}

/// A compiled route.
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) matcher: RouteMatcher,
    pub(crate) action: Action,
    pub(crate) request_headers: HeaderChanges,
    pub(crate) response_headers: HeaderChanges,
    pub(crate) fault: Option<config::Fault>,
    pub(crate) cors: Option<Cors>,
    pub(crate) operation: String,
    /// The same as proxies tell each other, unless it is empty.
    pub(crate) decorator: Option<HeaderValue>,
    pub(crate) origin: Option<Origin>,
}

/// Why a route table cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("virtual host {host}, route {route}: {source}")]
    Route { host: String, route: String, source: MatchError },
    #[error("virtual host {host}, route {route}: {reason}")]
    Invalid { host: String, route: String, reason: String },
    #[error("domain {domain} stands in two virtual hosts, {first} and {second}")]
    DuplicateDomain { domain: String, first: String, second: String },
}

impl RouteTable {
    /// Compiles a table. Virtual hosts that the table `before` it has too are taken from there: a table has one for every service of
    /// the mesh, and seldom do more than a few of them change.
    pub(crate) fn new(config: &config::RouteConfiguration, before: Option<&Self>) -> Result<Self, RouteError> {
        let known: AHashMap<_, _> =
            before.iter().flat_map(|table| &table.hosts).map(|host| (Arc::as_ptr(&host.config), host)).collect();
        let mut table = Self {
            hosts: Vec::with_capacity(config.virtual_hosts.len()),
            exact: AHashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            catch_all: None,
            ignore_port: config.ignore_port_in_host,
        };
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                if let Some(first) = table.insert(&domain.to_ascii_lowercase(), index) {
                    return Err(RouteError::DuplicateDomain {
                        domain: domain.clone(),
                        first: config.virtual_hosts[first].name.clone(),
                        second: host.name.clone(),
                    });
                }
            }
            table.hosts.push(match known.get(&Arc::as_ptr(host)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(VirtualHost::new(host)?),
            });
        }
        table.suffixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        table.prefixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        Ok(table)
    }

    /// Gives the virtual host that has the domain already, if one has.
    fn insert(&mut self, domain: &str, index: usize) -> Option<usize> {
        let by_length = |tables: &mut Vec<(usize, AHashMap<String, usize>)>, part: &str| {
            let at = match tables.iter().position(|(length, _)| *length == part.len()) {
                Some(at) => at,
                None => {
                    tables.push((part.len(), AHashMap::new()));
                    tables.len() - 1
                }
            };
            tables[at].1.insert(part.to_owned(), index)
        };
        if domain == "*" {
            self.catch_all.replace(index)
        } else if let Some(suffix) = domain.strip_prefix('*') {
            by_length(&mut self.suffixes, suffix)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            by_length(&mut self.prefixes, prefix)
        } else {
            self.exact.insert(domain.to_owned(), index)
        }
    }

    /// The virtual host of a request: the most specific domain decides, and there is no falling through (fact 10).
    pub(crate) fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let authority = if self.ignore_port { strip_port(authority) } else { authority };
        let authority = if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(authority.to_ascii_lowercase())
        } else {
            Cow::Borrowed(authority)
        };
        self.find(&authority).map(|index| &self.hosts[index])
    }

    fn find(&self, authority: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(authority) {
            return Some(*index);
        }
        // A wildcard stands for at least one character.
        for (length, suffixes) in &self.suffixes {
            if authority.len() > *length
                && let Some(end) = authority.get(authority.len() - length..)
                && let Some(index) = suffixes.get(end)
            {
                return Some(*index);
            }
        }
        for (length, prefixes) in &self.prefixes {
            if authority.len() > *length
                && let Some(start) = authority.get(..*length)
                && let Some(index) = prefixes.get(start)
            {
                return Some(*index);
            }
        }
        self.catch_all
    }
}

impl Route {
    /// Makes the changes to a response that the route and its only destination want; those of one of several are made before.
    pub(crate) fn change_response(&self, headers: &mut http::HeaderMap, view: View<'_>) {
        let only = match &self.action {
            Action::Forward(forward) if forward.destinations.len() == 1 => Some(&forward.destinations[0].response_headers),
            _ => None,
        };
        match only {
            Some(own) => HeaderChanges::apply_all(&[&self.response_headers, own], Side::Response, headers, view),
            None => self.response_headers.apply(Side::Response, headers, view),
        }
    }
}

/// `host` of `host:port`; IPv6 literals keep their brackets.
pub(crate) fn strip_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon)
            if authority[colon + 1..].bytes().all(|byte| byte.is_ascii_digit())
                && !authority[..colon].ends_with(':')
                && (authority.starts_with('[') == authority[..colon].ends_with(']'))
                && (authority.starts_with('[') || !authority[..colon].contains(':')) =>
        {
            &authority[..colon]
        }
        _ => authority,
    }
}

impl VirtualHost {
    fn new(config: &Arc<config::VirtualHost>) -> Result<Self, RouteError> {
        let routes = config.routes.iter().map(|route| Route::new(route, &config.name).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self { config: config.clone(), routes })
    }

    /// The first route that matches (facts 1 and 2).
    pub(crate) fn route(&self, request: RequestView<'_>, claims: Option<&Claims>) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.matcher.matches(request, claims))
    }
}

impl Route {
    fn new(route: &config::Route, host: &str) -> Result<Self, RouteError> {
        let context = |source| RouteError::Route { host: host.to_owned(), route: route.name.clone(), source };
        let invalid = |reason| RouteError::Invalid { host: host.to_owned(), route: route.name.clone(), reason };
        Ok(Self {
            name: route.name.clone(),
            matcher: RouteMatcher::new(&route.matches).map_err(context)?,
            action: Action::new(&route.action, invalid).map_err(|error| match error {
                action::ActionError::Match(source) => context(source),
                action::ActionError::Invalid(error) => error,
            })?,
            request_headers: HeaderChanges::new(&route.request_headers).map_err(context)?,
            response_headers: HeaderChanges::new(&route.response_headers).map_err(context)?,
            fault: route.fault.clone(),
            cors: route.cors.as_ref().map(Cors::new).transpose().map_err(context)?,
            operation: route.operation.clone(),
            decorator: HeaderValue::from_str(&route.operation).ok().filter(|operation| !operation.is_empty()),
            origin: route.origin.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fact_11_a_port_is_told_from_the_rest_of_an_authority() {
        for (authority, host) in [
            ("reviews", "reviews"),
            ("reviews:9080", "reviews"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("reviews:", "reviews"),
            ("reviews:http", "reviews:http"),
        ] {
            assert_eq!(strip_port(authority), host, "{authority}");
        }
    }

    #[test]
    fn virtual_hosts_that_stay_are_not_compiled_again() {
        let host = |name: &str| {
            let domains = vec![name.to_owned()];
            Arc::new(config::VirtualHost { name: name.into(), domains, routes: Vec::new(), require_tls: false })
        };
        let table = |virtual_hosts| config::RouteConfiguration::new("80".into(), virtual_hosts, true);
        let (a, b) = (host("a"), host("b"));
        let before = RouteTable::new(&table(vec![a.clone(), b.clone()]), None).unwrap();
        let after = RouteTable::new(&table(vec![host("a"), b]), Some(&before)).unwrap();
        assert!(!Arc::ptr_eq(before.virtual_host("a").unwrap(), after.virtual_host("a").unwrap()));
        assert!(Arc::ptr_eq(before.virtual_host("b").unwrap(), after.virtual_host("b").unwrap()));
    }

    proptest! {
        #[test]
        fn any_authority_and_any_path_are_survived(authority in ".{0,30}", path in ".{0,30}", prefix in "/[a-z]{0,5}") {
            let hosts = [("a", "*.example.com"), ("b", "é.*"), ("c", "*")];
            let config = config::RouteConfiguration {
                name: "r".into(),
                virtual_hosts: hosts
                    .map(|(name, domain)| {
                        Arc::new(config::VirtualHost {
                            name: name.into(),
                            domains: vec![domain.into()],
                            routes: Vec::new(),
                            require_tls: false,
                        })
                    })
                    .into(),
                ignore_port_in_host: true,
            };
            let table = RouteTable::new(&config, None).unwrap();
            prop_assert!(table.virtual_host(&authority).is_some());
            let _ = matcher::query_parameter(&path, "a");
            for matched in [matcher::PathMatcher::Prefix(prefix.clone()), matcher::PathMatcher::SegmentPrefix(prefix.clone())] {
                // Only a path that was matched is ever rewritten.
                let path = format!("{prefix}{path}");
                let rewrite = rewrite::Rewrite::new(&config::PathRewrite::Matched("/new".into())).unwrap();
                prop_assert!(rewrite.apply(&matched, &path).starts_with("/new"));
            }
        }
    }
}
