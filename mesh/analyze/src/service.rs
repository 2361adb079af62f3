//! Services and ServiceEntries.

use meshlab_compile::Snapshot;
use meshlab_compile::kubernetes::TargetPort;
use meshlab_compile::protocol::Protocol;

use crate::{Code, Message, origin};

pub(crate) fn analyze(snapshot: &Snapshot, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    for service in sources.services.values() {
        let meta = &service.meta;
        if meta.namespace.starts_with("kube-")
            || meta.namespace == sources.mesh.root_namespace
            || service.spec.r#type == "ExternalName"
        {
            continue;
        }
        for (index, port) in service.spec.ports.iter().enumerate() {
            let protocol = Protocol::of_service_port(port.port, &port.name, &port.protocol, port.app_protocol.as_deref());
            if protocol != Protocol::Sniffed {
                continue;
            }
            let target = match &port.target_port {
                Some(TargetPort::Number(number)) => number.to_string(),
                Some(TargetPort::Name(name)) => name.clone(),
                None => port.port.to_string(),
            };
            let place = origin("Service", &meta.namespace, &meta.name, format!("spec.ports[{index}].name"));
            let text = format!(
                "port {} (targetPort {target}) is named {:?}, which tells no protocol; begin it with one, as in http-web, or set appProtocol",
                port.port, port.name
            );
            out.push(Message::new(Code::PortNameIsNotUnderNamingConvention, place, text));
        }
    }
    for entry in sources.service_entries.values().filter(|entry| entry.spec.addresses.is_empty()) {
        for (index, port) in entry.spec.ports.iter().enumerate() {
            if matches!(port.protocol.to_ascii_uppercase().as_str(), "" | "TCP") {
                let place = origin("ServiceEntry", &entry.meta.namespace, &entry.meta.name, format!("spec.ports[{index}]"));
                let text = format!("port {} is TCP, where only spec.addresses tell this service from others", port.number);
                out.push(Message::new(Code::ServiceEntryAddressesRequired, place, text));
            }
        }
    }
}
