//! Between the versions of a kind.

use std::borrow::Cow;

use meshlab_objects::resource::{ResourceDefinition, convert_autoscaler};
use serde_json::{Map, Value};

/// The group in which controllers write events; it shares its objects with the core group's.
pub(crate) const EVENTS_GROUP: &str = "events.k8s.io";

/// A stored object in a version of its kind. Versions differ in `apiVersion` alone (a CRD's conversion strategy is `None`), but for events and
/// autoscalers.
pub(crate) fn to_version<'a>(object: &'a Value, definition: &ResourceDefinition, version: &str) -> Cow<'a, Value> {
    let wanted = definition.kind_in(version).api_version();
    if object["apiVersion"].as_str() == Some(&wanted) {
        return Cow::Borrowed(object);
    }
    if definition.group == EVENTS_GROUP {
        return Cow::Owned(event_from_core(object));
    }
    if definition.group == "autoscaling" {
        return Cow::Owned(convert_autoscaler(object, version));
    }
    if definition.kind == "HorizontalPodAutoscaler" && definition.group == "autoscaling" {
        return Cow::Owned(convert_autoscaler(object, version));
    }
    let mut converted = object.clone();
    if let Some(fields) = converted.as_object_mut() {
        fields.insert("apiVersion".into(), Value::String(wanted));
    }
    Cow::Owned(converted)
}

/// The object as it is stored.
pub(crate) fn to_storage(object: Value, definition: &ResourceDefinition) -> Value {
    if definition.group == EVENTS_GROUP {
        return event_to_core(&object);
    }
    match to_version(&object, definition, &definition.storage_version) {
        Cow::Borrowed(_) => object,
        Cow::Owned(converted) => converted,
    }
}

/// `Event`s are stored once and served by two groups whose fields have different names.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An `Event` of `events.k8s.io/v1` as one of `v1`.
fn event_to_core(event: &Value) -> Value {
    rename(
        event,
        "v1",
        |name| EVENT_FIELDS.iter().find(|(_, new)| *new == name).map(|(core, _)| *core),
        &[("reportingController", "reportingComponent")],
    )
}

/// The other way.
pub(super) fn event_from_core(event: &Value) -> Value {
    rename(
        event,
        "events.k8s.io/v1",
        |name| EVENT_FIELDS.iter().find(|(core, _)| *core == name).map(|(_, new)| *new),
        &[("reportingComponent", "reportingController")],
    )
}

fn rename<'n>(event: &Value, api_version: &str, other: impl Fn(&str) -> Option<&'n str>, more: &[(&str, &str)]) -> Value {
    let mut renamed = Map::new();
    for (name, value) in event.as_object().into_iter().flatten() {
        let more = more.iter().find(|(from, _)| from == name).map(|(_, to)| *to);
        renamed.insert(other(name).or(more).unwrap_or(name).to_owned(), value.clone());
    }
    renamed.insert("apiVersion".into(), api_version.into());
    Value::Object(renamed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_survive_the_way_there_and_back() {
        let event = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "x"}, "message": "m", "count": 2,
                           "reportingComponent": "kubelet", "reason": "Started"});
        let new = event_from_core(&event);
        assert_eq!(
            (&new["regarding"]["name"], &new["note"], &new["reportingController"]),
            (&json!("x"), &json!("m"), &json!("kubelet"))
        );
        assert_eq!(event_to_core(&new), event);
    }
}
