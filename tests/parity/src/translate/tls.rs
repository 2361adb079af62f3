//! TLS of listeners and of clusters, with certificates written out.

use anyhow::{Context, Result, bail, ensure};
use meshlab_proxy_config::{
    CertificateSource, ClientCertificate, Cluster, DownstreamTls, Endpoints, ProxyConfig, Secret, TlsVersion, UpstreamTls,
};
use serde_json::{Map, Value, json};

use super::Bootstrap;

fn version(version: TlsVersion) -> &'static str {
    if version == TlsVersion::V1_2 { "TLSv1_2" } else { "TLSv1_3" }
}

fn inline(text: &str) -> Value {
    json!({ "inline_string": text })
}

/// A transport socket; `kind` is `Downstream` or `Upstream`.
fn socket(kind: &str, settings: Map<String, Value>) -> Value {
    let mut settings = settings;
    let name = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}TlsContext");
    settings.insert("@type".into(), name.into());
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": settings })
}

fn secret<'a>(source: &CertificateSource, config: &'a ProxyConfig) -> Result<&'a Secret> {
    let CertificateSource::Secret(name) = source else { bail!("a certificate from {source:?}") };
    let secret = config.secrets.get(name).with_context(|| format!("no secret {name}"))?;
    ensure!(secret.error.is_none(), "secret {name}: {:?}", secret.error);
    Ok(secret)
}

fn pair(certificate: &str, key: &str) -> Value {
    json!([{ "certificate_chain": inline(certificate), "private_key": inline(key) }])
}

/// Names as Istio asks for them: of either kind.
fn any_kind(names: &[String]) -> Value {
    let kinds = ["DNS", "URI"];
    let each = names.iter().flat_map(|name| kinds.map(|kind| json!({ "san_type": kind, "matcher": { "exact": name } })));
    each.collect::<Vec<_>>().into()
}

pub(super) fn downstream(wanted: &DownstreamTls, config: &ProxyConfig, options: &Bootstrap<'_>) -> Result<Value> {
    let identity = options.identity;
    let own = match &wanted.certificate {
        CertificateSource::Workload => None,
        source => Some(secret(source, config)?),
    };
    // Istio's own names in our list are for our own clients; Istio finds what is spoken inside by the chain that was chosen, and has
    // Envoy negotiate what it knows.
    let alpn: Vec<&String> = wanted.alpn.iter().filter(|name| !name.starts_with("istio")).collect();
    let mut common = json!({
        "alpn_protocols": alpn,
        "tls_params": {
            "tls_minimum_protocol_version": version(wanted.min_version),
            "tls_maximum_protocol_version": version(wanted.max_version),
        },
        "tls_certificates": own.map_or_else(
            || pair(&identity.certificate_chain, &identity.private_key),
            |secret| pair(&secret.certificate_chain, &secret.private_key),
        ),
    });
    let mut settings = Map::new();
    match &wanted.client_certificate {
        ClientCertificate::None => {}
        ClientCertificate::Mesh { trust_domains } => {
            let names: Vec<Value> = trust_domains
                .iter()
                .map(|domain| json!({ "san_type": "URI", "matcher": { "prefix": format!("spiffe://{domain}/") } }))
                .collect();
            common["validation_context"] =
                json!({ "trusted_ca": inline(&identity.roots), "match_typed_subject_alt_names": names });
            settings.insert("require_client_certificate".into(), json!(true));
        }
        ClientCertificate::Required { subject_alt_names } => {
            let secret = own.context("client certificates without a secret")?;
            common["validation_context"] = json!({ "trusted_ca": inline(&secret.ca_certificates), "match_typed_subject_alt_names": any_kind(subject_alt_names) });
            settings.insert("require_client_certificate".into(), json!(true));
        }
        ClientCertificate::Optional => bail!("optional client certificates"),
    }
    settings.insert("common_tls_context".into(), common);
    Ok(socket("Downstream", settings))
}

/// The transport socket of a cluster; `None`: plaintext.
pub(super) fn upstream(
    cluster: &Cluster,
    members: &Endpoints,
    config: &ProxyConfig,
    options: &Bootstrap<'_>,
) -> Result<Option<Value>> {
    let mut settings = Map::new();
    let common = match &cluster.tls {
        UpstreamTls::Disable => return Ok(None),
        // Endpoints have no sidecars in the world, so automatic mutual TLS means plaintext.
        UpstreamTls::Auto(_) if members.endpoints.iter().all(|endpoint| !endpoint.metadata.mtls) => return Ok(None),
        UpstreamTls::Auto(_) => bail!("{}: automatic mutual TLS", cluster.name),
        UpstreamTls::Mesh(mesh) => {
            let identity = options.identity;
            settings.insert("sni".into(), json!(mesh.sni));
            let names: Vec<Value> =
                mesh.subject_alt_names.iter().map(|name| json!({ "san_type": "URI", "matcher": { "exact": name } })).collect();
            json!({
                "alpn_protocols": mesh.alpn,
                "tls_certificates": pair(&identity.certificate_chain, &identity.private_key),
                "validation_context": { "trusted_ca": inline(&identity.roots), "match_typed_subject_alt_names": names },
            })
        }
        UpstreamTls::Custom { sni, client_certificate, ca, subject_alt_names, skip_verification, min_version } => {
            if let Some(sni) = sni {
                settings.insert("sni".into(), json!(sni));
            }
            let mut common = json!({ "tls_params": { "tls_minimum_protocol_version": version(*min_version) } });
            if let Some(source) = client_certificate {
                let secret = secret(source, config)?;
                common["tls_certificates"] = pair(&secret.certificate_chain, &secret.private_key);
            }
            if !skip_verification {
                let authority = secret(ca.as_ref().context("the machine's trust store")?, config)?;
                common["validation_context"] = json!({
                    "trusted_ca": inline(&authority.ca_certificates),
                    "match_typed_subject_alt_names": any_kind(subject_alt_names),
                });
            }
            common
        }
    };
    settings.insert("common_tls_context".into(), common);
    Ok(Some(socket("Upstream", settings)))
}

/// Without a server name of its own, Istio has Envoy send the request's host, and verify it where no names are given.
pub(super) fn server_name_of_request(tls: &UpstreamTls) -> Option<Value> {
    match tls {
        UpstreamTls::Custom { sni: None, subject_alt_names, skip_verification, .. } => Some(json!({
            "auto_sni": true,
            "auto_san_validation": subject_alt_names.is_empty() && !skip_verification,
        })),
        _ => None,
    }
}
