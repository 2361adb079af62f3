//! What a route does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use meshlab_proxy_config as config;
use meshlab_proxy_config::{Fraction, RetryOn};
use rand::Rng;

use super::RouteError;
use super::headers::HeaderChanges;
use super::matcher::query_parameter;
use super::redirect::Redirect;
use super::rewrite::Rewrite;
use crate::cluster::xxh64;
use crate::matching::{MatchError, header_name};
use crate::options::milliseconds;

/// A compiled [`config::RouteAction`].
pub(crate) enum Action {
    Forward(Box<Forward>),
    Redirect(Redirect),
    DirectResponse { status: u16, body: Bytes },
}

/// A compiled [`config::Forward`].
pub(crate) struct Forward {
    pub(crate) destinations: Vec<Destination>,
    total_weight: u64,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) authority_rewrite: Option<HeaderValue>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Arc<Retry>>,
    pub(crate) mirrors: Vec<config::Mirror>,
    hash_policy: Vec<Hash>,
    pub(crate) upgrades: Vec<String>,
}

/// A compiled [`config::Destination`].
pub(crate) struct Destination {
    pub(crate) cluster: String,
    weight: u32,
    pub(crate) request_headers: HeaderChanges,
    pub(crate) response_headers: HeaderChanges,
    pub(crate) authority_rewrite: Option<HeaderValue>,
}

/// A compiled [`config::RetryPolicy`].
#[derive(Clone)]
pub(crate) struct Retry {
    pub(crate) attempts: u32,
    pub(crate) on: Vec<RetryOn>,
    pub(crate) status_codes: Vec<u16>,
    pub(crate) per_try_timeout: Option<Duration>,
    pub(crate) backoff: Duration,
    pub(crate) prefer_other_hosts: bool,
}

enum Hash {
    Header(HeaderName),
    Authority,
    Query(String),
    SourceIp,
    Cookie { name: String, path: String, ttl_s: Option<u64> },
}

pub(crate) enum ActionError {
    Match(MatchError),
    Invalid(RouteError),
}

impl From<MatchError> for ActionError {
    fn from(error: MatchError) -> Self {
        Self::Match(error)
    }
}

impl Action {
    pub(crate) fn new(config: &config::RouteAction, invalid: impl Fn(String) -> RouteError) -> Result<Self, ActionError> {
        Ok(match config {
            config::RouteAction::Forward(forward) => Self::Forward(Box::new(Forward::new(forward, invalid)?)),
            config::RouteAction::Redirect(redirect) => Self::Redirect(Redirect::new(redirect)?),
            config::RouteAction::DirectResponse { status, body } => {
                if http::StatusCode::from_u16(*status).is_err() || *status < 200 {
                    return Err(ActionError::Invalid(invalid(format!("{status} is not a status that ends a request"))));
                }
                Self::DirectResponse { status: *status, body: body.clone().into() }
            }
        })
    }
}

impl Forward {
    fn new(config: &config::Forward, invalid: impl Fn(String) -> RouteError) -> Result<Self, ActionError> {
        if config.destinations.is_empty() {
            return Err(ActionError::Invalid(invalid("a route that forwards needs a destination".to_owned())));
        }
        let destinations: Vec<Destination> = config.destinations.iter().map(Destination::new).collect::<Result<_, _>>()?;
        let total_weight = destinations.iter().map(|destination| u64::from(destination.weight)).sum();
        if destinations.len() > 1 && total_weight == 0 {
            return Err(ActionError::Invalid(invalid("the weights of the destinations sum up to nothing".to_owned())));
        }
        Ok(Self {
            total_weight,
            destinations,
            rewrite: config.rewrite.as_ref().map(Rewrite::new).transpose()?,
            authority_rewrite: authority(config.authority_rewrite.as_deref())?,
            timeout: limit(config.timeout_ms),
            retry: config.retry.as_ref().filter(|retry| retry.attempts > 0).map(Retry::new).map(Arc::new),
            mirrors: config.mirrors.iter().filter(|mirror| mirror.fraction > Fraction(0)).cloned().collect(),
            hash_policy: config.hash_policy.iter().map(Hash::new).collect::<Result<_, _>>()?,
            upgrades: config.upgrades.clone(),
        })
    }

