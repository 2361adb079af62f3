//! Gateway: what a proxy at the edge of the mesh listens to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Port;
use crate::schema::rules;

/// Servers of the gateway workloads that are selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// What is listened to.
    pub servers: Vec<Server>,
    /// Labels of the gateway's pods.
    pub selector: BTreeMap<String, String>,
}

/// One port with its hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["port", "hosts"]))]
pub struct Server {
    /// The port.
    #[schemars(extend("required" = ["number", "protocol", "name"]))]
    pub port: Port,
    /// Address or socket to bind.
    pub bind: String,
    /// Hosts, each possibly after `namespace/`.
    pub hosts: Vec<String>,
    /// TLS.
    pub tls: Option<ServerTlsSettings>,
    /// Unused.
    pub default_endpoint: String,
    /// A name, unique in the gateway.
    pub name: String,
}

/// TLS of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    (
        "credentialNames and tlsCertificates exclude each other",
        "(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
    ),
    (
        "credentialName and credentialNames exclude each other",
        "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
    ),
])))]
pub struct ServerTlsSettings {
    /// Answer plain HTTP with a redirect to HTTPS.
    pub https_redirect: bool,
    /// What is done with TLS.
    pub mode: ServerTlsMode,
    /// File of the certificate.
    pub server_certificate: String,
    /// File of its key.
    pub private_key: String,
    /// File of the CA certificates for clients.
    pub ca_certificates: String,
    /// File of a revocation list.
    pub ca_crl: String,
    /// Secret that has certificate and key.
    pub credential_name: String,
    /// Several Secrets, of different key types.
    #[schemars(length(min = 1, max = 2))]
    pub credential_names: Vec<String>,
    /// Secret that has the CA certificates for clients.
    pub ca_cert_credential_name: String,
    /// Files, of different key types.
    #[schemars(length(min = 1, max = 2))]
    pub tls_certificates: Vec<TlsCertificate>,
    /// Names a client may have.
    pub subject_alt_names: Vec<String>,
    /// SPKI hashes a client may have.
    pub verify_certificate_spki: Vec<String>,
    /// Certificate hashes a client may have.
    pub verify_certificate_hash: Vec<String>,
    /// Lowest version.
    pub min_protocol_version: TlsProtocol,
    /// Highest version.
    pub max_protocol_version: TlsProtocol,
    /// Cipher suites.
    pub cipher_suites: Vec<String>,
    /// Skip verification of clients.
    pub insecure_skip_verify: Option<bool>,
}

/// Files of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsCertificate {
    /// Certificate.
    pub server_certificate: String,
    /// Key.
    pub private_key: String,
    /// CA certificates.
    pub ca_certificates: String,
}

/// What a server does with TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// Forward it unopened, by server name.
    #[default]
    Passthrough,
    /// Terminate it.
    Simple,
    /// Terminate it and ask for a client certificate.
    Mutual,
    /// Forward it by a server name that encodes the destination.
    AutoPassthrough,
    /// Terminate the mesh's mutual TLS.
    IstioMutual,
    /// Terminate it; a client certificate is verified if there is one.
    OptionalMutual,
}

/// TLS versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsProtocol {
    /// As the proxy thinks best.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// 1.0.
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// 1.1.
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
