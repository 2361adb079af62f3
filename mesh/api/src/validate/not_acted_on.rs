//! Fields that are kept and checked, but that nothing in this mesh acts on. Whoever sets one is told, so that no learner waits for
//! an effect that cannot come.

use serde_json::Value;

use super::check::Check;
use crate::Kind;

/// By kind, the end of the field's path without indices, and what there is instead.
const FIELDS: [(Kind, &str, &str); 18] = [
    (Kind::DestinationRule, "connectionPool.tcp.maxConnectionDuration", "connections have no longest life"),
    (Kind::DestinationRule, "connectionPool.http.maxConcurrentStreams", "the upstream's own limit holds"),
    (Kind::DestinationRule, "connectionPool.http.http2KeepAlive", "tcpKeepalive finds out whether the upstream is still there"),
    (Kind::DestinationRule, "warmup.minimumPercent", "the share of a newcomer begins at 10 percent"),
    (Kind::DestinationRule, "warmup.aggression", "the share of a newcomer grows evenly"),
    (Kind::DestinationRule, "outlierDetection.outlierDetectionHttpErrorCodes", "500 to 599 count as errors"),
    (Kind::DestinationRule, "tls.caCrl", "no revocation list is looked at"),
    (Kind::VirtualService, "retries.retryRemoteLocalities", "retries go where the load balancer sends them"),
    (Kind::Gateway, "tls.cipherSuites", "those of rustls are used: AES-GCM and ChaCha20 with forward secrecy"),
    (Kind::Gateway, "tls.caCrl", "no revocation list is looked at"),
    (Kind::Gateway, "tls.verifyCertificateSpki", "subjectAltNames says which clients are taken"),
    (Kind::Gateway, "tls.verifyCertificateHash", "subjectAltNames says which clients are taken"),
    (Kind::Telemetry, "tracing.disableContextPropagation", "the context of a trace is always handed on"),
    (Kind::Telemetry, "tracing.useRequestIdForTraceSampling", "the trace's own headers decide"),
    (Kind::Telemetry, "tracing.enableIstioTags", "Istio's tags are always there"),
    (Kind::Telemetry, "metrics.reportingInterval", "metrics of TCP connections are always current"),
    (Kind::Telemetry, "tracing.customTags.*.formatter", "tags are a literal, a variable or a header"),
    (Kind::RequestAuthentication, "jwtRules.spaceDelimitedClaims", "every claim is split at its spaces"),
];

/// Warns of every such field that is set.
pub(super) fn warn(object: &Value, kind: Kind, check: &mut Check) {
    let wanted: Vec<_> = FIELDS.iter().filter(|(of, ..)| *of == kind).collect();
    if !wanted.is_empty()
        && let Some(spec) = object.get("spec")
    {
        walk(spec, &mut Place { shown: "spec".to_owned(), names: vec!["spec".to_owned()] }, &mut |place, value| {
            if value.is_null() || value.as_array().is_some_and(Vec::is_empty) {
                return;
            }
            if let Some((.., instead)) = wanted.iter().find(|(_, end, _)| place.ends_with(end)) {
                check.warning(&place.shown, format!("has no effect in this mesh: {instead}"));
            }
        });
    }
}

/// Where a value stands: as it is shown, and the names alone.
struct Place {
    shown: String,
    names: Vec<String>,
}

impl Place {
    /// `*` in the pattern is any name.
    fn ends_with(&self, pattern: &str) -> bool {
        let wanted = pattern.split('.').rev();
        let mut have = self.names.iter().rev();
        wanted.into_iter().all(|name| have.next().is_some_and(|found| name == "*" || found == name))
    }
}

fn walk(value: &Value, place: &mut Place, visit: &mut impl FnMut(&Place, &Value)) {
    let length = place.shown.len();
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                place.shown.push_str(&format!(".{name}"));
                place.names.push(name.clone());
                visit(place, value);
                walk(value, place, visit);
                place.names.pop();
                place.shown.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                place.shown.push_str(&format!("[{index}]"));
                walk(value, place, visit);
                place.shown.truncate(length);
            }
        }
        _ => {}
    }
}
