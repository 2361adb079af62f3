//! DestinationRules.

use meshlab_compile::registry::{Registry, selects};
use meshlab_compile::{Snapshot, host};
use meshlab_istio_api::{ClientTlsSettings, DestinationRule, Object, TlsMode};

use crate::{Code, Message, origin};

pub(crate) fn analyze(snapshot: &Snapshot, out: &mut Vec<Message>) {
    for object in snapshot.sources().destination_rules.values() {
        hosts_and_subsets(snapshot, object, out);
        verification(object, out);
    }
}

fn message(object: &Object<DestinationRule>, code: Code, path: String, text: String) -> Message {
    Message::new(code, origin("DestinationRule", &object.meta.namespace, &object.meta.name, path), text)
}

fn hosts_and_subsets(snapshot: &Snapshot, object: &Object<DestinationRule>, out: &mut Vec<Message>) {
    let sources = snapshot.sources();
    let full = host::resolve(&object.spec.host, &object.meta.namespace, &sources.mesh.domain_suffix).to_lowercase();
    let services: Vec<_> = snapshot.services().iter().filter(|service| host::matches(&service.host, &full)).collect();
    if services.is_empty() {
        let text = format!("host {:?} is that of no service; it was looked for as {full}", object.spec.host);
        out.push(message(object, Code::UnknownDestinationRuleHost, "spec.host".into(), text));
        return;
    }
    for (index, subset) in object.spec.subsets.iter().enumerate() {
        let found = services.iter().any(|service| match service.registry {
            Registry::Kubernetes => sources.pods.values().any(|pod| {
                pod.meta.namespace == service.namespace
                    && (service.selector.is_empty() || selects(&service.selector, &pod.meta.labels))
                    && selects(&subset.labels, &pod.meta.labels)
            }),
            Registry::External => service.endpoints.values().flatten().any(|instance| selects(&subset.labels, &instance.labels)),
        });
        if !found {
            let labels: Vec<String> = subset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let text = format!(
                "subset {} ({}) selects no pod of the service, so requests to it get 503 UH",
                subset.name,
                if labels.is_empty() { "no labels".to_owned() } else { labels.join(", ") }
            );
            out.push(message(object, Code::DestinationRuleSubsetNotSelectPods, format!("spec.subsets[{index}]"), text));
        }
    }
}

fn mode_name(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "DISABLE",
        TlsMode::Simple => "SIMPLE",
        TlsMode::Mutual => "MUTUAL",
        TlsMode::IstioMutual => "ISTIO_MUTUAL",
    }
}

fn verification(object: &Object<DestinationRule>, out: &mut Vec<Message>) {
    let Some(policy) = &object.spec.traffic_policy else { return };
    let unverified = |tls: &ClientTlsSettings| {
        let own = matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual);
        own && tls.ca_certificates.is_empty() && tls.credential_name.is_empty()
    };
    if let Some(tls) = policy.tls.as_ref().filter(|tls| unverified(tls)) {
        let text = format!(
            "TLS mode {} to {} names no caCertificates, so only public certificates are trusted",
            mode_name(tls.mode),
            object.spec.host
        );
        out.push(message(object, Code::NoServerCertificateVerificationDestinationLevel, "spec.trafficPolicy.tls".into(), text));
    }
    for (index, own) in policy.port_level_settings.iter().enumerate() {
        if let (Some(tls), Some(port)) = (own.tls.as_ref().filter(|tls| unverified(tls)), own.port) {
            let text = format!(
                "TLS mode {} to {} port {} names no caCertificates, so only public certificates are trusted",
                mode_name(tls.mode),
                object.spec.host,
                port.number
            );
            let path = format!("spec.trafficPolicy.portLevelSettings[{index}].tls");
            out.push(message(object, Code::NoServerCertificateVerificationPortLevel, path, text));
        }
    }
}
