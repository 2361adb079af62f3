use proptest::prelude::*;
use serde_json::{Value, json};

use super::{json_patch, merge_patch, strategic_merge};
use crate::schema::Schema;

fn strategic(target: Value, patch: Value) -> Value {
    strategic_merge(&Schema::builtin("", "v1", "Pod").unwrap(), &target, &patch).unwrap()
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn json_patches() {
    let target = json!({"a": [1, 2], "b": {"c": 1}});
    let patch = json!([{"op": "test", "path": "/b/c", "value": 1}, {"op": "add", "path": "/a/-", "value": 3}, {"op": "remove", "path": "/b"}]);
    assert_eq!(json_patch(&target, &patch).unwrap(), json!({"a": [1, 2, 3]}));
    assert_eq!(json_patch(&target, &json!([{"op": "test", "path": "/b/c", "value": 2}])).unwrap_err().code, 422);
    assert_eq!(json_patch(&target, &json!([{"op": "replace", "path": "/nope/x", "value": 2}])).unwrap_err().code, 422);
    assert_eq!(json_patch(&target, &json!({"op": "add"})).unwrap_err().code, 400);
}

#[test]
fn json_patches_cannot_grow_without_end() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": "x".repeat(1000)})];
    operations.extend((0..64).map(|index| json!({"op": "copy", "from": "", "path": format!("/b{index}")})));
    assert_eq!(json_patch(&json!({}), &operations.into()).unwrap_err().code, 413);
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
    let path = "/a".repeat(100);
    assert_eq!(json_patch(&deep(100), &json!([{"op": "add", "path": path, "value": deep(100)}])).unwrap_err().code, 422);
}

#[test]
fn merge_patches() {
    let patched = merge_patch(&json!({"a": {"b": 1, "c": 2}, "l": [1]}), &json!({"a": {"b": null, "d": 3}, "l": [2]})).unwrap();
    assert_eq!(patched, json!({"a": {"c": 2, "d": 3}, "l": [2]}));
    assert_eq!(merge_patch(&json!({}), &json!([])).unwrap_err().code, 400);
}

#[test]
fn lists_are_merged_by_key() {
    let pod = containers(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]));
    let patch =
        containers(json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "3"}]));
    assert_eq!(
        strategic(pod, patch),
        containers(json!([
            {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b", "image": "1"}, {"name": "c", "image": "3"}]))
    );
}

#[test]
fn items_are_deleted_and_replaced() {
    let pod = containers(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}]));
    let patch = containers(json!([{"name": "b", "$patch": "delete"}, {"name": "a", "image": "2"}]));
    assert_eq!(strategic(pod.clone(), patch), containers(json!([{"name": "a", "image": "2", "tty": true}])));
    let patch = containers(json!([{"$patch": "replace"}, {"name": "z", "image": "9"}]));
    assert_eq!(strategic(pod.clone(), patch), containers(json!([{"name": "z", "image": "9"}])));
    assert_eq!(strategic(pod, json!({"spec": {"$patch": "delete"}})), json!({"spec": {}}));
}

#[test]
fn order_is_set() {
    let pod = containers(json!([{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]));
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "2"}]}});
    let names: Vec<Value> =
        strategic(pod, patch)["spec"]["containers"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["sidecar", "b", "a"]);
}

#[test]
fn retained_keys_and_primitive_lists() {
    let schema = Schema::builtin("apps", "v1", "Deployment").unwrap();
    let deployment = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}},
        "metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
    assert_eq!(
        strategic_merge(&schema, &deployment, &patch).unwrap(),
        json!({"spec": {"strategy": {"type": "Recreate"}}, "metadata": {"finalizers": ["b", "c"]}})
    );
}

#[test]
fn malformed_patches_are_bad_requests() {
    let schema = Schema::builtin("", "v1", "Pod").unwrap();
    for patch in [
        json!([]),
        json!({"$patch": "burn"}),
        containers(json!([{"image": "no name"}])),
        json!({"spec": {"$retainKeys": "type"}}),
        json!({"spec": {"$setElementOrder/containers": 1, "containers": [{"name": "a"}]}}),
    ] {
        let pod = containers(json!([{"name": "a"}]));
        assert_eq!(strategic_merge(&schema, &pod, &patch).unwrap_err().code, 400, "{patch}");
    }
}

/// Small objects in the shape of pods, with directives.
fn pods() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let directive = prop::sample::select(vec!["", "", "delete", "replace", "merge", "odd"]);
    let container = (name, "[a-c]{0,2}", directive).prop_map(|(name, image, directive)| {
        let mut container = json!({"name": name, "image": image});
        if !directive.is_empty() {
            container["$patch"] = directive.into();
        }
        container
    });
    (prop::collection::vec(container, 0..4), any::<Option<bool>>()).prop_map(|(mut containers, tty)| {
        // Two items with one key in one list are no list map.
        containers.sort_by_key(|container| container["name"].to_string());
        containers.dedup_by_key(|container| container["name"].clone());
        json!({"spec": {"containers": containers, "hostNetwork": tty}, "metadata": {"labels": {"a": tty}}})
    })
}

proptest! {
    #[test]
    fn a_patch_applied_twice_changes_nothing_more(target in pods(), patch in pods()) {
        let schema = Schema::builtin("", "v1", "Pod").unwrap();
        if let Ok(once) = strategic_merge(&schema, &target, &patch) {
            prop_assert_eq!(strategic_merge(&schema, &once, &patch).unwrap(), once);
        }
    }

    #[test]
    fn no_patch_panics(target in pods(), patch in pods()) {
        let _ = json_patch(&target, &patch);
        let _ = merge_patch(&target, &patch);
    }
}
