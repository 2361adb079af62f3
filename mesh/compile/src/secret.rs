//! Certificates from Secrets, as gateways name them.

use base64::Engine;
use meshlab_proxy_config::Secret;

use crate::kubernetes;
use crate::sources::Sources;

/// Reads the Secret of a key (`kubernetes://ns/name`). What is missing is said in `error`.
pub(crate) fn load(sources: &Sources, key: &str, needs_certificate: bool, needs_ca: bool, ca_name: &str) -> Secret {
    let path = key.strip_prefix("kubernetes://").unwrap_or(key);
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    let find = |name: &str| sources.secrets.get(&(namespace.to_owned(), name.to_owned()));
    let mut out = Secret::default();
    let secret = find(name);
    if needs_certificate {
        match secret {
            None => out.error = Some(format!("Secret {namespace}/{name} does not exist")),
            Some(secret) => {
                out.certificate_chain = entry(secret, &["tls.crt", "cert"]);
                out.private_key = entry(secret, &["tls.key", "key"]);
                if out.certificate_chain.is_empty() || out.private_key.is_empty() {
                    out.error = Some(format!("Secret {namespace}/{name} needs tls.crt and tls.key (or cert and key)"));
                }
            }
        }
    }
    if needs_ca {
        let own = secret.map(|secret| entry(secret, &["ca.crt", "cacert"])).unwrap_or_default();
        let other =
            if ca_name.is_empty() { format!("{name}-cacert") } else { ca_name.rsplit('/').next().unwrap_or(ca_name).to_owned() };
        out.ca_certificates = if own.is_empty() || !ca_name.is_empty() {
            find(&other).map(|secret| entry(secret, &["ca.crt", "cacert"])).unwrap_or(own)
        } else {
            own
        };
        if out.ca_certificates.is_empty() && out.error.is_none() {
            out.error = Some(format!("neither Secret {namespace}/{name} nor {namespace}/{other} has ca.crt (or cacert)"));
        }
    }
    out
}

/// The first of these entries that there is, decoded.
fn entry(secret: &kubernetes::Secret, names: &[&str]) -> String {
    let found = names.iter().find_map(|name| secret.data.get(*name));
    let bytes = found.and_then(|encoded| base64::engine::general_purpose::STANDARD.decode(encoded).ok()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}
