//! Host names: wildcards, short names, and which of several is the more specific.

use std::cmp::Ordering;

/// Whether a name has a wildcard.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether two names have a host in common, where either may begin with `*`.
pub fn matches(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(a), None) => b.len() >= a.len() && b.ends_with(a),
        (None, Some(b)) => a.len() >= b.len() && a.ends_with(b),
    }
}

/// Whether every host of `inner` is one of `outer`.
pub fn is_subset(inner: &str, outer: &str) -> bool {
    match (inner.strip_prefix('*'), outer.strip_prefix('*')) {
        (None, None) => inner == outer,
        (_, None) => false,
        (Some(inner), Some(outer)) => inner.ends_with(outer),
        (None, Some(outer)) => inner.ends_with(outer),
    }
}

/// The hosts that are in both lists: of each pair that meets, the narrower name.
pub fn intersection(a: &[String], b: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for left in a {
        for right in b {
            let narrower = if is_subset(left, right) {
                left
            } else if is_subset(right, left) {
                right
            } else {
                continue;
            };
            if !out.contains(narrower) {
                out.push(narrower.clone());
            }
        }
    }
    out
}

/// Orders names so that the more specific comes first: exact before wildcard, then the longer.
pub fn specificity(a: &str, b: &str) -> Ordering {
    is_wildcard(a).cmp(&is_wildcard(b)).then(b.len().cmp(&a.len())).then(a.cmp(b))
}

/// A host as a resource in `namespace` means it: a name without dots gets the namespace and domain.
pub fn resolve(host: &str, namespace: &str, domain: &str) -> String {
    let short = !host.is_empty() && !host.contains('.') && !host.starts_with('*') && host.parse::<std::net::IpAddr>().is_err();
    if short { format!("{host}.{namespace}.svc.{domain}") } else { host.to_owned() }
}

/// A gateway as a resource in `namespace` means it: `namespace/name`, or `mesh`.
pub fn resolve_gateway(gateway: &str, namespace: &str) -> String {
    if gateway == "mesh" || gateway.is_empty() {
        return gateway.to_owned();
    }
    match gateway.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}"),
        Some(_) => gateway.to_owned(),
        None => {
            // The old form `name.namespace.svc.cluster.local`.
            let mut parts = gateway.splitn(3, '.');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(ns), Some(rest)) if rest.starts_with("svc") => format!("{ns}/{name}"),
                _ => format!("{namespace}/{gateway}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_06_only_names_without_dots_are_expanded() {
        assert_eq!(resolve("reviews", "prod", "cluster.local"), "reviews.prod.svc.cluster.local");
        assert_eq!(resolve("reviews.prod", "test", "cluster.local"), "reviews.prod");
        assert_eq!(resolve("*", "test", "cluster.local"), "*");
        assert_eq!(resolve("1.2.3.4", "test", "cluster.local"), "1.2.3.4");
        assert_eq!(resolve("::1", "test", "cluster.local"), "::1");
        assert_eq!(resolve_gateway("gw", "test"), "test/gw");
        assert_eq!(resolve_gateway("other/gw", "test"), "other/gw");
        assert_eq!(resolve_gateway("mesh", "test"), "mesh");
    }

    #[test]
    fn the_narrower_of_two_hosts_is_kept() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            intersection(&list(&["*.foo.com"]), &list(&["*.com", "a.foo.com", "bar.org"])),
            list(&["*.foo.com", "a.foo.com"])
        );
        assert_eq!(intersection(&list(&["*"]), &list(&["a.b"])), list(&["a.b"]));
    }
}
