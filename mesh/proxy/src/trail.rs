//! The decision trail: what a proxy decided about one request, and why, for those who ask and may.
//!
//! The request header `x-meshlab-trail` asks; the response header of the same name answers with a JSON array, one object for each
//! proxy on the path, the client's first.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};
use meshlab_proxy_config::Origin;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::matching::RequestView;
use crate::options::TrailAccess;
use crate::route::matcher::Claims;
use crate::route::{RouteTable, VirtualHost};
use crate::stream::{Downstream, StreamInfo};

/// The header.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-meshlab-trail");

/// A trail longer than this is cut: headers have limits on the way.
const MAXIMUM_BYTES: usize = 16 * 1024;
/// Candidates that are named.
const MAXIMUM_CANDIDATES: usize = 20;

/// One proxy's part of a trail.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trail {
    node: String,
    direction: String,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    listener: String,
    filter_chain: String,
    route_config: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Decision>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Decision>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<PolicyDecision>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterDecision>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    status: u16,
    flags: String,
    details: String,
    #[serde(skip)]
    upstream: Vec<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
struct Decision {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct PolicyDecision {
    origin: Origin,
    action: &'static str,
    verdict: String,
}

#[derive(Debug, Serialize)]
struct ClusterDecision {
    name: String,
    found: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    origins: Vec<Origin>,
}

#[derive(Debug, Serialize)]
struct Attempt {
    endpoint: String,
    outcome: String,
}

/// Whether a request with this header value, from this identity, gets a trail.
pub(crate) fn may_ask(access: &TrailAccess, asked: &HeaderValue, identity: Option<&str>) -> bool {
    access.anyone
        || identity.is_some_and(|identity| access.identities.iter().any(|allowed| allowed == identity))
        || access.tokens.iter().any(|token| !token.is_empty() && asked.as_bytes() == token.as_bytes())
}

impl Trail {
    pub(crate) fn new(node: &str, connection: &Downstream) -> Self {
        Self {
            node: node.to_owned(),
            direction: format!("{:?}", connection.direction).to_lowercase(),
            client: connection.peer_text.clone(),
            identity: connection.peer_identity().map(str::to_owned),
            ..Self::default()
        }
    }

    pub(crate) fn chain(&mut self, listener: &str, chain: &str, route_config: &str) {
        self.listener = listener.to_owned();
        self.filter_chain = chain.to_owned();
        self.route_config = route_config.to_owned();
    }

    /// Which route was taken, and why those before it were not.
    pub(crate) fn routes(
        &mut self,
        table: &RouteTable,
        host: Option<&VirtualHost>,
        request: RequestView<'_>,
        claims: Option<&Claims>,
    ) {
        let Some(host) = host else {
            self.rejected = table
                .hosts
                .iter()
                .take(MAXIMUM_CANDIDATES)
                .map(|host| Decision {
                    name: host.config.name.clone(),
                    origin: None,
                    reason: Some(format!("host {} is none of {}", request.authority, host.config.domains.join(", "))),
                })
                .collect();
            return;
        };
        self.virtual_host = Some(host.config.name.clone());
        for route in &host.routes {
            let reason = route.matcher.rejection(request, claims);
            let taken = reason.is_none();
            let decision = Decision { name: route.name.clone(), origin: route.origin.clone(), reason };
            if taken {
                self.route = Some(decision);
                return;
            }
            if self.rejected.len() < MAXIMUM_CANDIDATES {
                self.rejected.push(decision);
            }
        }
    }

    pub(crate) fn policy(&mut self, origin: &Origin, action: &'static str, verdict: &str) {
        if self.policies.len() < MAXIMUM_CANDIDATES {
            self.policies.push(PolicyDecision { origin: origin.clone(), action, verdict: verdict.to_owned() });
        }
    }

    pub(crate) fn fault(&mut self, what: &str) {
        self.faults.push(what.to_owned());
    }

    /// `origins` is `None` when there is no such cluster.
    pub(crate) fn cluster(&mut self, name: &str, origins: Option<&[Origin]>) {
        self.cluster = Some(ClusterDecision {
            name: name.to_owned(),
            found: origins.is_some(),
            origins: origins.map(<[_]>::to_vec).unwrap_or_default(),
        });
    }

    pub(crate) fn attempt(&mut self, endpoint: SocketAddr, outcome: &str) {
        self.attempts.push(Attempt { endpoint: endpoint.to_string(), outcome: outcome.to_owned() });
    }

    pub(crate) fn no_endpoint(&mut self) {
        self.attempts.push(Attempt { endpoint: String::new(), outcome: "no healthy endpoint".to_owned() });
    }

    /// Takes over what the proxies behind this one decided.
    pub(crate) fn upstream(&mut self, header: &HeaderValue) {
        if header.len() <= MAXIMUM_BYTES
            && let Ok(hops) = serde_json::from_slice::<Vec<Box<RawValue>>>(header.as_bytes())
        {
            self.upstream = hops;
        }
    }

    /// The header for the response.
    pub(crate) fn finish(mut self, info: &StreamInfo) -> HeaderValue {
        self.status = info.status;
        self.flags = info.flags.to_string();
        self.details = info.details.to_string();
        self.endpoint = info.host.as_ref().map(|host| host.address_text.clone());
        let upstream = std::mem::take(&mut self.upstream);
        let own = |trail: &Self| serde_json::to_string(trail).unwrap_or_default();
        let mut text = own(&self);
        if text.len() > MAXIMUM_BYTES {
            self.rejected.clear();
            text = own(&self);
        }
        for hop in upstream {
            if text.len() + hop.get().len() > MAXIMUM_BYTES {
                break;
            }
            text.push(',');
            text.push_str(hop.get());
        }
        // JSON's escapes keep a header's bytes visible; what is not ASCII is escaped here.
        let ascii: String =
            text.chars().map(|character| if character.is_ascii() { character.to_string() } else { escape(character) }).collect();
        HeaderValue::from_str(&format!("[{ascii}]")).unwrap_or_else(|_| HeaderValue::from_static("[]"))
    }
}

fn escape(character: char) -> String {
    let mut units = [0; 2];
    character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}
