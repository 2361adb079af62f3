//! Headers at the edges of the proxy: who sent this, through whom, under which id.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use meshlab_proxy_config::{Direction, EdgePolicy};
use rand::Rng;

use crate::stream::Downstream;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
pub(crate) const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
pub(crate) const PEER_METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
pub(crate) const PEER_METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");
pub(crate) const DECORATOR: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");
pub(crate) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(crate) const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
pub(crate) const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
pub(crate) const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
pub(crate) const PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
pub(crate) const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
pub(crate) const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
pub(crate) const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
pub(crate) const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers by which clients could steer a proxy. Envoy believes them of internal clients only, and since Envoy 1.33 nobody is
/// internal unless the mesh's networks say so, which Istio leaves open.
const STEERING: [HeaderName; 14] = [
    TIMEOUT,
    PER_TRY_TIMEOUT,
    MAX_RETRIES,
    RETRY_ON,
    RETRY_GRPC_ON,
    EXPECTED_TIMEOUT,
    INTERNAL,
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-original-url"),
];
/// What clients outside may not tell an edge proxy besides.
const EDGE_ONLY: [HeaderName; 3] = [
    DECORATOR,
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
];

/// Treats a request's headers as it enters, and gives the client's address as trusted proxies tell it.
pub(crate) fn receive(headers: &mut HeaderMap, edge: EdgePolicy, connection: &Downstream) -> IpAddr {
    remove_hop_by_hop(headers);
    STEERING.iter().for_each(|name| drop(headers.remove(name)));
    let client = match edge {
        EdgePolicy::Gateway { trusted_proxies } => {
            EDGE_ONLY.iter().for_each(|name| drop(headers.remove(name)));
            let client = trusted_client(headers, trusted_proxies, connection.peer.ip());
            append_forwarded_for(headers, connection.peer.ip());
            let proto = if connection.tls.is_some() { "https" } else { "http" };
            // A trusted proxy before this one knows better what the client spoke.
            if trusted_proxies == 0 || !headers.contains_key(FORWARDED_PROTO) {
                headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
            }
            if let Ok(address) = HeaderValue::from_str(&client.to_string()) {
                headers.insert(EXTERNAL_ADDRESS, address);
            }
            headers.remove(REQUEST_ID);
            client
        }
        EdgePolicy::SidecarInbound | EdgePolicy::SidecarOutbound => {
            if !headers.contains_key(FORWARDED_PROTO) {
                let proto = if connection.tls.is_some() { "https" } else { "http" };
                headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
            }
            trusted_client(headers, 1, connection.peer.ip())
        }
    };
    forward_client_certificate(headers, edge, connection);
    headers.entry(REQUEST_ID).or_insert_with(new_request_id);
    client
}

/// HTTP/2 clients may send each cookie in a line of its own; they are one header (RFC 9113, 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let lines = || headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    if lines().nth(1).is_none() {
        return;
    }
    let joined = lines().collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The address that the last untrusted party connected from: `trusted` entries from the right of `x-forwarded-for`.
fn trusted_client(headers: &HeaderMap, trusted: u8, peer: IpAddr) -> IpAddr {
    if trusted == 0 {
        return peer;
    }
    let all: Vec<IpAddr> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|address| address.trim().parse().ok())
        .collect();
    all.len().checked_sub(usize::from(trusted)).and_then(|index| all.get(index)).copied().unwrap_or(peer)
}

pub(crate) fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let mut line = String::new();
    for value in headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        line.push_str(value);
        line.push(',');
    }
    line.push_str(&peer.to_string());
    if let Ok(value) = HeaderValue::from_str(&line) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// `x-forwarded-client-cert` as Istio has it: dropped outbound, appended inbound, replaced at a gateway.
