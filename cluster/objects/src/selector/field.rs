//! Field selectors: which fields a kind can be selected by, and how.

use serde_json::Value;

use super::MAX_LENGTH;
use crate::{Status, resource::GroupVersionKind};

/// A parsed field selector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// From a query parameter. `selectable` are the further fields of a CRD's `selectableFields` (`spec.host`).
    ///
    /// # Errors
    /// 400: `field label not supported: spec.foo`.
    pub fn parse(kind: &GroupVersionKind, selectable: &[String], text: &str) -> Result<Self, Status> {
        if text.len() > MAX_LENGTH {
            return Err(Status::bad_request(format!("invalid field selector: longer than {MAX_LENGTH} bytes")));
        }
        let mut requirements = Vec::new();
        for term in terms(text) {
            let (field, value, equal) = split(&term)
                .ok_or_else(|| Status::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'")))?;
            let value = unescape(value).ok_or_else(|| {
                Status::bad_request(format!("invalid field selector: invalid escape sequence in value {value:?}"))
            })?;
            if !is_supported(kind, selectable, field) {
                return Err(unsupported(kind, field));
            }
            requirements.push(Requirement { field: field.to_owned(), value, equal });
        }
        Ok(Self { requirements })
    }

    /// Whether the object matches.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements
            .iter()
            .all(|requirement| (field_value(object, &requirement.field) == requirement.value) == requirement.equal)
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The name, where the selector pins `metadata.name`.
    pub fn name(&self) -> Option<&str> {
        self.pinned("metadata.name")
    }

    /// The namespace, where the selector pins `metadata.namespace`.
    pub fn namespace(&self) -> Option<&str> {
        self.pinned("metadata.namespace")
    }

    fn pinned(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|requirement| requirement.equal && requirement.field == field)
            .map(|requirement| &*requirement.value)
    }
}

/// Terms between commas; `\,` is part of a value.
fn terms(text: &str) -> Vec<String> {
    let (mut terms, mut term, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(std::mem::take(&mut term));
            continue;
        }
        escaped = c == '\\' && !escaped;
        term.push(c);
    }
    terms.push(term);
    terms.retain(|term| !term.is_empty());
    terms
}

fn split(term: &str) -> Option<(&str, &str, bool)> {
    let place = term.find('=')?;
    let (field, rest) = term.split_at(place);
    if let Some(field) = field.strip_suffix('!') {
        return Some((field, &rest[1..], false));
    }
    let value = rest.strip_prefix("==").unwrap_or(&rest[1..]);
    Some((field, value, true))
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => plain.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// The fields of built-in kinds beside `metadata.name` and `metadata.namespace`.
fn fields(kind: &GroupVersionKind) -> &'static [&'static str] {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "Namespace") => &["status.phase"],
        ("", "Node") => &["spec.unschedulable"],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    }
}

fn is_supported(kind: &GroupVersionKind, selectable: &[String], field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
        || fields(kind).contains(&field)
        || selectable.iter().any(|path| path.trim_start_matches('.') == field)
}

fn unsupported(kind: &GroupVersionKind, field: &str) -> Status {
    let what = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod" | "Event" | "Secret" | "Service" | "Namespace" | "Node" | "ReplicationController")
        | ("apps", "ReplicaSet")
        | ("batch", "Job") => format!("field label not supported: {field}"),
        _ => format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
    };
    Status::bad_request(what)
}

/// A field's value as text; empty where there is none.
fn field_value(object: &Value, field: &str) -> String {
    let at = |path: &str| path.split('.').try_fold(object, |value, part| value.get(part));
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    match field {
        "source" => {
            let component = at("source.component").map(shown).unwrap_or_default();
            if component.is_empty() { at("reportingComponent").map(shown).unwrap_or_default() } else { component }
        }
        "status.podIPs" => at("status.podIPs")
            .and_then(Value::as_array)
            .map_or_else(String::new, |ips| ips.iter().filter_map(|ip| ip.get("ip")?.as_str()).collect::<Vec<_>>().join(",")),
        "status.successful" => at("status.succeeded").map_or_else(|| "0".to_owned(), shown),
        "spec.hostNetwork" | "spec.unschedulable" => at(field).map_or_else(|| "false".to_owned(), shown),
        "status.replicas" => at(field).map_or_else(|| "0".to_owned(), shown),
        _ => at(field).map(shown).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> GroupVersionKind {
        GroupVersionKind::new("", "v1", "Pod")
    }

    #[test]
    fn selects() {
        let object = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        for (selector, expected) in [
            ("", true),
            ("metadata.name=web", true),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("spec.nodeName==n2", false),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ] {
            assert_eq!(FieldSelector::parse(&pod(), &[], selector).unwrap().matches(&object), expected, "{selector}");
        }
        assert_eq!(FieldSelector::parse(&pod(), &[], "metadata.name=web").unwrap().name(), Some("web"));
    }

    #[test]
    fn faults() {
        let message = |text| FieldSelector::parse(&pod(), &[], text).unwrap_err().message;
        insta::assert_snapshot!(message("spec.foo=a"), @"field label not supported: spec.foo");
        insta::assert_snapshot!(message("nonsense"), @"invalid selector: 'nonsense'; can't understand 'nonsense'");
    }

    #[test]
    fn custom_fields() {
        let kind = GroupVersionKind::new("example.com", "v1", "Foo");
        let selector = FieldSelector::parse(&kind, &[".spec.host".to_owned()], r"spec.host=a\,b").unwrap();
        assert!(selector.matches(&json!({"spec": {"host": "a,b"}})));
        assert!(FieldSelector::parse(&kind, &[], "spec.host=a").is_err());
    }
}
