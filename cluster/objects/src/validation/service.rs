//! Services and Ingresses.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::{Faults, Field, names};

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(super) fn check(service: Field<'_>, faults: &mut Faults) {
    let spec = service.at("spec");
    let service_type = spec.at("type").text();
    faults.one_of(&spec.at("type"), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    faults.one_of(&spec.at("sessionAffinity"), &["ClientIP", "None"]);
    faults.one_of(&spec.at("externalTrafficPolicy"), &["Cluster", "Local"]);
    faults.one_of(&spec.at("internalTrafficPolicy"), &["Cluster", "Local"]);
    faults.labels(&spec.at("selector"));
    let headless = spec.at("clusterIP").text() == "None";
    if spec.at("ports").is_empty() && !headless && service_type != "ExternalName" {
        faults.required(&*spec.at("ports").path, "");
    }
    if service_type == "LoadBalancer" && headless {
        faults.invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services");
    }
    if service_type == "ExternalName" {
        let name = spec.at("externalName");
        if spec.at("clusterIP").is_set() && !spec.at("clusterIP").text().is_empty() {
            faults.forbidden(&*spec.at("clusterIPs").path, "may not be set when `type` is 'ExternalName'");
        }
        if name.text().is_empty() {
            faults.required(&*name.path, "");
        } else {
            let plain = name.text().strip_suffix('.').unwrap_or(name.text()).to_owned();
            for fault in names::dns_subdomain(&plain) {
                faults.invalid(&*name.path, name.text(), &fault);
            }
        }
    }
    ports(&spec, service_type, faults);
    for ip in spec.at("clusterIPs").items().iter().chain(&spec.at("externalIPs").items()) {
        if ip.text() != "None" && !ip.text().is_empty() && ip.text().parse::<IpAddr>().is_err() {
            faults.invalid(&*ip.path, ip.text(), IP);
        }
    }
    let ip = spec.at("clusterIP");
    if !matches!(ip.text(), "" | "None") && spec.at("clusterIPs").is_empty() && ip.text().parse::<IpAddr>().is_err() {
        faults.invalid("spec.clusterIPs[0]", ip.text(), IP);
    }
}

fn ports(spec: &Field<'_>, service_type: &str, faults: &mut Faults) {
    let ports = spec.at("ports").items();
    let (mut seen_names, mut seen_ports) = (BTreeSet::new(), BTreeSet::new());
    for port in &ports {
        let (name, number, node_port) = (port.at("name"), port.at("port"), port.at("nodePort"));
        if name.text().is_empty() {
            if ports.len() > 1 {
                faults.required(&*name.path, "");
            }
        } else {
            faults.named(&name, names::dns_label);
            if !seen_names.insert(name.text()) {
                faults.duplicate(&*name.path, name.text());
            }
        }
        if number.is_set() {
            faults.port(&number)
        } else {
            faults.required(&*number.path, "")
        }
        faults.one_of(&port.at("protocol"), &["SCTP", "TCP", "UDP"]);
        faults.port_or_name(&port.at("targetPort"));
        if !seen_ports.insert((number.number(), port.at("protocol").text())) {
            faults.duplicate(&*port.path, json!({"port": number.value, "protocol": port.at("protocol").value}));
        }
        let node_number = node_port.number().unwrap_or_default();
        if node_number != 0 && matches!(service_type, "ClusterIP" | "ExternalName") {
            faults.forbidden(&*node_port.path, &format!("may not be used when `type` is '{service_type}'"));
        } else if node_number != 0 && !(30_000..=32_767).contains(&node_number) {
            let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            faults.invalid(&*node_port.path, node_number, detail);
        }
    }
}

pub(super) fn update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let (spec, old_spec) = (new.at("spec"), old.at("spec"));
    // To and from ExternalName the address comes and goes.
    if [&spec, &old_spec].iter().any(|spec| spec.at("type").text() == "ExternalName") {
        return;
    }
    let address = |spec: &Field<'_>| spec.at("clusterIP").text().to_owned();
    let (new_address, old_address) = (address(&spec), address(&old_spec));
    if !old_address.is_empty() && new_address != old_address {
        faults.invalid_shown("spec.clusterIPs[0]", &format!("[]string{{{new_address:?}}}"), "may not change once set");
    }
}

pub(super) fn ingress(ingress: Field<'_>, faults: &mut Faults) {
    let spec = ingress.at("spec");
    if spec.at("rules").is_empty() && spec.at("defaultBackend").is_empty() {
        faults.invalid(
            &*spec.path,
            Value::Object(serde_json::Map::new()),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    for rule in spec.at("rules").items() {
        for path in rule.at("http.paths").items() {
            let path_type = path.at("pathType");
            if path_type.text().is_empty() {
                faults.required(&*path_type.path, "pathType must be specified");
            }
            faults.one_of(&path_type, &["Exact", "ImplementationSpecific", "Prefix"]);
            let text = path.at("path");
            if matches!(path_type.text(), "Exact" | "Prefix") && !text.text().starts_with('/') {
                faults.invalid(&*text.path, text.text(), "must be an absolute path");
            }
        }
    }
}
