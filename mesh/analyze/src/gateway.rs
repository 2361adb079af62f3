//! Gateways.

use std::collections::BTreeSet;

use meshlab_compile::kubernetes::TargetPort;
use meshlab_compile::registry::selects;
use meshlab_compile::{Snapshot, kubernetes};
use meshlab_istio_api::{Gateway, Object, Server};

use crate::{Code, Message, origin};

pub(crate) fn analyze(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    for gateway in snapshot.gateways() {
        let message = |code, path: String, text: String| {
            Message::new(code, origin("Gateway", &gateway.meta.namespace, &gateway.meta.name, path), text)
        };
        let labels: Vec<String> = gateway.spec.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods: Vec<&kubernetes::Pod> =
            sources.pods.values().map(AsRef::as_ref).filter(|pod| selects(&gateway.spec.selector, &pod.meta.labels)).collect();
        if pods.is_empty() && !labels.is_empty() {
            let text = format!("selector {:?} is not found on any pod, so nothing serves this gateway", labels.join(","));
            out.push(message(Code::ReferencedResourceNotFound, "spec.selector".into(), text));
            continue;
        }
        let ports = service_ports(snapshot, &pods);
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let path = format!("spec.servers[{index}]");
            if !ports.is_empty() && !ports.contains(&server.port.number) {
                let text = format!(
                    "port {} is on no Service of the pods {:?}, so it cannot be reached through one",
                    server.port.number,
                    labels.join(",")
                );
                out.push(message(Code::GatewayPortNotDefinedOnService, format!("{path}.port"), text));
            }
            if let Some(reason) = bad_credential(snapshot, server, &pods) {
                out.push(message(Code::InvalidGatewayCredential, format!("{path}.tls"), reason));
            }
            let rivals = rivals(snapshot, gateway, server);
            if !rivals.is_empty() {
                let text = format!(
                    "port {} with hosts {:?} is also served by {} for the same pods; which of them wins depends on their age",
                    server.port.number,
                    server.hosts,
                    rivals.join(", ")
                );
                out.push(message(Code::ConflictingGateways, path, text));
            }
        }
    }
}

/// Ports, and the pods' ports behind them, of all Services that select the pods.
fn service_ports(snapshot: &Snapshot, pods: &[&kubernetes::Pod]) -> BTreeSet<u32> {
    let services = snapshot.sources().services.values().filter(|service| {
        let selector = &service.spec.selector;
        !selector.is_empty()
            && pods.iter().any(|pod| pod.meta.namespace == service.meta.namespace && selects(selector, &pod.meta.labels))
    });
    services
        .flat_map(|service| &service.spec.ports)
        .flat_map(|port| {
            let target = match port.target_port {
                Some(TargetPort::Number(number)) => Some(u32::from(number)),
                _ => None,
            };
            [Some(u32::from(port.port)), target]
        })
        .flatten()
        .collect()
}

fn bad_credential(snapshot: &Snapshot, server: &Server, pods: &[&kubernetes::Pod]) -> Option<String> {
    let name = &server.tls.as_ref()?.credential_name;
    if name.is_empty() {
        return None;
    }
    let namespaces: BTreeSet<&str> = pods.iter().map(|pod| pod.meta.namespace.as_str()).collect();
    for namespace in namespaces {
        let Some(secret) = snapshot.sources().secrets.get(&(namespace.to_owned(), name.clone())) else {
            return Some(format!(
                "credentialName {name}: there is no such Secret in namespace {namespace}, where the gateway's pods are"
            ));
        };
        let has = |key: &str| secret.data.get(key).is_some_and(|value| !value.is_empty());
        if !(has("tls.crt") && has("tls.key") || has("cert") && has("key")) {
            return Some(format!("credentialName {name}: Secret {namespace}/{name} needs tls.crt and tls.key"));
        }
    }
    None
}

/// Other Gateways for the same pods, port and some host.
fn rivals(snapshot: &Snapshot, gateway: &Object<Gateway>, server: &Server) -> Vec<String> {
    let hosts = |server: &Server, namespace: &str| -> Vec<String> {
        server
            .hosts
            .iter()
            .map(|entry| entry.strip_prefix("./").map_or_else(|| entry.clone(), |name| format!("{namespace}/{name}")))
            .collect()
    };
    let own = hosts(server, &gateway.meta.namespace);
    snapshot
        .gateways()
        .iter()
        .filter(|other| other.meta.name != gateway.meta.name || other.meta.namespace != gateway.meta.namespace)
        .filter(|other| other.spec.selector == gateway.spec.selector)
        .filter(|other| {
            other.spec.servers.iter().any(|rival| {
                let same_port = rival.port.number == server.port.number && rival.bind == server.bind;
                same_port && hosts(rival, &other.meta.namespace).iter().any(|host| own.contains(host))
            })
        })
        .map(|other| format!("{}/{}", other.meta.namespace, other.meta.name))
        .collect()
}
