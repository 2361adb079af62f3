//! Cells of nodes, namespaces, events, bindings, webhook configurations and leases.

use serde_json::Value;

use super::{NONE, Row, or_none, text};

const ROLE: &str = "node-role.kubernetes.io/";

pub(in crate::table) fn node(row: Row<'_>) -> Vec<Value> {
    let ready = row.list("/status/conditions").iter().find(|condition| text(condition, "type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if row.at("/spec/unschedulable").is_some_and(|unschedulable| unschedulable == true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = row.at("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE) {
            Some(role) => Some(role).filter(|role| !role.is_empty()),
            None => (key == "kubernetes.io/role").then(|| value.as_str()).flatten(),
        })
        .collect();
    roles.sort_unstable();
    let address = |address_type: &str| {
        let found = row.list("/status/addresses").iter().find(|address| text(address, "type") == address_type);
        found.map_or(NONE, |address| text(address, "address"))
    };
    let info = |field: &str| {
        let value = row.text(&format!("/status/nodeInfo/{field}"));
        if value.is_empty() { "<unknown>" } else { value }
    };
    vec![
        row.name(),
        status.into(),
        or_none(roles.join(",")).into(),
        row.age(),
        row.text("/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        info("kernelVersion").into(),
        info("containerRuntimeVersion").into(),
    ]
}

pub(in crate::table) fn namespace(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("/status/phase").into(), row.age()]
}

/// Events of either API: `events.k8s.io` has other names for some fields.
pub(in crate::table) fn event(row: Row<'_>) -> Vec<Value> {
    let first_stated = |pointers: &[&str]| {
        let stated = pointers.iter().find(|pointer| row.at(pointer).is_some());
        stated.map_or_else(|| "<unknown>".to_owned(), |pointer| row.since(pointer))
    };
    let first_seen = first_stated(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last_seen = match row.at("/series/lastObservedTime") {
        Some(_) => row.since("/series/lastObservedTime"),
        None => first_stated(&[
            "/lastTimestamp",
            "/deprecatedLastTimestamp",
            "/firstTimestamp",
            "/deprecatedFirstTimestamp",
            "/eventTime",
        ]),
    };
    let count =
        ["/series/count", "/count", "/deprecatedCount"].iter().map(|pointer| row.number(pointer)).find(|count| *count > 0);
    let about = row.at("/involvedObject").or_else(|| row.at("/regarding")).unwrap_or(&Value::Null);
    let component = [
        row.text("/source/component"),
        row.text("/deprecatedSource/component"),
        row.text("/reportingComponent"),
        row.text("/reportingController"),
    ];
    let component = component.into_iter().find(|component| !component.is_empty()).unwrap_or_default();
    let host = [row.text("/source/host"), row.text("/deprecatedSource/host"), row.text("/reportingInstance")];
    let host = host.into_iter().find(|host| !host.is_empty()).unwrap_or_default();
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    let message = if row.at("/message").is_some() { row.text("/message") } else { row.text("/note") };
    vec![
        last_seen.into(),
        row.text("/type").into(),
        row.text("/reason").into(),
        format!("{}/{}", text(about, "kind").to_lowercase(), text(about, "name")).into(),
        text(about, "fieldPath").into(),
        source.into(),
        message.trim().into(),
        first_seen.into(),
        count.unwrap_or(1).to_string().into(),
        row.name(),
    ]
}

pub(in crate::table) fn role_binding(row: Row<'_>) -> Vec<Value> {
    let subjects = |kind: &str| {
        let subjects = row.list("/subjects").iter().filter(|subject| text(subject, "kind") == kind);
        let names = subjects.map(|subject| match text(subject, "namespace") {
            "" => text(subject, "name").to_owned(),
            namespace => format!("{namespace}/{}", text(subject, "name")),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        row.name(),
        format!("{}/{}", row.text("/roleRef/kind"), row.text("/roleRef/name")).into(),
        row.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(in crate::table) fn webhooks(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), row.list("/webhooks").len().into(), row.age()]
}

pub(in crate::table) fn lease(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("/spec/holderIdentity").into(), row.age()]
}
