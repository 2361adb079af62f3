//! Defaults of services, endpoints and network policies.

use serde_json::{Value, json};

use super::{Fields, each, existing, object_in, set, set_text, text};

const AFFINITY_SECONDS: i32 = 10_800;

pub(super) fn service(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set_text(spec, "sessionAffinity", "None");
    set_text(spec, "type", "ClusterIP");
    if text(spec, "sessionAffinity") == "ClientIP" {
        set(object_in(object_in(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", AFFINITY_SECONDS);
    }
    for port in each(spec, "ports") {
        set_text(port, "protocol", "TCP");
        if port.get("targetPort").is_none_or(|target| target.is_null() || target == 0 || target == "")
            && let Some(number) = port.get("port").cloned()
        {
            port.insert("targetPort".to_owned(), number);
        }
    }
    let service_type = text(spec, "type").to_owned();
    let external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if matches!(service_type.as_str(), "NodePort" | "LoadBalancer") || external_ips {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if service_type == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
    if matches!(service_type.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_text(spec, "internalTrafficPolicy", "Cluster");
        set(spec, "ipFamilies", json!(["IPv4"]));
        set_text(spec, "ipFamilyPolicy", "SingleStack");
    }
}

pub(super) fn endpoints(fields: &mut Fields) {
    for subset in each(fields, "subsets") {
        for port in each(subset, "ports") {
            set_text(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(fields: &mut Fields) {
    for port in each(fields, "ports") {
        set(port, "name", "");
        set(port, "protocol", "TCP");
    }
}

pub(super) fn network_policy(fields: &mut Fields) {
    let Some(spec) = existing(fields, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                set(port, "protocol", "TCP");
            }
        }
    }
    let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    set(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
}
