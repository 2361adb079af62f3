//! Attributes of requests and connections, and the forms that wanted values have.

use std::net::IpAddr;

use ipnet::IpNet;
use meshlab_proxy_config::{Attribute, StringMatch};

/// How wanted values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// Text with `*` at either end.
    Text,
    /// Host names.
    Host,
    /// Paths, possibly templates.
    Path,
    /// Peer identities.
    Principal,
    /// Trust domains.
    TrustDomain,
    /// Service accounts.
    ServiceAccount,
    /// Address blocks.
    Ip,
    /// Ports.
    Port,
}

/// The attribute of a `when` key.
pub(super) fn parse_key(key: &str) -> Option<(Attribute, Values)> {
    let bracketed =
        |prefix: &str| key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('[')).and_then(|rest| rest.strip_suffix(']'));
    if let Some(name) = bracketed("request.headers") {
        return Some((Attribute::Header(name.to_ascii_lowercase()), Values::Text));
    }
    if let Some(path) = bracketed("request.auth.claims") {
        return Some((Attribute::Claim(path.split("][").map(str::to_owned).collect()), Values::Text));
    }
    Some(match key {
        "source.ip" => (Attribute::SourceIp, Values::Ip),
        "remote.ip" => (Attribute::RemoteIp, Values::Ip),
        "source.namespace" => (Attribute::Namespace, Values::Text),
        "source.principal" => (Attribute::Principal, Values::Principal),
        "source.serviceAccount" => (Attribute::ServiceAccount, Values::ServiceAccount),
        "source.trustDomain" => (Attribute::Principal, Values::TrustDomain),
        "request.auth.principal" => (Attribute::RequestPrincipal, Values::Text),
        "request.auth.audiences" => (Attribute::Audience, Values::Text),
        "request.auth.presenter" => (Attribute::Presenter, Values::Text),
        "destination.ip" => (Attribute::DestinationIp, Values::Ip),
        "destination.port" => (Attribute::DestinationPort, Values::Port),
        "connection.sni" => (Attribute::Sni, Values::Text),
        _ => return None,
    })
}

/// Attributes that requests have and connections have not.
pub(super) fn is_http_only(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::RequestPrincipal
            | Attribute::Audience
            | Attribute::Presenter
            | Attribute::Claim(_)
            | Attribute::Header(_)
            | Attribute::Host
            | Attribute::Method
            | Attribute::Path
    )
}

/// `*` asks for any value, `a*` for a start, `*a` for an end.
pub(super) fn string_match(value: &str) -> StringMatch {
    if value == "*" {
        StringMatch::Present
    } else if let Some(prefix) = value.strip_suffix('*') {
        StringMatch::Prefix(prefix.to_owned())
    } else if let Some(suffix) = value.strip_prefix('*') {
        StringMatch::Suffix(suffix.to_owned())
    } else {
        StringMatch::Exact(value.to_owned())
    }
}

/// Hosts are compared without regard to case.
pub(super) fn host_match(value: &str) -> StringMatch {
    match string_match(value) {
        StringMatch::Present => StringMatch::Present,
        StringMatch::Exact(text) => StringMatch::Regex(format!("(?i){}", regex::escape(&text))),
        StringMatch::Prefix(text) => StringMatch::Regex(format!("(?i){}.*", regex::escape(&text))),
        StringMatch::Suffix(text) => StringMatch::Regex(format!("(?i).*{}", regex::escape(&text))),
        StringMatch::Regex(text) => StringMatch::Regex(text),
    }
}

/// A trust domain as the start of a principal.
pub(super) fn trust_domain_match(domain: &str) -> StringMatch {
    match string_match(domain) {
        StringMatch::Present => StringMatch::Present,
        StringMatch::Exact(domain) => StringMatch::Prefix(format!("{domain}/")),
        StringMatch::Prefix(start) => StringMatch::Regex(format!("{}[^/]*/.*", regex::escape(&start))),
        StringMatch::Suffix(end) => StringMatch::Regex(format!("[^/]*{}/.*", regex::escape(&end))),
        StringMatch::Regex(text) => StringMatch::Regex(text),
    }
}

/// `namespace/name`; a name alone is one of the policy's namespace.
pub(super) fn service_account(value: &str, namespace: &str) -> String {
    if value.contains('/') { value.to_owned() } else { format!("{namespace}/{value}") }
}

/// A block, or an address as a block of one.
pub(super) fn ip_block(value: &str) -> Option<IpNet> {
    value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from))
}
