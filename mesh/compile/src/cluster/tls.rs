//! TLS towards a cluster: what the DestinationRule says, else mutual TLS with whoever takes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use meshlab_istio_api::{ClientTlsSettings, TlsMode};
use meshlab_proxy_config::{CertificateSource, MeshTls, TlsVersion, UpstreamProtocol, UpstreamTls};

use super::{Build, endpoints};
use crate::registry::{Instance, Resolution};
use crate::security::peer::Mode;

/// TLS towards the endpoints of a cluster.
pub(super) fn upstream(
    build: &Build<'_>,
    subset: &str,
    settings: Option<&ClientTlsSettings>,
    protocol: UpstreamProtocol,
    original_destination: bool,
    instances: &[&Arc<Instance>],
) -> UpstreamTls {
    match settings {
        Some(settings) => match settings.mode {
            TlsMode::Disable => UpstreamTls::Disable,
            TlsMode::Simple | TlsMode::Mutual => custom(build, settings),
            TlsMode::IstioMutual => {
                let mut mesh = mesh_tls(build, subset, protocol, instances);
                if !settings.sni.is_empty() {
                    mesh.sni.clone_from(&settings.sni);
                }
                if !settings.subject_alt_names.is_empty() {
                    mesh.subject_alt_names.clone_from(&settings.subject_alt_names);
                }
                UpstreamTls::Mesh(mesh)
            }
        },
        None => automatic(build, subset, protocol, original_destination, instances),
    }
}

fn automatic(
    build: &Build<'_>,
    subset: &str,
    protocol: UpstreamProtocol,
    original_destination: bool,
    instances: &[&Arc<Instance>],
) -> UpstreamTls {
    let service = build.service;
    if service.external || !build.mesh.enable_auto_mtls {
        return UpstreamTls::Disable;
    }
    if build.peers.of_namespace(&service.namespace).mode == Mode::Disable {
        return UpstreamTls::Disable;
    }
    let mesh = || mesh_tls(build, subset, protocol, instances);
    if !original_destination && service.resolution != Resolution::Passthrough {
        return UpstreamTls::Auto(mesh());
    }
    // An original destination has no endpoint to look at, so all of the service's must take mutual TLS.
    let all = !instances.is_empty() && instances.iter().all(|instance| endpoints::takes_mtls(instance, build.peers));
    match (original_destination, all) {
        (false, _) => UpstreamTls::Auto(mesh()),
        (true, true) => UpstreamTls::Mesh(mesh()),
        (true, false) => UpstreamTls::Disable,
    }
}

fn mesh_tls(build: &Build<'_>, subset: &str, protocol: UpstreamProtocol, instances: &[&Arc<Instance>]) -> MeshTls {
    let alpn: &[&str] = match protocol {
        UpstreamProtocol::Http1 => &["istio-http/1.1", "istio"],
        UpstreamProtocol::Http2 => &["istio-h2", "istio"],
        UpstreamProtocol::SameAsDownstream => &["istio-h2", "istio-http/1.1", "istio-peer-exchange", "istio"],
        UpstreamProtocol::Tcp => &["istio-peer-exchange", "istio"],
    };
    let identities = instances.iter().filter_map(|instance| endpoints::identity(instance, &build.mesh.trust_domain));
    let names: BTreeSet<String> = identities.chain(build.service.subject_alt_names.iter().cloned()).collect();
    MeshTls {
        sni: format!("outbound_.{}_.{subset}_.{}", build.port.number, build.service.host),
        alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
        subject_alt_names: names.into_iter().collect(),
    }
}

fn custom(build: &Build<'_>, settings: &ClientTlsSettings) -> UpstreamTls {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let secret =
        text(&settings.credential_name).map(|name| CertificateSource::Secret(secret_key(&build.client.namespace, &name)));
    let client_certificate = (settings.mode == TlsMode::Mutual).then(|| {
        secret.clone().unwrap_or_else(|| CertificateSource::Files {
            certificate: settings.client_certificate.clone(),
            private_key: settings.private_key.clone(),
            ca: text(&settings.ca_certificates),
        })
    });
    let files = |ca: String| CertificateSource::Files { certificate: String::new(), private_key: String::new(), ca: Some(ca) };
    let ca = secret.or_else(|| text(&settings.ca_certificates).filter(|path| path != "system").map(files));
    let mut subject_alt_names = settings.subject_alt_names.clone();
    if subject_alt_names.is_empty() {
        subject_alt_names.clone_from(&build.service.subject_alt_names);
    }
    UpstreamTls::Custom {
        sni: text(&settings.sni),
        client_certificate,
        ca,
        subject_alt_names,
        skip_verification: settings.insecure_skip_verify.unwrap_or(false),
        min_version: TlsVersion::V1_2,
    }
}

/// The key of a Secret in a proxy's configuration.
pub(crate) fn secret_key(namespace: &str, name: &str) -> String {
    match name.strip_prefix("kubernetes://").unwrap_or(name).split_once('/') {
        Some((namespace, name)) => format!("kubernetes://{namespace}/{name}"),
        None => format!("kubernetes://{namespace}/{}", name.strip_prefix("kubernetes://").unwrap_or(name)),
    }
}
