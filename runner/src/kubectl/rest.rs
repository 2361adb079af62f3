//! Calls of the Kubernetes API in the raw: whatever kind, with the server's warnings and its errors in kubectl's words.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::resources::Resource;
use crate::output::complain;

/// How kubectl asks for rows instead of objects.
pub(super) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Objects.
pub(super) const JSON: &str = "application/json";

/// Why a command of kubectl's ended; the text is what goes to standard error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The server refused.
    #[error("Error from server ({reason}): {message}")]
    Server {
        /// HTTP status.
        code: u16,
        /// `NotFound`, `Conflict`, …
        reason: String,
        /// The server's own words.
        message: String,
    },
    /// Anything else.
    #[error("error: {0}")]
    Other(String),
}

impl Failure {
    pub(super) fn new(message: impl std::fmt::Display) -> Self {
        Self::Other(message.to_string())
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Server { code: 404, .. })
    }

    /// The same, said of something: `error when creating "file"`.
    pub(super) fn when(self, doing: &str) -> Self {
        match self {
            Self::Server { code, reason, message } => Self::Server { code, reason, message: format!("{doing}: {message}") },
            Self::Other(message) => Self::Other(format!("{doing}: {message}")),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::Server { code: status.code, reason: status.reason.clone(), message: status.message.clone() }
            }
            other => Self::new(format!("the server does not answer: {other}")),
        }
    }
}

/// The API server.
#[derive(Clone)]
pub(crate) struct Rest(pub(super) Client);

impl Rest {
    pub(super) async fn get(&self, path: &str, accept: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, accept, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, JSON, Some((JSON, body))).await
    }

    pub(super) async fn delete(&self, path: &str, options: &Value) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, JSON, Some((JSON, options))).await
    }

    /// `kind` is a media type of patches.
    pub(super) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::PATCH, path, JSON, Some((kind, body))).await
    }

    async fn call(&self, method: Method, path: &str, accept: &str, body: Option<(&str, &Value)>) -> Result<Value, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, accept);
        let content = match body {
            Some((kind, value)) => {
                request = request.header(CONTENT_TYPE, kind);
                serde_json::to_vec(value).map_err(Failure::new)?
            }
            None => Vec::new(),
        };
        let request = request.body(Body::from(content)).map_err(Failure::new)?;
        let response = self.0.send(request).await?;
        let status = response.status();
        for warning in response.headers().get_all("warning").iter().filter_map(|value| value.to_str().ok()).filter_map(warning) {
            complain(&format!("Warning: {warning}\n"));
        }
        let content = response.into_body().collect_bytes().await?;
        if status.is_success() {
            return serde_json::from_slice(&content).map_err(Failure::new);
        }
        let answer: Value = serde_json::from_slice(&content).unwrap_or_default();
        let text = |field: &str| answer[field].as_str().filter(|text| !text.is_empty());
        Err(Failure::Server {
            code: status.as_u16(),
            reason: text("reason").or(status.canonical_reason()).unwrap_or_default().to_owned(),
            message: text("message").map_or_else(|| String::from_utf8_lossy(&content).into_owned(), str::to_owned),
        })
    }
}

/// The text of `299 - "text"`.
fn warning(header: &str) -> Option<String> {
    let text = header.splitn(3, ' ').nth(2)?.trim();
    Some(text.strip_prefix('"')?.strip_suffix('"')?.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// The path of one object, or of all of a kind; `namespace` counts for kinds that live in one, `None` means all of them.
pub(super) fn path(resource: &Resource, namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    if let Some(namespace) = namespace.filter(|_| resource.namespaced) {
        path.push_str(&format!("/namespaces/{}", escape(namespace)));
    }
    path.push_str(&format!("/{}", resource.plural));
    if let Some(name) = name {
        path.push_str(&format!("/{}", escape(name)));
    }
    path
}

/// `path?a=b&c=d`, without those that are empty.
pub(super) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}={}", escape(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning(r#"299 - "spec.a: \"b\" has no effect""#).as_deref(), Some(r#"spec.a: "b" has no effect"#));
        assert_eq!(warning("299"), None);
    }
}
