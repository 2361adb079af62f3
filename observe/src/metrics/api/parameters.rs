//! Parameters of a request, from the URL and from a form.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use promql_parser::util::parse_duration;
use url::form_urlencoded;

use super::{ApiError, Budget};
use crate::metrics::chunk::Millis;

/// Names and values in the order they came.
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !matches!(*request.method(), http::Method::GET | http::Method::POST | http::Method::HEAD) {
            return Err(ApiError::bad_data("the method is not allowed: GET and POST are"));
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        // axum refuses bodies beyond 2 MiB.
        let body = if is_form {
            Bytes::from_request(request, state).await.map_err(|error| ApiError::bad_data(&error.body_text()))?
        } else {
            Bytes::new()
        };
        let parse = |text: &[u8]| form_urlencoded::parse(text).into_owned().collect::<Vec<_>>();
        let mut pairs = parse(&body);
        pairs.extend(parse(query.as_bytes()));
        Ok(Self(pairs))
    }
}

impl Parameters {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// An absent parameter is an empty one, whose use says what is wrong.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        Ok(self.get(name).unwrap_or_default())
    }

    /// Seconds since 1970, or RFC 3339.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Millis>, ApiError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && seconds.abs() < 1e12);
        let millis = seconds.map(|seconds| (seconds * 1000.0).round() as Millis);
        let millis = millis.or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond));
        millis.map(Some).ok_or_else(|| {
            ApiError::bad_data(&format!("invalid parameter \"{name}\": cannot parse {text:?} to a valid timestamp"))
        })
    }

    /// Seconds, or a duration as `15s`.
    pub(crate) fn step(&self) -> Result<Millis, ApiError> {
        let text = self.get("step").unwrap_or_default();
        let step = duration(text).ok_or_else(|| {
            ApiError::bad_data(&format!("invalid parameter \"step\": cannot parse {text:?} to a valid duration"))
        })?;
        Ok(step)
    }

    pub(crate) fn budget(&self) -> Result<Budget, ApiError> {
        let mut budget = Budget::default();
        if let Some(text) = self.get("timeout").filter(|text| !text.is_empty()) {
            let timeout = duration(text).and_then(|timeout| u64::try_from(timeout).ok()).ok_or_else(|| {
                ApiError::bad_data(&format!("invalid parameter \"timeout\": cannot parse {text:?} to a valid duration"))
            })?;
            budget.timeout = budget.timeout.min(Duration::from_millis(timeout));
        }
        Ok(budget)
    }
}

fn duration(text: &str) -> Option<Millis> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.is_finite() && seconds.abs() < 1e12).then(|| (seconds * 1000.0).round() as Millis);
    }
    parse_duration(text).ok().and_then(|duration| Millis::try_from(duration.as_millis()).ok())
}
