//! Cross-origin resource sharing (fact 22).

use http::{HeaderMap, HeaderValue, Method, header};
use meshlab_proxy_config::Cors as Config;

use crate::matching::{MatchError, StringMatcher};

/// A compiled policy.
pub(crate) struct Cors {
    origins: Vec<StringMatcher>,
    allow_methods: Option<HeaderValue>,
    allow_headers: Option<HeaderValue>,
    expose_headers: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    allow_credentials: bool,
    forward_unmatched_preflights: bool,
}

/// What the policy makes of a request.
pub(crate) enum CorsDecision {
    /// Not a cross-origin request, or one whose origin is not allowed: no headers.
    Pass,
    /// Answered here, with these headers.
    Preflight(HeaderMap),
    /// Goes on; the response gets headers for this origin.
    Allowed(HeaderValue),
}

impl Cors {
    pub(crate) fn new(config: &Config) -> Result<Self, MatchError> {
        let joined = |values: &[String]| {
            let text = values.join(",");
            (!text.is_empty())
                .then(|| HeaderValue::from_str(&text).map_err(|_| MatchError::HeaderValue(text.clone())))
                .transpose()
        };
        Ok(Self {
            origins: config.allow_origins.iter().map(StringMatcher::new).collect::<Result<_, _>>()?,
            allow_methods: joined(&config.allow_methods)?,
            allow_headers: joined(&config.allow_headers)?,
            expose_headers: joined(&config.expose_headers)?,
            max_age: config.max_age_s.map(HeaderValue::from),
            allow_credentials: config.allow_credentials == Some(true),
            forward_unmatched_preflights: config.forward_unmatched_preflights,
        })
    }

    pub(crate) fn decide(&self, method: &Method, headers: &HeaderMap) -> CorsDecision {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next().filter(|origin| !origin.is_empty()) else { return CorsDecision::Pass };
        // Several lines are one value, with commas in between, which is no origin.
        let allowed = origins.next().is_none()
            && origin.to_str().is_ok_and(|text| {
                self.origins.iter().any(|matcher| match matcher {
                    StringMatcher::Exact(wanted) if wanted == "*" => true,
                    matcher => matcher.matches(text),
                })
            });
        let preflight = is_preflight(method, headers);
        match (preflight, allowed) {
            (true, false) if self.forward_unmatched_preflights => CorsDecision::Pass,
            (true, allowed) => CorsDecision::Preflight(self.preflight(allowed.then_some(origin))),
            (false, true) => CorsDecision::Allowed(origin.clone()),
            (false, false) => CorsDecision::Pass,
        }
    }

    /// All that is configured, whatever method or header was asked about; an origin that is not allowed is not named.
    fn preflight(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut answer = HeaderMap::new();
        let credentials = self.allow_credentials.then(|| HeaderValue::from_static("true"));
        let expose = self.expose_headers.as_ref().filter(|_| origin.is_some());
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials.as_ref()),
            (header::ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.as_ref()),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.as_ref()),
            (header::ACCESS_CONTROL_MAX_AGE, self.max_age.as_ref()),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, expose),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                answer.insert(name, value.clone());
            }
        }
        answer
    }

    /// Adds what a browser wants to see on the response to an allowed request.
    pub(crate) fn decorate(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.allow_credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose_headers {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

/// Whether a browser asks if it may ask.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|value| !value.is_empty())
}