fn forward_client_certificate(headers: &mut HeaderMap, edge: EdgePolicy, connection: &Downstream) {
    let certificate = connection.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
    let Some(certificate) = certificate.filter(|_| edge != EdgePolicy::SidecarOutbound) else {
        // Inbound plaintext is not sanitized either in Envoy: it is, since there is no certificate to append to.
        headers.remove(CLIENT_CERT);
        return;
    };
    let by = connection.tls.as_ref().and_then(|tls| tls.local_identity.as_deref());
    let mut element = String::new();
    if let Some(by) = by {
        element.push_str(&format!("By={by};"));
    }
    element.push_str(&format!("Hash={};Subject=\"{}\"", certificate.hash, certificate.subject.replace('"', "\\\"")));
    if let Some(uri) = certificate.uri_names.first() {
        element.push_str(&format!(";URI={uri}"));
    }
    if matches!(edge, EdgePolicy::Gateway { .. }) {
        certificate.dns_names.iter().for_each(|name| element.push_str(&format!(";DNS={name}")));
    }
    let before = headers.get(CLIENT_CERT).and_then(|value| value.to_str().ok());
    let line = match before {
        Some(before) if edge == EdgePolicy::SidecarInbound => format!("{before},{element}"),
        _ => element,
    };
    match HeaderValue::from_str(&line) {
        Ok(value) => drop(headers.insert(CLIENT_CERT, value)),
        Err(_) => drop(headers.remove(CLIENT_CERT)),
    }
}

/// A number as a header's value. The small ones, which are most, are not put together each time.
pub(crate) fn decimal(number: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(number).ok().and_then(|index| SMALL.get(index)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(number),
    }
}

/// A random UUID.
fn new_request_id() -> HeaderValue {
    let bits = rand::rng().random::<u128>() & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [0_u8; 36];
    let mut at = 0;
    for nibble in (0..32).rev() {
        if matches!(at, 8 | 13 | 18 | 23) {
            text[at] = b'-';
            at += 1;
        }
        text[at] = b"0123456789abcdef"[(bits >> (nibble * 4) & 0xf) as usize];
        at += 1;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Removes what only concerns one connection (RFC 9110 section 7.6.1), what `Connection` names included.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // Never by a client's word what this proxy vouches for.
            .filter(|name| {
                !name.as_str().starts_with("x-forwarded-") && !name.as_str().starts_with("x-envoy-") && *name != header::HOST
            })
            .collect();
        headers.remove(header::CONNECTION);
        named.iter().filter(|name| **name != header::UPGRADE).for_each(|name| drop(headers.remove(name)));
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if let Some(codings) = headers.remove(header::TE)
        && codings.to_str().is_ok_and(|codings| codings.split(',').any(|coding| coding.trim() == "trailers"))
    {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// The same for a response, whose `Connection` header Envoy removes without looking at what it names.
pub(crate) fn remove_hop_by_hop_of_response(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

/// What an Envoy calls itself.
pub(crate) fn server_text(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "envoy",
        Direction::Inbound | Direction::Gateway => "istio-envoy",
    }
}

/// The same as a header.
pub(crate) fn server_name(direction: Direction) -> HeaderValue {
    HeaderValue::from_static(server_text(direction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let id = new_request_id();
        let id = id.to_str().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }

    #[test]
    fn fact_37_the_client_behind_trusted_proxies_is_counted_from_the_right() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("1.1.1.1, 2.2.2.2,3.3.3.3"));
        let peer = IpAddr::from([9, 9, 9, 9]);
        assert_eq!(trusted_client(&headers, 0, peer), peer);
        assert_eq!(trusted_client(&headers, 1, peer), IpAddr::from([3, 3, 3, 3]));
        assert_eq!(trusted_client(&headers, 2, peer), IpAddr::from([2, 2, 2, 2]));
        assert_eq!(trusted_client(&headers, 4, peer), peer);
    }

    #[test]
    fn connection_named_headers_go_but_not_those_that_the_proxy_vouches_for() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, x-mine, x-forwarded-for"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
