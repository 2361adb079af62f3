//! Laying one piece of a pod over another: the part of Kubernetes' strategic merge that templates and overrides need.

use serde_json::{Map, Value};

/// Merges `overlay` into `target` as a merge patch does, except that nulls are kept out and lists are replaced.
pub(crate) fn lay_over(target: &mut Value, overlay: &Value) {
    match (target, overlay) {
        (_, Value::Null) => {}
        (Value::Object(target), Value::Object(overlay)) => {
            for (key, value) in overlay {
                lay_over(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, overlay) => overlay.clone_into(target),
    }
}

/// The field that tells the items of a pod's lists apart, as Kubernetes' `patchMergeKey` has it.
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" | "sysctls" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        _ => return None,
    })
}

/// Merges `overlay` into `target` as a strategic merge patch of a pod: named items of lists are merged, new ones appended.
pub(crate) fn strategic(target: &mut Value, overlay: &Value) {
    let (Value::Object(target), Value::Object(overlay)) = (target, overlay) else { return };
    strategic_object(target, overlay);
}

fn strategic_object(target: &mut Map<String, Value>, overlay: &Map<String, Value>) {
    for (key, value) in overlay {
        match (target.get_mut(key), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(had)), Value::Object(new)) => strategic_object(had, new),
            (Some(Value::Array(had)), Value::Array(new)) if merge_key(key).is_some() => {
                strategic_list(had, new, merge_key(key).unwrap_or("name"));
            }
            _ => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

fn strategic_list(target: &mut Vec<Value>, overlay: &[Value], key: &str) {
    for item in overlay {
        match target.iter_mut().find(|had| had.get(key).is_some() && had.get(key) == item.get(key)) {
            Some(had) => strategic(had, item),
            None => target.push(item.clone()),
        }
    }
}

/// The list at `pod.spec.<name>`, made where it is missing.
pub(crate) fn spec_list<'a>(pod: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let list = &mut pod["spec"][name];
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut().expect("just made")
}

/// The item called `name` in a list of named items.
#[cfg(test)]
pub(crate) fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["name"] == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn named_items_are_merged_and_new_ones_appended() {
        let mut pod = json!({"spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "1"}]}]}});
        let overlay = json!({"spec": {"containers": [
            {"name": "app", "image": "x", "args": ["y"], "env": [{"name": "B", "value": "2"}]},
            {"name": "istio-proxy"},
        ]}});
        strategic(&mut pod, &overlay);
        assert_eq!(
            pod,
            json!({"spec": {"containers": [
                {"name": "app", "image": "x", "args": ["y"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "istio-proxy"},
            ]}})
        );
    }

    #[test]
    fn an_overlay_without_a_list_leaves_the_list_alone() {
        let mut pod = json!({"spec": {"containers": [{"name": "app"}]}});
        strategic(&mut pod, &json!({"spec": {"initContainers": [{"name": "istio-init"}], "containers": null}}));
        assert_eq!(pod, json!({"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "istio-init"}]}}));
    }
}
