//! Sidecar.

use std::collections::BTreeSet;

use super::check::{Check, is_dns_label, is_wildcard_host};
use super::destination_rule::connection_pool;
use super::gateway::{protocol, server_tls};
use crate::{IstioEgressListener, IstioIngressListener, Object, OutboundMode, ServerTlsMode, Sidecar};

pub(super) fn check(object: &Object<Sidecar>, check: &mut Check) {
    let spec = &object.spec;
    if let Some(selector) = &spec.workload_selector {
        check.selector_labels(&selector.labels, "spec.workloadSelector.labels");
    }
    if spec.egress.is_empty()
        && spec.ingress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none()
    {
        check.error("spec", "one of ingress, egress, outboundTrafficPolicy and inboundConnectionPool is needed");
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.ingress.iter().enumerate() {
        ingress(listener, &format!("spec.ingress[{index}]"), &mut ports, check);
    }
    if let Some(pool) = &spec.inbound_connection_pool {
        connection_pool(pool, "spec.inboundConnectionPool", check);
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        if listener.port.is_none() && index + 1 < spec.egress.len() {
            check.error(&path, "the listener without a port takes all others and has to be the last, and the only one");
        }
        egress(listener, &path, &mut ports, check);
    }
    if let Some(policy) = &spec.outbound_traffic_policy
        && let Some(proxy) = &policy.egress_proxy
    {
        let path = "spec.outboundTrafficPolicy.egressProxy";
        if policy.mode == Some(OutboundMode::RegistryOnly) {
            check.error(path, "needs mode ALLOW_ANY");
        }
        check.destination(proxy, path);
        if proxy.port.is_none() {
            check.error(format!("{path}.port"), "is required");
        }
    }
}

fn ingress(listener: &IstioIngressListener, path: &str, ports: &mut BTreeSet<u32>, check: &mut Check) {
    let port = &listener.port;
    check.port(port.number, format!("{path}.port.number"));
    protocol(&port.protocol, &format!("{path}.port.protocol"), check);
    if port.target_port != 0 {
        check.error(format!("{path}.port.targetPort"), "has no effect on a Sidecar; defaultEndpoint says where traffic goes");
    }
    if !ports.insert(port.number) {
        check.error(format!("{path}.port.number"), format!("port {} stands here twice", port.number));
    }
    if !listener.bind.is_empty() && listener.bind.parse::<std::net::IpAddr>().is_err() {
        check.error(format!("{path}.bind"), format!("{:?} is not an address", listener.bind));
    }
    let endpoint = &listener.default_endpoint;
    if !endpoint.is_empty() && !endpoint.starts_with("unix://") {
        let hosts = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"];
        match endpoint.rsplit_once(':') {
            Some((host, port)) if hosts.contains(&host) => {
                if port.parse::<u16>().is_ok_and(|port| port > 0) {
                } else {
                    check.error(format!("{path}.defaultEndpoint"), format!("{port:?} is not a port"));
                }
            }
            _ => check.error(format!("{path}.defaultEndpoint"), "is 127.0.0.1:PORT, 0.0.0.0:PORT or unix://SOCKET"),
        }
    }
    if let Some(tls) = &listener.tls {
        let path = format!("{path}.tls");
        for (field, set) in [
            ("httpsRedirect", tls.https_redirect),
            ("credentialName", !tls.credential_name.is_empty()),
            ("credentialNames", !tls.credential_names.is_empty()),
            ("tlsCertificates", !tls.tls_certificates.is_empty()),
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ] {
            if set {
                check.error(format!("{path}.{field}"), "is not for a Sidecar");
            }
        }
        if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
            check.error(format!("{path}.mode"), "a Sidecar takes SIMPLE, MUTUAL, OPTIONAL_MUTUAL or PASSTHROUGH");
        }
        server_tls(tls, &path, check);
        check.warning(path, "TLS at a Sidecar's own port is not terminated by the proxy here");
    }
    if let Some(pool) = &listener.connection_pool {
        connection_pool(pool, &format!("{path}.connectionPool"), check);
    }
}

fn egress(listener: &IstioEgressListener, path: &str, ports: &mut BTreeSet<u32>, check: &mut Check) {
    if let Some(port) = &listener.port {
        if port.number != 0 || !listener.bind.starts_with("unix://") {
            check.port(port.number, format!("{path}.port.number"));
        }
        protocol(&port.protocol, &format!("{path}.port.protocol"), check);
        if !ports.insert(port.number) {
            check.error(format!("{path}.port.number"), format!("port {} stands here twice", port.number));
        }
    } else if !listener.bind.is_empty() {
        check.error(format!("{path}.bind"), "needs a port");
    }
    if listener.hosts.is_empty() {
        check.error(format!("{path}.hosts"), "at least one host is needed; ./* is the own namespace");
    }
    let mut seen = BTreeSet::new();
    for (index, entry) in listener.hosts.iter().enumerate() {
        let place = format!("{path}.hosts[{index}]");
        let Some((namespace, host)) = entry.split_once('/') else {
            check.error(place, format!("{entry:?} has no namespace; write namespace/host, ./host or */host"));
            continue;
        };
        if !matches!(namespace, "*" | "." | "~") && !is_dns_label(namespace) {
            check.error(&place, format!("{namespace:?} is not ., *, ~ or a namespace"));
        }
        if !is_wildcard_host(host) {
            check.error(&place, format!("{host:?} is not a host name"));
        }
        if namespace == "~" && host != "*" {
            check.error(&place, "no host is written ~/*");
        }
        if !seen.insert(entry) {
            check.warning(&place, format!("{entry:?} stands here twice"));
        }
    }
    if listener.hosts.len() > 1 && listener.hosts.iter().any(|entry| entry == "*/*") {
        check.warning(format!("{path}.hosts"), "*/* takes all, so nothing else has an effect beside it");
    }
}
