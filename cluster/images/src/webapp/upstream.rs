//! Calling on to other services.

use std::time::Instant;

use hyper::{HeaderMap, Request};
use serde::Serialize;
use serde_json::Value;

use super::App;
use crate::http::{client, empty};

/// Headers that an application has to copy from the request it serves to those it sends, so that a mesh can join them into one
/// trace and route by end user: those of Istio's documentation (About, Distributed tracing; Bookinfo's product page).
const PASSED_ON: &[&str] = &[
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "grpc-trace-bin",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// Counts the hops of a call chain, so that services which call each other in a circle stop.
pub(super) const HOPS: &str = "x-webapp-hops";

/// The longest call chain.
const MAX_HOPS: u32 = 16;

/// What is kept of an upstream's answer.
const MAX_ANSWER: usize = 256 << 10;

/// What came of calling an upstream.
#[derive(Debug, Serialize)]
pub(super) struct Called {
    pub(super) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    pub(super) duration_ms: u64,
    /// Its answer: JSON, or a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<Value>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Called {
    /// Whether this upstream could not do its work.
    pub(super) fn failed(&self) -> bool {
        self.status.is_none_or(|status| status >= 500)
    }
}

/// The headers for a call made on behalf of a request with `headers`.
pub(super) fn passed_on(headers: &HeaderMap, propagate: bool) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON.iter().filter(|_| propagate) {
        for value in headers.get_all(*name) {
            passed.append(*name, value.clone());
        }
    }
    passed.insert(HOPS, (hops(headers) + 1).into());
    passed
}

fn hops(headers: &HeaderMap) -> u32 {
    headers.get(HOPS).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Calls all of `urls` at once.
pub(super) async fn call_all(app: &App, urls: Vec<String>, headers: &HeaderMap) -> Vec<Called> {
    futures::future::join_all(urls.into_iter().map(|url| call(app, url, headers))).await
}

async fn call(app: &App, url: String, headers: &HeaderMap) -> Called {
    let started = Instant::now();
    let result = match hops(headers) >= MAX_HOPS {
        true => Err(format!("not called: this request has gone through {MAX_HOPS} services already, probably in a circle")),
        false => {
            let headers = passed_on(headers, app.config.propagate);
            let call = async {
                match url.starts_with("grpc://") {
                    true => app.grpc.say(&url, headers).await,
                    false => get(app, &url, headers).await,
                }
            };
            let timeout = app.config.upstream_timeout;
            tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
        }
    };
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let called = match result {
        Ok((status, body)) => Called { url, status: Some(status), duration_ms, body: Some(body), error: None },
        Err(error) => Called { url, status: None, duration_ms, body: None, error: Some(error) },
    };
    app.metrics.called(called.status);
    called
}

async fn get(app: &App, url: &str, headers: HeaderMap) -> Result<(u16, Value), String> {
    let mut request = Request::get(url).body(empty()).map_err(|err| err.to_string())?;
    *request.headers_mut() = headers;
    let answer = client::send(&app.net, request).await.map_err(|err| err.to_string())?;
    let status = answer.response.status().as_u16();
    let body = answer.body(MAX_ANSWER).await.map_err(|err| err.to_string())?;
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-b3-traceid", "1"), ("end-user", "jason"), ("x-forwarded-for", "10.0.0.1"), ("host", "a")] {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn trace_headers_and_the_end_user_are_passed_on_and_no_others() {
        let passed = passed_on(&request_headers(), true);
        let mut names: Vec<&str> = passed.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["end-user", "x-b3-traceid", HOPS]);
    }

    #[test]
    fn a_lab_can_break_the_trace() {
        let passed = passed_on(&request_headers(), false);
        assert_eq!(passed.keys().map(|name| name.as_str()).collect::<Vec<_>>(), [HOPS]);
        assert_eq!(hops(&passed_on(&passed, false)), 2);
    }
}
