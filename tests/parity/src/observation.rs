//! What was seen of one request, as fields that are compared one by one.
//!
//! These values are never equal between two runs and are replaced first, on both sides alike:
//! - `date`: `<date>`; `x-envoy-upstream-service-time`: `<number>`;
//! - a generated `x-request-id` (a UUID that the client did not send): `<uuid>`;
//! - the case header, which tells the sides apart, and what only Istio's own extensions to Envoy add, which are not in the Envoy
//!   that is compared with: `x-envoy-peer-metadata`, `x-envoy-peer-metadata-id` and `x-envoy-decorator-operation` are left out;
//! - on attempts after the first, `x-envoy-expected-rq-timeout-ms`, from which the time that has passed is taken: `<number>`;
//! - addresses of upstreams: their names;
//! - in copies to mirrors, the last address of `x-forwarded-for`, which is the proxy's own: `<own>`.

use std::collections::BTreeMap;

use crate::client::Answer;
use crate::upstream::{CASE_HEADER, Seen, Upstreams};
use crate::world::LOG_FIELDS;

/// Fields by name.
pub type Fields = BTreeMap<String, String>;

/// Headers that the Envoy compared with cannot have.
const ISTIO_EXTENSIONS: [&str; 3] = ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-envoy-decorator-operation"];

/// What the client got.
pub fn client_fields(answer: &Answer, out: &mut Fields) {
    out.insert("status".into(), answer.status.to_string());
    out.insert("body".into(), answer.body.text());
    if answer.body.truncated {
        out.insert("body truncated".into(), "yes".into());
    }
    headers("response header", &answer.headers, &[], true, out);
    headers("response trailer", &answer.body.trailers, &[], true, out);
}

/// What the upstreams saw. Mirrors are apart, since their order is not known.
pub fn upstream_fields(seen: &[Seen], sent: &[(String, String)], out: &mut Fields) {
    let (mirrors, attempts): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| is_aside(&seen.upstream));
    out.insert("attempts".into(), attempts.len().to_string());
    for (index, seen) in attempts.iter().enumerate() {
        let name = format!("attempt {}", index + 1);
        out.insert(format!("{name} upstream"), seen.upstream.clone());
        request(&name, seen, sent, index == 0, out);
    }
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for seen in mirrors {
        let number = count.entry(&seen.upstream).or_default();
        *number += 1;
        let name = format!("{} request {number}", seen.upstream);
        request(&name, seen, sent, true, out);
        if seen.upstream.starts_with("mirror")
            && let Some(line) = out.get_mut(&format!("{name} header x-forwarded-for"))
        {
            *line = line.rsplit_once(',').map_or_else(|| "<own>".to_owned(), |(before, _)| format!("{before},<own>"));
        }
    }
    for (mirror, number) in count {
        out.insert(format!("{mirror} requests"), number.to_string());
    }
}

/// Whether an upstream is asked besides the one that answers.
fn is_aside(upstream: &str) -> bool {
    upstream.starts_with("mirror") || upstream.starts_with("authz")
}

fn request(name: &str, seen: &Seen, sent: &[(String, String)], first: bool, out: &mut Fields) {
    out.insert(format!("{name} method"), seen.method.clone());
    out.insert(format!("{name} path"), seen.path.clone());
    out.insert(format!("{name} body"), seen.body.clone());
    out.insert(format!("{name} version"), seen.version.to_owned());
    if let Some(tls) = &seen.tls {
        out.insert(format!("{name} tls"), tls.clone());
    }
    headers(&format!("{name} header"), &seen.headers, sent, first, out);
}

fn headers(name: &str, lines: &[(String, String)], sent: &[(String, String)], first: bool, out: &mut Fields) {
    let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (header, value) in lines {
        if header == CASE_HEADER || ISTIO_EXTENSIONS.contains(&header.as_str()) {
            continue;
        }
        let was_sent = sent.iter().any(|(name, sent)| name.eq_ignore_ascii_case(header) && sent == value);
        let value = match header.as_str() {
            "date" => "<date>".to_owned(),
            "x-envoy-upstream-service-time" if value.parse::<u64>().is_ok() => "<number>".to_owned(),
            "x-envoy-expected-rq-timeout-ms" if !first && value.parse::<u64>().is_ok() => "<number>".to_owned(),
            "x-request-id" if !was_sent && is_uuid(value) => "<uuid>".to_owned(),
            _ => value.clone(),
        };
        by_name.entry(header).or_default().push(value);
    }
    for (header, values) in by_name {
        out.insert(format!("{name} {header}"), values.join(" ⏎ "));
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.chars().all(|character| character == '-' || character.is_ascii_hexdigit())
}

/// What the access log says.
pub fn log_fields(line: &str, prefix: &str, upstreams: &Upstreams, out: &mut Fields) {
    for (name, value) in LOG_FIELDS.iter().zip(line.split('\t').skip(1)) {
        let value = match *name {
            "cluster" => value.strip_prefix(prefix).unwrap_or(value).to_owned(),
            "upstream" => upstreams.name_of(value).map_or(value, |name| name).to_owned(),
            _ => value.to_owned(),
        };
        out.insert(format!("log {name}"), value);
    }
}

/// A field that differs: ours and Envoy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The field.
    pub field: String,
    /// Ours; `None`: not there.
    pub ours: Option<String>,
    /// Envoy's.
    pub envoy: Option<String>,
}

/// All fields that differ.
pub fn compare(ours: &Fields, envoy: &Fields) -> Vec<Mismatch> {
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(envoy.keys()).collect();
    names
        .into_iter()
        .filter(|name| ours.get(*name) != envoy.get(*name))
        .map(|name| Mismatch { field: name.clone(), ours: ours.get(name).cloned(), envoy: envoy.get(name).cloned() })
        .collect()
}
