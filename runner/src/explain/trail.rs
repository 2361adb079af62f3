//! The decision trail, as proxies tell it in the response header [`HEADER`]: one hop for each proxy on the way, the client's first.

use meshlab_proxy_config::Origin;
use serde::{Deserialize, Serialize};

/// Asks for a trail, and carries it back.
pub(crate) const HEADER: &str = "x-meshlab-trail";

/// What one proxy decided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hop {
    /// `sidecar~10.244.0.5~client-abc.webapp~webapp.svc.cluster.local`
    pub node: String,
    /// `gateway`, `outbound` or `inbound`.
    pub direction: String,
    /// Address of whoever connected.
    pub client: String,
    /// Whoever connected, by its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    pub listener: String,
    pub filter_chain: String,
    pub route_config: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Candidate>,
    /// Routes that come before the one taken, or virtual hosts when none fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Candidate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterChoice>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    pub status: u16,
    /// Envoy's response flags, or `-`.
    pub flags: String,
    /// Envoy's response code details.
    pub details: String,
}

/// A route or a virtual host that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Candidate {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Why it was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a policy said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub origin: Origin,
    /// `ALLOW`, `DENY`, …
    pub action: String,
    pub verdict: String,
}

/// The cluster that the route leads to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterChoice {
    /// `outbound|80|v1|reviews.default.svc.cluster.local`
    pub name: String,
    pub found: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Origin>,
}

/// One try.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attempt {
    /// Empty if there was none to choose.
    pub endpoint: String,
    pub outcome: String,
}

impl Hop {
    /// `client-abc.webapp`
    pub(crate) fn workload(&self) -> &str {
        self.node.split('~').nth(2).unwrap_or(&self.node)
    }
}

impl ClusterChoice {
    /// Port, subset and host, where the name has Istio's form.
    pub(crate) fn parts(&self) -> Option<(&str, &str, &str)> {
        let mut parts = self.name.splitn(4, '|').skip(1);
        Some((parts.next()?, parts.next()?, parts.next()?))
    }
}

/// Reads the header's value.
pub(crate) fn parse(header: &str) -> Result<Vec<Hop>, serde_json::Error> {
    serde_json::from_str(header)
}
