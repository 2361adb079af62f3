//! ServiceEntry and WorkloadEntry.

use std::collections::BTreeSet;

use super::check::{Check, is_fqdn, is_ip_or_block, is_wildcard_host};
use super::gateway::protocol;
use crate::{Object, Resolution, ServiceEntry, ServicePort, WorkloadEntry};

pub(super) fn check(object: &Object<ServiceEntry>, check: &mut Check) {
    let spec = &object.spec;
    if spec.hosts.is_empty() {
        check.error("spec.hosts", "at least one host is needed");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host == "*" {
            check.error(path, "a host cannot be * alone");
        } else if !is_wildcard_host(host) {
            check.error(path, format!("{host:?} is not a host name"));
        }
    }
    for (index, address) in spec.addresses.iter().enumerate() {
        let path = format!("spec.addresses[{index}]");
        if !is_ip_or_block(address) {
            check.error(path, format!("{address:?} is not an address or a block"));
        } else if address.contains('/') && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
            check.error(path, "a block needs resolution NONE or STATIC");
        }
    }
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        check.error("spec.endpoints", "endpoints and workloadSelector exclude each other");
    }
    if let Some(selector) = &spec.workload_selector {
        check.selector_labels(&selector.labels, "spec.workloadSelector.labels");
        if spec.resolution == Resolution::None {
            check.warning("spec.workloadSelector", "has no effect with resolution NONE");
        }
    }
    ports(spec, check);
    resolution(spec, check);
    check.export_to(&spec.export_to, &object.meta.namespace, true);
}

fn ports(spec: &ServiceEntry, check: &mut Check) {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (index, port) in spec.ports.iter().enumerate() {
        let ServicePort { number, name, target_port, protocol: spoken } = port;
        let path = format!("spec.ports[{index}]");
        check.port(*number, format!("{path}.number"));
        check.required(format!("{path}.name"), name);
        if !names.insert(name) {
            check.error(format!("{path}.name"), format!("port name {name:?} stands here twice"));
        }
        if !numbers.insert(number) {
            check.error(format!("{path}.number"), format!("port {number} stands here twice"));
        }
        if *target_port != 0 {
            check.port(*target_port, format!("{path}.targetPort"));
        }
        if !spoken.is_empty() {
            protocol(spoken, &format!("{path}.protocol"), check);
        }
        let opaque = matches!(spoken.to_ascii_uppercase().as_str(), "" | "TCP" | "MONGO" | "REDIS" | "MYSQL");
        if opaque && spec.addresses.is_empty() {
            let message = format!("without addresses all traffic to port {number} is taken for this service");
            check.warning("spec.addresses", message);
        }
        if opaque && !spoken.is_empty() && spec.hosts.len() > 1 {
            check.warning("spec.hosts", format!("connections to port {number} cannot be told apart by host"));
        }
    }
}

fn resolution(spec: &ServiceEntry, check: &mut Check) {
    match spec.resolution {
        Resolution::None if !spec.endpoints.is_empty() => {
            check.error("spec.endpoints", "resolution NONE takes the client's own address, so it has no endpoints");
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if spec.endpoints.is_empty() && spec.workload_selector.is_none() && spec.hosts.iter().any(|host| !is_fqdn(host)) {
                check.error("spec.hosts", "a host with a wildcard cannot be resolved; name endpoints");
            }
            if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
                check.error("spec.endpoints", "resolution DNS_ROUND_ROBIN takes one endpoint at most");
            }
        }
        Resolution::DynamicDns => {
            if spec.hosts.iter().any(|host| !host.starts_with('*')) {
                check.error("spec.hosts", "resolution DYNAMIC_DNS is for hosts with a wildcard");
            }
            if !spec.addresses.is_empty() || !spec.endpoints.is_empty() {
                check.error("spec", "resolution DYNAMIC_DNS takes neither addresses nor endpoints");
            }
            check.warning("spec.resolution", "DYNAMIC_DNS is not done by the proxy here");
        }
        Resolution::None | Resolution::Static => {}
    }
    let names: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        workload(endpoint, &path, check);
        for name in endpoint.ports.keys().filter(|name| !names.contains(name.as_str())) {
            check.error(format!("{path}.ports[{name}]"), format!("the entry has no port named {name:?}"));
        }
        let address = &endpoint.address;
        let is_address = address.parse::<std::net::IpAddr>().is_ok() || address.starts_with("unix://");
        match spec.resolution {
            Resolution::Static if !is_address && !address.is_empty() => {
                check.error(format!("{path}.address"), format!("{address:?} is not an address, which resolution STATIC needs"));
            }
            Resolution::Dns | Resolution::DnsRoundRobin if !is_address && !is_fqdn(address) => {
                check.error(format!("{path}.address"), format!("{address:?} is neither a host name nor an address"));
            }
            _ => {}
        }
    }
}

/// One workload outside Kubernetes.
pub(super) fn workload(entry: &WorkloadEntry, path: &str, check: &mut Check) {
    let address = &entry.address;
    if address.is_empty() && entry.network.is_empty() {
        check.error(format!("{path}.address"), "is required");
    }
    if let Some(socket) = address.strip_prefix("unix://") {
        if !(socket.starts_with('/') || socket.starts_with('@')) || socket.ends_with('/') {
            check.error(format!("{path}.address"), "a Unix socket is an absolute path or an abstract name");
        }
        if !entry.ports.is_empty() {
            check.error(format!("{path}.ports"), "a Unix socket has no ports");
        }
        check.warning(format!("{path}.address"), "Unix sockets are not reached by the proxy here");
    } else if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() && !is_fqdn(address) {
        check.error(format!("{path}.address"), format!("{address:?} is neither an address nor a host name"));
    }
    for (name, port) in &entry.ports {
        check.port(*port, format!("{path}.ports[{name}]"));
    }
    check.labels(&entry.labels, &format!("{path}.labels"));
}