    /// One destination, by weight (fact 12).
    pub(crate) fn destination(&self) -> &Destination {
        let first = &self.destinations[0];
        if self.destinations.len() == 1 {
            return first;
        }
        let mut draw = rand::rng().random_range(0..self.total_weight);
        for destination in &self.destinations {
            let weight = u64::from(destination.weight);
            if draw < weight {
                return destination;
            }
            draw -= weight;
        }
        first
    }

    /// The hash that consistent hashing goes by, and a cookie for the client to send next time.
    pub(crate) fn hash(
        &self,
        headers: &HeaderMap,
        authority: &str,
        path_and_query: &str,
        client: IpAddr,
    ) -> (Option<u64>, Option<HeaderValue>) {
        for policy in &self.hash_policy {
            let hash = match policy {
                Hash::Header(name) => header_hash(headers, name),
                Hash::Authority => Some(xxh64(authority.as_bytes(), 0)),
                Hash::Query(name) => query_parameter(path_and_query, name).map(|value| xxh64(value.as_bytes(), 0)),
                Hash::SourceIp => Some(xxh64(client.to_string().as_bytes(), 0)),
                Hash::Cookie { name, path, ttl_s } => match (cookie(headers, name), ttl_s) {
                    (Some(value), _) => Some(xxh64(value.as_bytes(), 0)),
                    (None, Some(ttl)) => {
                        let value = format!("{:016x}", rand::rng().random::<u64>());
                        let age = if *ttl > 0 { format!("; Max-Age={ttl}") } else { String::new() };
                        let path = if path.is_empty() { String::new() } else { format!("; Path={path}") };
                        let header = HeaderValue::from_str(&format!("{name}=\"{value}\"{age}{path}; HttpOnly")).ok();
                        return (Some(xxh64(value.as_bytes(), 0)), header);
                    }
                    (None, None) => None,
                },
            };
            if hash.is_some() {
                return (hash, None);
            }
        }
        (None, None)
    }
}

impl Destination {
    fn new(config: &config::Destination) -> Result<Self, MatchError> {
        Ok(Self {
            cluster: config.cluster.clone(),
            weight: config.weight,
            request_headers: HeaderChanges::new(&config.request_headers)?,
            response_headers: HeaderChanges::new(&config.response_headers)?,
            authority_rewrite: authority(config.authority_rewrite.as_deref())?,
        })
    }
}

impl Retry {
    fn new(config: &config::RetryPolicy) -> Self {
        Self {
            attempts: config.attempts,
            on: config.on.clone(),
            status_codes: config.status_codes.clone(),
            per_try_timeout: limit(config.per_try_timeout_ms),
            backoff: milliseconds(config.backoff_base_ms.max(1)),
            prefer_other_hosts: config.prefer_other_hosts,
        }
    }
}

impl Hash {
    fn new(config: &config::HashPolicy) -> Result<Self, MatchError> {
        Ok(match config {
            config::HashPolicy::Header(name) if name.eq_ignore_ascii_case("host") || name == ":authority" => Self::Authority,
            config::HashPolicy::Header(name) => Self::Header(header_name(name)?),
            config::HashPolicy::Query(name) => Self::Query(name.clone()),
            config::HashPolicy::SourceIp => Self::SourceIp,
            config::HashPolicy::Cookie { name, path, ttl_s } => {
                Self::Cookie { name: name.clone(), path: path.clone(), ttl_s: *ttl_s }
            }
        })
    }
}

/// The hash of a header's lines, whatever their order.
fn header_hash(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    lines.sort_unstable();
    (!lines.is_empty()).then(|| lines.iter().fold(0, |seed, line| xxh64(line, seed)))
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).find_map(|line| {
        line.split(';').find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
    })
}

fn authority(value: Option<&str>) -> Result<Option<HeaderValue>, MatchError> {
    value.map(|value| HeaderValue::from_str(value).map_err(|_| MatchError::HeaderValue(value.to_owned()))).transpose()
}

fn limit(value: u64) -> Option<Duration> {
    (value > 0).then(|| milliseconds(value))
}
