//! Redirects (fact 14).

use meshlab_proxy_config::{Redirect as Config, RedirectPort};

use super::matcher::PathMatcher;
use super::rewrite::Rewrite;
use crate::matching::MatchError;

/// A compiled redirect.
pub(crate) struct Redirect {
    pub(crate) status: u16,
    scheme: Option<String>,
    authority: Option<String>,
    port: Option<RedirectPort>,
    path: Option<Rewrite>,
}

/// The parts of a request that a location is made of.
pub(crate) struct RequestTarget<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) path_and_query: &'a str,
    /// The port the connection came in on.
    pub(crate) port: u16,
}

impl Redirect {
    pub(crate) fn new(config: &Config) -> Result<Self, MatchError> {
        Ok(Self {
            status: config.status,
            scheme: config.scheme.clone(),
            authority: config.authority.clone(),
            port: config.port.clone(),
            path: config.path.as_ref().map(Rewrite::new).transpose()?,
        })
    }

    /// The `location` header.
    pub(crate) fn location(&self, matcher: &PathMatcher, target: &RequestTarget<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(target.scheme);
        let original_host = super::strip_port(target.authority);
        let original_port = target.authority.get(original_host.len() + 1..).and_then(|port| port.parse::<u16>().ok());
        let default = |scheme: &str| match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let port = match (&self.port, &self.authority) {
            (Some(RedirectPort::Number(port)), _) => Some(*port),
            (Some(RedirectPort::FromRequest), _) => Some(target.port),
            (None | Some(RedirectPort::FromProtocol), Some(_)) => None,
            // The old scheme's default port would be wrong under the new scheme.
            (_, None) if self.scheme.is_some() && original_port == default(target.scheme) => None,
            // Nor does Envoy derive the new scheme's port: another port stays.
            (_, None) => original_port,
        };
        // A host that is configured may bring its own port.
        let host = match (&self.authority, &self.port) {
            (Some(authority), None | Some(RedirectPort::FromProtocol)) => authority.as_str(),
            (Some(authority), Some(_)) => super::strip_port(authority),
            (None, _) => original_host,
        };
        // Only a port that was derived is left out where the scheme implies it; a number stays a number.
        let derived = self.port == Some(RedirectPort::FromRequest);
        let port =
            port.filter(|port| !derived || Some(*port) != default(scheme)).map(|port| format!(":{port}")).unwrap_or_default();
        let path = match &self.path {
            Some(rewrite) => rewrite.apply(matcher, target.path_and_query),
            None => target.path_and_query.to_owned(),
        };
        format!("{scheme}://{host}{port}{path}")
    }
}
