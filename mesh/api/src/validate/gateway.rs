//! Gateway.

use std::collections::BTreeSet;

use super::check::{Check, is_dns_label, is_wildcard_host};
use crate::{Gateway, Object, Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};

/// Protocols that a port can have.
const PROTOCOLS: [&str; 12] =
    ["HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY", "MONGO", "REDIS", "MYSQL", "TLS", "TCP", "UDP"];

pub(super) fn check(object: &Object<Gateway>, check: &mut Check) {
    let servers = &object.spec.servers;
    if servers.is_empty() {
        check.error("spec.servers", "at least one server is needed");
    }
    let mut names = BTreeSet::new();
    for (index, server) in servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        if !server.port.name.is_empty() && !names.insert(&server.port.name) {
            check.error(format!("{path}.port.name"), format!("port name {:?} stands here twice", server.port.name));
        }
        self::server(server, &path, check);
    }
}

fn server(server: &Server, path: &str, check: &mut Check) {
    if server.hosts.is_empty() {
        check.error(format!("{path}.hosts"), "at least one host is needed");
    }
    for (index, entry) in server.hosts.iter().enumerate() {
        let place = format!("{path}.hosts[{index}]");
        let host = match entry.split_once('/') {
            Some((namespace, host)) => {
                if !matches!(namespace, "*" | ".") && !is_dns_label(namespace) {
                    check.error(&place, format!("{namespace:?} is not ., * or a namespace"));
                }
                host
            }
            None => entry,
        };
        if !is_wildcard_host(host) && host.parse::<std::net::IpAddr>().is_err() {
            check.error(&place, format!("{host:?} is neither a host name nor an address"));
        }
    }
    let port = &server.port;
    check.port(port.number, format!("{path}.port.number"));
    check.required(format!("{path}.port.name"), &port.name);
    protocol(&port.protocol, &format!("{path}.port.protocol"), check);
    if port.target_port != 0 {
        check.error(format!("{path}.port.targetPort"), "has no effect on a Gateway; its Service says where a port goes");
    }
    if !server.bind.is_empty() && !server.bind.starts_with("unix://") && server.bind.parse::<std::net::IpAddr>().is_err() {
        check.error(format!("{path}.bind"), format!("{:?} is not an address", server.bind));
    }
    let upper = port.protocol.to_ascii_uppercase();
    let with_tls = matches!(upper.as_str(), "HTTPS" | "TLS");
    match &server.tls {
        None if with_tls => check.error(format!("{path}.tls"), format!("protocol {upper} needs TLS settings")),
        None => {}
        Some(tls) => {
            let plain_http = matches!(upper.as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB");
            if plain_http && is_more_than_redirect(tls) {
                check.error(format!("{path}.tls"), format!("protocol {upper} is plaintext and takes httpsRedirect only"));
            } else if !plain_http && !with_tls && upper != "TCP" {
                check.error(format!("{path}.tls"), format!("protocol {upper} takes no TLS settings; use HTTPS or TLS"));
            }
            if tls.https_redirect && !plain_http {
                check.warning(format!("{path}.tls.httpsRedirect"), "is for servers with plaintext HTTP");
            }
            if !plain_http {
                server_tls(tls, &format!("{path}.tls"), check);
            }
        }
    }
}

pub(super) fn protocol(protocol: &str, path: &str, check: &mut Check) {
    if !PROTOCOLS.contains(&protocol.to_ascii_uppercase().as_str()) {
        check.error(path, format!("{protocol:?} is not a protocol; use one of {}", PROTOCOLS.join(", ")));
    }
}

fn is_more_than_redirect(tls: &ServerTlsSettings) -> bool {
    let redirect = ServerTlsSettings { https_redirect: tls.https_redirect, ..Default::default() };
    *tls != redirect
}

pub(super) fn server_tls(tls: &ServerTlsSettings, path: &str, check: &mut Check) {
    let old = matches!(tls.min_protocol_version, TlsProtocol::V1_0 | TlsProtocol::V1_1);
    if old {
        check.warning(format!("{path}.minProtocolVersion"), "versions below TLS 1.2 are not spoken by the proxy here");
    }
    if !tls.cipher_suites.is_empty() {
        check.warning(format!("{path}.cipherSuites"), "the proxy here chooses its cipher suites itself");
    }
    for (field, set) in
        [("verifyCertificateSpki", &tls.verify_certificate_spki), ("verifyCertificateHash", &tls.verify_certificate_hash)]
    {
        if !set.is_empty() {
            check.warning(format!("{path}.{field}"), "is not looked at by the proxy here; subjectAltNames are");
        }
    }
    let own_files = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let sources = [
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("serverCertificate", own_files),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    match tls.mode {
        ServerTlsMode::IstioMutual => {
            for (field, set) in sources.into_iter().chain([
                ("serverCertificate", !tls.server_certificate.is_empty()),
                ("privateKey", !tls.private_key.is_empty()),
                ("caCertificates", !tls.ca_certificates.is_empty()),
            ]) {
                if set {
                    check.error(format!("{path}.{field}"), "ISTIO_MUTUAL uses the mesh's own certificates");
                }
            }
            return;
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if sources.iter().any(|(_, set)| *set) || !tls.ca_certificates.is_empty() {
                check.warning(path, "TLS that is passed through needs no certificates; they have no effect");
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    check.at_most_one(path, &sources);
    let from_secret = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let terminates = matches!(tls.mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    if terminates && !from_secret {
        if tls.mode != ServerTlsMode::Simple && tls.ca_certificates.is_empty() {
            check.error(format!("{path}.caCertificates"), "mutual TLS needs the CA of its clients");
        }
        if tls.tls_certificates.is_empty() {
            check.required(format!("{path}.serverCertificate"), &tls.server_certificate);
            check.required(format!("{path}.privateKey"), &tls.private_key);
        }
        for (index, files) in tls.tls_certificates.iter().enumerate() {
            check.required(format!("{path}.tlsCertificates[{index}].serverCertificate"), &files.server_certificate);
            check.required(format!("{path}.tlsCertificates[{index}].privateKey"), &files.private_key);
        }
    }
    if !tls.ca_crl.is_empty() && (from_secret || tls.mode == ServerTlsMode::Simple) {
        check.error(format!("{path}.caCrl"), "is for mutual TLS with certificates from files");
    }
}
