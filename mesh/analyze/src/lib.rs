//! What is probably wrong with a mesh, told as `istioctl analyze` tells it: the codes and names are Istio's, the words our own.
//!
//! Nothing here decides anything; it looks at a [`Snapshot`] and reports.

mod codes;
mod destination_rule;
mod gateway;
mod injection;
mod policy;
mod service;
mod virtual_service;

use std::fmt;

use meshlab_compile::Snapshot;
use meshlab_istio_api::{Kind, validate};
use meshlab_proxy_config::Origin;
use serde_json::Value;

pub use codes::{Code, Severity};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// `IST0101`, with its name and severity.
    pub code: Code,
    /// The object, and the place in it if there is one.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub text: String,
}

impl Message {
    fn new(code: Code, origin: Origin, text: impl Into<String>) -> Self {
        Self { code, origin, text: text.into() }
    }

    /// Name of the kind of finding (`ReferencedResourceNotFound`).
    pub fn name(&self) -> &'static str {
        self.code.name()
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl fmt::Display for Message {
    /// `Error [IST0101] (VirtualService default/reviews) …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { kind, namespace, name, .. } = &self.origin;
        let separator = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{} [{}] ({kind} {namespace}{separator}{name}) {}", self.severity(), self.code.id(), self.text)
    }
}

/// All findings: errors first, then by code and object.
pub fn analyze(snapshot: &Snapshot) -> Vec<Message> {
    let mut out = Vec::new();
    injection::analyze(snapshot, &mut out);
    service::analyze(snapshot, &mut out);
    virtual_service::analyze(snapshot, &mut out);
    destination_rule::analyze(snapshot, &mut out);
    gateway::analyze(snapshot, &mut out);
    policy::analyze(snapshot, &mut out);
    sort(&mut out);
    out
}

/// Findings on one object that need no others: what validation refuses and what it warns of.
pub fn analyze_object(object: &Value) -> Vec<Message> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let Some(kind) = Kind::parse(text("apiVersion"), text("kind")) else { return Vec::new() };
    let meta = |field: &str| object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let origin = |path: String| Origin { kind: kind.name().into(), namespace: meta("namespace"), name: meta("name"), path };
    let mut out: Vec<Message> = match validate(object) {
        Ok(warnings) => warnings
            .into_iter()
            .map(|warning| {
                Message::new(Code::SchemaWarning, origin(warning.path.clone()), format!("{}: {}", warning.path, warning.message))
            })
            .collect(),
        Err(errors) => errors
            .into_iter()
            .map(|error| Message::new(Code::SchemaValidationError, origin(error.path.clone()), error.to_string()))
            .collect(),
    };
    sort(&mut out);
    out
}

fn sort(messages: &mut Vec<Message>) {
    messages.sort_by(|a, b| (a.severity(), a).cmp(&(b.severity(), b)));
    messages.dedup();
}

/// Names an object.
fn origin(kind: &str, namespace: &str, name: &str, path: String) -> Origin {
    Origin { kind: kind.into(), namespace: namespace.into(), name: name.into(), path }
}

#[cfg(test)]
mod tests;
