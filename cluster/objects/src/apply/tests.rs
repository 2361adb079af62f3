use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Writer, apply, record_update};
use crate::{CauseReason, Status, schema::Schema};

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: "", now: "2026-01-01T00:00:00Z".parse().unwrap() }
}

fn schema() -> std::sync::Arc<Schema> {
    Schema::builtin("apps", "v1", "Deployment").unwrap()
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn try_apply(live: Option<&Value>, spec: Value, manager: &str, force: bool) -> Result<Value, Status> {
    apply(&schema(), live, &deployment(spec), writer(manager), force)
}

/// Manager, operation and `fieldsV1` of every entry.
fn owners(object: &Value) -> Vec<(String, String, Value)> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| (text(entry, "manager"), text(entry, "operation"), entry["fieldsV1"].clone())).collect()
}

fn containers(image: &str) -> Value {
    json!({"spec": {"containers": [{"name": "a", "image": image, "ports": [{"containerPort": 80}]}]}})
}

#[test]
fn a_new_object_is_the_managers() {
    let object = try_apply(None, json!({"replicas": 1, "template": containers("1")}), "me", false).unwrap();
    insta::assert_json_snapshot!(object["metadata"]["managedFields"], @r#"
    [
      {
        "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
          "f:spec": {
            "f:replicas": {},
            "f:template": {
              "f:spec": {
                "f:containers": {
                  "k:{\"name\":\"a\"}": {
                    ".": {},
                    "f:image": {},
                    "f:name": {},
                    "f:ports": {
                      "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {},
                        "f:containerPort": {}
                      }
                    }
                  }
                }
              }
            }
          }
        },
        "manager": "me",
        "operation": "Apply",
        "time": "2026-01-01T00:00:00Z"
      }
    ]
    "#);
}

#[test]
fn what_is_applied_no_more_is_removed() {
    let live = try_apply(None, json!({"replicas": 1, "paused": true, "template": containers("1")}), "me", false).unwrap();
    let object = try_apply(Some(&live), json!({"replicas": 2}), "me", false).unwrap();
    assert_eq!(object["spec"], json!({"replicas": 2}));
}

#[test]
fn what_another_owns_too_stays() {
    let live = try_apply(None, json!({"replicas": 1, "paused": true}), "me", false).unwrap();
    let live = try_apply(Some(&live), json!({"replicas": 1}), "you", false).unwrap();
    let object = try_apply(Some(&live), json!({"paused": true}), "me", false).unwrap();
    assert_eq!(object["spec"], json!({"replicas": 1, "paused": true}));
    assert_eq!(owners(&object)[1], ("you".into(), "Apply".into(), json!({"f:spec": {"f:replicas": {}}})));
}

