//! The shape of a pod, as far as injection writes into it. An API server sends nothing else, but anybody can call a webhook.

use serde_json::Value;

/// What a value has to be, where it is there at all.
enum Shape {
    Object(&'static [(&'static str, Self)]),
    List(&'static Self),
}

use Shape::{List, Object};

const ANY: Shape = Object(&[]);
const ACTION: Shape = Object(&[("httpGet", ANY), ("tcpSocket", ANY), ("grpc", ANY)]);
const CONTAINER: Shape = Object(&[
    ("ports", List(&ANY)),
    ("env", List(&ANY)),
    ("volumeMounts", List(&ANY)),
    ("readinessProbe", ACTION),
    ("livenessProbe", ACTION),
    ("startupProbe", ACTION),
    ("lifecycle", Object(&[("postStart", ACTION), ("preStop", ACTION)])),
    ("resources", Object(&[("limits", ANY), ("requests", ANY)])),
    ("securityContext", Object(&[("capabilities", ANY)])),
]);
const POD: Shape = Object(&[
    ("metadata", Object(&[("annotations", ANY), ("labels", ANY)])),
    (
        "spec",
        Object(&[
            ("containers", List(&CONTAINER)),
            ("initContainers", List(&CONTAINER)),
            ("volumes", List(&ANY)),
            ("imagePullSecrets", List(&ANY)),
            ("securityContext", ANY),
        ]),
    ),
]);

/// What is wrong with a pod, if anything: `spec.containers[0] is not an object`.
pub(super) fn fault(pod: &Value) -> Option<String> {
    check(pod, &POD, "the pod")
}

fn check(value: &Value, shape: &Shape, place: &str) -> Option<String> {
    match (shape, value) {
        (Object(fields), Value::Object(object)) => fields.iter().find_map(|(name, shape)| {
            let place = if place == "the pod" { (*name).to_owned() } else { format!("{place}.{name}") };
            object.get(*name).filter(|value| !value.is_null()).and_then(|value| check(value, shape, &place))
        }),
        (List(shape), Value::Array(items)) => {
            items.iter().enumerate().find_map(|(index, item)| check(item, shape, &format!("{place}[{index}]")))
        }
        (Object(_), _) => Some(format!("{place} is not an object")),
        (List(_), _) => Some(format!("{place} is not a list")),
    }
}
