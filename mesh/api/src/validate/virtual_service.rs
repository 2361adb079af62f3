//! VirtualService.

use std::collections::BTreeMap;

use super::check::{Check, is_dns_label, is_fqdn, is_ip_or_block, is_wildcard_host};
use super::{fields, http_route};
use crate::{L4MatchAttributes, Object, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService};

pub(super) fn check(object: &Object<VirtualService>, check: &mut Check) {
    let spec = &object.spec;
    let delegate = spec.hosts.is_empty();
    if delegate {
        // Without hosts it is there to be delegated to.
        for (field, used) in
            [("gateways", !spec.gateways.is_empty()), ("tls", !spec.tls.is_empty()), ("tcp", !spec.tcp.is_empty())]
        {
            if used {
                check.error(format!("spec.{field}"), "a VirtualService without hosts is a delegate, which cannot have this");
            }
        }
    }
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
    hosts(spec, on_mesh, check);
    gateways(&spec.gateways, "spec.gateways", check);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        check.error("spec", "one of http, tls and tcp is needed");
    }
    for (index, rule) in spec.http.iter().enumerate() {
        http_route::check(rule, delegate, &format!("spec.http[{index}]"), check);
    }
    for (index, rule) in spec.tls.iter().enumerate() {
        tls_route(rule, spec, &format!("spec.tls[{index}]"), check);
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        tcp_route(rule, &format!("spec.tcp[{index}]"), check);
    }
    check.export_to(&spec.export_to, &object.meta.namespace, false);
    unreachable(spec, check);
}

fn hosts(spec: &VirtualService, on_mesh: bool, check: &mut Check) {
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host == "*" {
            if on_mesh {
                check.error(path, "* alone is for gateways; name them and leave mesh out");
            }
        } else if !is_wildcard_host(host) && host.parse::<std::net::IpAddr>().is_err() {
            check.error(path, format!("{host:?} is neither a host name nor an address"));
        }
        if spec.hosts[..index].iter().any(|other| other.eq_ignore_ascii_case(host)) {
            check.error(format!("spec.hosts[{index}]"), format!("{host:?} stands here twice"));
        }
    }
}

/// `name`, `namespace/name` or `mesh`.
pub(super) fn gateways(gateways: &[String], path: &str, check: &mut Check) {
    for (index, gateway) in gateways.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match gateway.split_once('/') {
            None if is_fqdn(gateway) => {
                if gateway.contains('.') {
                    check.warning(path, format!("{gateway:?} is the old form of a gateway's name; write namespace/name"));
                }
            }
            None => check.error(path, format!("{gateway:?} is not a gateway's name")),
            Some((namespace, name)) => {
                if namespace != "." && !is_dns_label(namespace) {
                    check.error(&path, format!("{namespace:?} is not a namespace"));
                }
                if !is_fqdn(name) {
                    check.error(&path, format!("{name:?} is not a gateway's name"));
                }
            }
        }
    }
}

fn tls_route(rule: &TlsRoute, spec: &VirtualService, path: &str, check: &mut Check) {
    if rule.r#match.is_empty() {
        check.error(format!("{path}.match"), "a TLS rule needs at least one match");
    }
    for (index, m) in rule.r#match.iter().enumerate() {
        tls_match(m, spec, &format!("{path}.match[{index}]"), check);
    }
    if rule.route.is_empty() {
        check.error(format!("{path}.route"), "is required");
    }
    for (index, route) in rule.route.iter().enumerate() {
        check.destination(&route.destination, &format!("{path}.route[{index}].destination"));
    }
    fields::weights(rule.route.iter().map(|route| route.weight), &format!("{path}.route"), check);
}

fn tls_match(m: &TlsMatchAttributes, spec: &VirtualService, path: &str, check: &mut Check) {
    if m.sni_hosts.is_empty() {
        check.error(format!("{path}.sniHosts"), "at least one server name is needed");
    }
    for (index, name) in m.sni_hosts.iter().enumerate() {
        let place = format!("{path}.sniHosts[{index}]");
        if name.parse::<std::net::IpAddr>().is_ok() {
            check.warning(&place, "a server name is not an address; most clients send none for one");
        } else if !is_wildcard_host(name) {
            check.error(&place, format!("{name:?} is not a host name"));
        }
        let within = |host: &String| match host.strip_prefix('*') {
            Some(suffix) => name.trim_start_matches('*').ends_with(suffix) || suffix.is_empty(),
            None => host == name,
        };
        if !spec.hosts.iter().any(within) {
            check.error(&place, format!("{name:?} is not within any of the hosts {:?}", spec.hosts));
        }
    }
    l4(&m.destination_subnets, m.port, &m.source_labels, &m.gateways, &m.source_namespace, path, check);
}

fn tcp_route(rule: &TcpRoute, path: &str, check: &mut Check) {
    for (index, m) in rule.r#match.iter().enumerate() {
        let L4MatchAttributes { destination_subnets, port, source_labels, gateways, source_namespace, source_subnet } = m;
        let place = format!("{path}.match[{index}]");
        l4(destination_subnets, *port, source_labels, gateways, source_namespace, &place, check);
        if !source_subnet.is_empty() && !is_ip_or_block(source_subnet) {
            check.error(format!("{place}.sourceSubnet"), format!("{source_subnet:?} is not an address block"));
        }
    }
    if rule.route.is_empty() {
        check.error(format!("{path}.route"), "is required");
    }
    for (index, route) in rule.route.iter().enumerate() {
        check.destination(&route.destination, &format!("{path}.route[{index}].destination"));
    }
    fields::weights(rule.route.iter().map(|route| route.weight), &format!("{path}.route"), check);
}

fn l4(
    subnets: &[String],
    port: u32,
    labels: &BTreeMap<String, String>,
    names: &[String],
    namespace: &str,
    path: &str,
    check: &mut Check,
) {
    for (index, subnet) in subnets.iter().enumerate() {
        if !is_ip_or_block(subnet) {
            check.error(format!("{path}.destinationSubnets[{index}]"), format!("{subnet:?} is not an address block"));
        }
    }
    if port != 0 {
        check.port(port, format!("{path}.port"));
    }
    check.labels(labels, &format!("{path}.sourceLabels"));
    gateways(names, &format!("{path}.gateways"), check);
    if !namespace.is_empty() && !is_dns_label(namespace) {
        check.error(format!("{path}.sourceNamespace"), format!("{namespace:?} is not a namespace"));
    }
}

/// Rules that can never be reached, and matches that an earlier rule has already.
fn unreachable(spec: &VirtualService, check: &mut Check) {
    let mut catch_all: Option<usize> = None;
    let mut seen: Vec<(usize, crate::HttpMatchRequest)> = Vec::new();
    for (index, rule) in spec.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        if let Some(earlier) = catch_all {
            check.warning(&path, format!("can never be reached: spec.http[{earlier}] has no match and takes every request"));
            continue;
        }
        if rule.r#match.is_empty() {
            catch_all = Some(index);
            continue;
        }
        let mut repeated = 0;
        for (entry, m) in rule.r#match.iter().enumerate() {
            let unnamed = crate::HttpMatchRequest { name: String::new(), ..m.clone() };
            match seen.iter().find(|(_, known)| *known == unnamed) {
                Some((earlier, _)) => {
                    repeated += 1;
                    check.warning(
                        format!("{path}.match[{entry}]"),
                        format!("has no effect: spec.http[{earlier}] has the same match"),
                    );
                }
                None => seen.push((index, unnamed)),
            }
        }
        if repeated == rule.r#match.len() {
            check.warning(&path, "can never be reached: earlier rules have all of its matches");
        }
    }
}