#[test]
fn conflicts_are_named() {
    let schema = schema();
    let mut live = deployment(json!({"replicas": 1, "paused": false}));
    record_update(&schema, None, &mut live, writer("kubectl-client-side-apply"));
    let status = try_apply(Some(&live), json!({"replicas": 3}), "me", false).unwrap_err();
    assert_eq!(status.code, 409);
    insta::assert_snapshot!(status.message, @r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#);
    assert_eq!(status.causes[0].reason, CauseReason::FieldManagerConflict);
    assert_eq!(status.causes[0].field, ".spec.replicas");
    let status = try_apply(Some(&live), json!({"replicas": 3, "paused": true}), "me", false).unwrap_err();
    insta::assert_snapshot!(status.message, @r#"
    Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using apps/v1:
    - .spec.paused
    - .spec.replicas
    "#);
    let object = try_apply(Some(&live), json!({"replicas": 3}), "me", true).unwrap();
    assert_eq!(
        owners(&object),
        [
            ("me".into(), "Apply".into(), json!({"f:spec": {"f:replicas": {}}})),
            ("kubectl-client-side-apply".into(), "Update".into(), json!({"f:spec": {"f:paused": {}}})),
        ]
    );
}

#[test]
fn agreeing_is_no_conflict() {
    let live = try_apply(None, json!({"replicas": 1}), "me", false).unwrap();
    let object = try_apply(Some(&live), json!({"replicas": 1}), "you", false).unwrap();
    assert_eq!(owners(&object).len(), 2);
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let schema = schema();
    let mut live = deployment(json!({"replicas": 1}));
    live["metadata"]["annotations"] = json!({super::LAST_APPLIED: deployment(json!({"replicas": 1})).to_string()});
    record_update(&schema, None, &mut live, writer("kubectl-client-side-apply"));
    let object = try_apply(Some(&live), json!({"replicas": 2}), "kubectl", false).unwrap();
    assert_eq!(object["spec"]["replicas"], 2);
    let last: Value = serde_json::from_str(object["metadata"]["annotations"][super::LAST_APPLIED].as_str().unwrap()).unwrap();
    assert_eq!(last["spec"]["replicas"], 2);
    assert!(try_apply(Some(&live), json!({"replicas": 2}), "other", false).is_err());
}

#[test]
fn updates_take_and_release_fields() {
    let schema = schema();
    let live = try_apply(None, json!({"replicas": 1, "paused": true}), "me", false).unwrap();
    let mut new = live.clone();
    new["spec"] = json!({"replicas": 5});
    new["metadata"]["labels"] = json!({"a": "b"});
    record_update(&schema, Some(&live), &mut new, writer("kubectl-edit"));
    assert_eq!(
        owners(&new),
        [(
            "kubectl-edit".into(),
            "Update".into(),
            json!({"f:metadata": {"f:labels": {"f:a": {}, ".": {}}}, "f:spec": {"f:replicas": {}}})
        )]
    );
}

#[test]
fn a_second_update_of_the_same_fields_only_moves_the_time() {
    let schema = schema();
    let mut first = deployment(json!({"replicas": 1, "paused": true}));
    record_update(&schema, None, &mut first, writer("me"));
    let later = Writer { now: "2026-02-01T00:00:00Z".parse().unwrap(), ..writer("me") };
    let mut second = first.clone();
    second["spec"]["replicas"] = json!(2);
    record_update(&schema, Some(&first), &mut second, later);
    assert_eq!(owners(&second), owners(&first));
    assert_eq!(second["metadata"]["managedFields"][0]["time"], "2026-02-01T00:00:00Z");
    let mut third = second.clone();
    third["spec"] = json!({"replicas": 3});
    record_update(&schema, Some(&second), &mut third, later);
    assert_eq!(owners(&third)[0].2, json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn subresources_are_managers_of_their_own() {
    let schema = schema();
    let mut live = deployment(json!({"replicas": 1}));
    record_update(&schema, None, &mut live, writer("kubectl"));
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(4);
    record_update(&schema, Some(&live), &mut new, Writer { subresource: "scale", ..writer("kubectl") });
    assert_eq!(new["metadata"]["managedFields"][0]["subresource"], "scale");
    let status = try_apply(Some(&new), json!({"replicas": 1}), "me", false).unwrap_err();
    insta::assert_snapshot!(status.message, @r#"Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas"#);
}

#[test]
fn managers_can_be_set_and_forgotten() {
    let schema = schema();
    let live = try_apply(None, json!({"replicas": 1}), "me", false).unwrap();
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([]);
    record_update(&schema, Some(&live), &mut new, writer("kubectl"));
    assert!(owners(&new).is_empty());
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["manager"] = json!("you");
    record_update(&schema, Some(&live), &mut new, writer("kubectl"));
    assert_eq!(owners(&new)[0].0, "you");
}

#[test]
fn lists_need_keys() {
    let twice = json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}});
    let status = try_apply(None, twice, "me", false).unwrap_err();
    insta::assert_snapshot!(status.message, @r#"failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name="a"]"#);
    let none = json!({"template": {"spec": {"containers": [{"image": "a"}]}}});
    assert!(try_apply(None, none, "me", false).unwrap_err().message.contains("omits key field \"name\""));
}

#[test]
fn the_same_again_changes_nothing() {
    let spec = json!({"replicas": 1, "template": containers("1")});
    let live = try_apply(None, spec.clone(), "me", false).unwrap();
    let later = Writer { now: "2026-02-01T00:00:00Z".parse().unwrap(), ..writer("me") };
    assert_eq!(apply(&schema(), Some(&live), &deployment(spec), later, false).unwrap(), live);
}

#[test]
fn custom_resources() {
    let schema = Schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "atomic": {"type": "array", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}))
    .unwrap();
    let foo = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": spec});
    let live =
        apply(&schema, None, &foo(json!({"set": ["a", "b"], "atomic": ["a"], "free": {"x": {"y": 1}}})), writer("me"), false)
            .unwrap();
    let live = apply(&schema, Some(&live), &foo(json!({"set": ["c"], "free": {"x": {"z": 2}}})), writer("you"), false).unwrap();
    assert_eq!(live["spec"], json!({"set": ["c", "a", "b"], "atomic": ["a"], "free": {"x": {"y": 1, "z": 2}}}));
    let status = apply(&schema, Some(&live), &foo(json!({"atomic": ["b"]})), writer("you"), false).unwrap_err();
    assert_eq!(status.causes[0].field, ".spec.atomic");
}

/// Specs of deployments in many shapes.
fn specs() -> impl Strategy<Value = Value> {
    let containers =
        prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), prop::sample::select(vec!["1", "2"]), 0..3);
    (containers, prop::option::of(0..3), prop::option::of(any::<bool>())).prop_map(|(containers, replicas, paused)| {
        let containers: Vec<Value> = containers.into_iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        json!({"replicas": replicas, "paused": paused, "template": {"spec": {"containers": containers}}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn applying_is_idempotent_and_wins(first in specs(), second in specs(), third in specs()) {
        let live = try_apply(None, first, "me", false).unwrap();
        let live = try_apply(Some(&live), second, "you", true).unwrap();
        let once = try_apply(Some(&live), third.clone(), "me", true).unwrap();
        prop_assert_eq!(&try_apply(Some(&once), third.clone(), "me", false).unwrap(), &once);
        for name in ["replicas", "paused"] {
            if !third[name].is_null() {
                prop_assert_eq!(&once["spec"][name], &third[name]);
            }
        }
    }

    #[test]
    fn what_one_manager_applied_alone_goes_away(first in specs(), second in specs()) {
        let live = try_apply(None, first, "me", false).unwrap();
        let object = try_apply(Some(&live), second.clone(), "me", false).unwrap();
        let fresh = try_apply(None, second, "me", false).unwrap();
        prop_assert_eq!(owners(&object), owners(&fresh));
    }

    #[test]
    fn no_managed_fields_panic(text in "[fkvi.:{}\"a0]{0,12}", spec in specs()) {
        let mut live = deployment(spec.clone());
        live["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {text: {}}}]);
        let _ = try_apply(Some(&live), spec.clone(), "me", false);
        let mut new = deployment(spec);
        record_update(&schema(), Some(&live), &mut new, writer("you"));
    }
}
