use serde_json::{Value, json};

use super::Schema;
use crate::Cause;

fn lines(causes: &[Cause]) -> String {
    causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>().join("\n")
}

/// A CRD's schema with these properties of `spec`.
fn crd(properties: Value) -> Schema {
    Schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})).unwrap()
}

fn spec(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": spec})
}

fn faults(properties: Value, object: Value) -> String {
    lines(&crd(properties).validate(&spec(object), None))
}

#[test]
fn unknown_fields_of_built_in_kinds() {
    let schema = Schema::builtin("apps", "v1", "Deployment").unwrap();
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "label": {}, "labels": {"any": "x"}},
        "spec": {"replica": 1, "template": {"spec": {"containers": [{"name": "a", "imagee": "b", "resources": {"limits": {"cpu": 1}}, "stdin": null}],
            "volumes": [{"name": "v", "emptyDir": {}, "emptydir": {}}]}}}});
    assert_eq!(
        schema.unknown_fields(&deployment),
        [
            r#"unknown field "metadata.label""#,
            r#"unknown field "spec.replica""#,
            r#"unknown field "spec.template.spec.containers[0].imagee""#,
            r#"unknown field "spec.template.spec.volumes[0].emptydir""#
        ]
    );
    schema.prune(&mut deployment);
    assert!(schema.unknown_fields(&deployment).is_empty());
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0],
        json!({"name": "a", "resources": {"limits": {"cpu": "1"}}})
    );
}

#[test]
fn wrong_types_in_the_words_of_go() {
    let schema = Schema::builtin("apps", "v1", "Deployment").unwrap();
    let error = |spec: Value| schema.type_error(&json!({"spec": spec})).unwrap_or_default();
    insta::assert_snapshot!(error(json!({"replicas": "two"})), @"json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32");
    insta::assert_snapshot!(error(json!({"template": []})), @"json: cannot unmarshal array into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec");
    insta::assert_snapshot!(
        error(json!({"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}})),
        @"json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"
    );
    assert_eq!(error(json!({"strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}})), "");
    assert_eq!(error(json!({"replicas": 1e10})).split(' ').next(), Some("json:"));
    let mut wrong = json!({"spec": {"template": 1}});
    schema.apply_defaults(&mut wrong);
    assert_eq!(wrong, json!({"spec": {"template": 1}}), "what is of a wrong type is refused, not replaced");
}

#[test]
fn crds_are_checked_by_their_own_schema() {
    let schema = Schema::builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let crd = |schema: Value| {
        json!({"spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "A", "plural": "as"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    };
    let sound = crd(
        json!({"type": "object", "properties": {"a": {"items": {"type": "string"}, "additionalProperties": true, "enum": [{"x": 1}], "default": {"y": 1}}}}),
    );
    assert_eq!(schema.unknown_fields(&sound), Vec::<String>::new());
    assert!(schema.validate(&sound, None).is_empty(), "{}", lines(&schema.validate(&sound, None)));
    let odd = crd(json!({"properties": {"a": {"items": {"typ": "string"}, "additionalProperties": {"typ": "x"}}}}));
    assert_eq!(
        schema.unknown_fields(&odd),
        [
            r#"unknown field "spec.versions[0].schema.openAPIV3Schema.properties.a.additionalProperties.typ""#,
            r#"unknown field "spec.versions[0].schema.openAPIV3Schema.properties.a.items.typ""#
        ]
    );
}

#[test]
fn custom_resources_are_pruned() {
    let schema = crd(json!({"a": {"type": "string"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"known": {"type": "object", "properties": {"b": {"type": "string"}}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}));
    let mut object = spec(
        json!({"a": "1", "x": 1, "free": {"any": {"thing": 1}, "known": {"b": "", "z": 1}}, "map": {"k": {"c": "", "d": 1}},
        "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}, "other": 1}}),
    );
    assert_eq!(
        schema.unknown_fields(&object),
        [
            r#"unknown field "spec.embedded.other""#,
            r#"unknown field "spec.free.known.z""#,
            r#"unknown field "spec.map.k.d""#,
            r#"unknown field "spec.x""#
        ]
    );
    schema.prune(&mut object);
    assert_eq!(
        object["spec"],
        json!({"a": "1", "free": {"any": {"thing": 1}, "known": {"b": ""}}, "map": {"k": {"c": ""}},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}})
    );
}

#[test]
fn metadata_of_custom_resources_has_no_nulls() {
    let schema = crd(json!({}));
    let mut object = json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {}});
    schema.prune(&mut object);
    assert_eq!(object["metadata"], json!({"name": "a"}));
    assert!(schema.validate(&object, None).is_empty());
}

#[test]
fn quantities_are_canonical() {
    let schema = Schema::builtin("", "v1", "ResourceQuota").unwrap();
    let mut quota = json!({"spec": {"hard": {"cpu": "0.5", "memory": "1024Mi", "pods": 3, "odd": "x"}}});
    schema.prune(&mut quota);
    assert_eq!(quota["spec"]["hard"], json!({"cpu": "500m", "memory": "1Gi", "pods": "3", "odd": "x"}));
}

#[test]
fn structural_rules() {
    let error = |schema: Value| lines(&Schema::from_crd(&schema).unwrap_err());
    insta::assert_snapshot!(error(json!({})), @"type: Required value: must not be empty at the root");
    insta::assert_snapshot!(
        error(json!({"type": "object", "properties": {
            "a": {"type": "text"}, "b": {"type": "array"}, "c": {"type": "array", "items": {}}, "d": {"type": "string", "pattern": "["},
            "e": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}, "f": {"$ref": "#/x", "type": "object"},
            "g": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}},
            "h": {"type": "string", "anyOf": [{"type": "string", "default": "x"}, {"description": "y", "minLength": 1}]},
            "i": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}}})),
        @r#"
    properties[a].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string"
    properties[b].items: Required value: must be specified
    properties[c].items.type: Required value: must not be empty for specified array items
    properties[d].pattern: Invalid value: "[": must be a valid regular expression, but isn't: regex parse error:
        [
        ^
    error: unclosed character class
    properties[e].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive
    properties[f].$ref: Forbidden: $ref is not supported
    properties[g].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map
    properties[h].anyOf[0].default: Forbidden: must be empty to be structural
    properties[h].anyOf[1].description: Forbidden: must be empty to be structural
    properties[i].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic
    "#
    );
}

#[test]
fn values() {
    insta::assert_snapshot!(
        faults(
            json!({"text": {"type": "string", "minLength": 2, "pattern": "^a"}, "number": {"type": "integer", "minimum": 1, "maximum": 5},
                "kind": {"type": "string", "enum": ["A", "B"]}, "list": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
                "time": {"type": "string", "format": "date-time"}, "port": {"x-kubernetes-int-or-string": true},
                "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name", "value"], "properties": {"name": {"type": "string"}, "value": {"type": "string"}}}}}),
            json!({"text": "b", "number": 9, "kind": "C", "list": ["a", "b"], "time": "yesterday", "port": true,
                "items": [{"name": "a", "value": ""}, {"name": "a"}]}),
        ),
        @r#"
    spec.items[1].value: Required value
    spec.items[1]: Duplicate value: {"name":"a"}
    spec.kind: Unsupported value: "C": supported values: "A", "B"
    spec.list: Too many: 2: must have at most 1 items
    spec.number: Invalid value: 9: spec.number in body should be less than or equal to 5
    spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"
    spec.text: Invalid value: "b": spec.text in body should be at least 2 chars long
    spec.text: Invalid value: "b": spec.text in body should match '^a'
    spec.time: Invalid value: "yesterday": spec.time in body must be of type date-time: "yesterday"
    "#
    );
    insta::assert_snapshot!(faults(json!({"a": {"type": "string"}}), json!({"a": null})), @r#"spec.a: Invalid value: "null": spec.a in body must be of type string: "null""#);
    assert_eq!(faults(json!({"a": {"type": "string", "nullable": true}}), json!({"a": null})), "");
}

#[test]
fn junctors() {
    let either = json!({"match": {"type": "object", "properties": {"exact": {"type": "string"}, "prefix": {"type": "string"}},
        "oneOf": [{"not": {"anyOf": [{"required": ["exact"]}, {"required": ["prefix"]}]}}, {"required": ["exact"]}, {"required": ["prefix"]}]}});
    assert_eq!(faults(either.clone(), json!({"match": {"exact": "a"}})), "");
    assert_eq!(faults(either.clone(), json!({"match": {}})), "");
    insta::assert_snapshot!(
        faults(either, json!({"match": {"exact": "a", "prefix": "b"}})),
        @r#"spec.match: Invalid value: "": "spec.match" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
    );
}

#[test]
fn cel_rules() {
    let schema = crd(json!({"min": {"type": "integer"}, "max": {"type": "integer"},
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is immutable"}]}}));
    assert!(schema.rule_errors().is_empty());
    let ranged = Schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.min <= self.max", "messageExpression": "'min is ' + string(self.min)", "reason": "FieldValueForbidden"}]}}}))
    .unwrap();
    insta::assert_snapshot!(lines(&ranged.validate(&spec(json!({"min": 2, "max": 1})), None)), @"spec: Forbidden: min is 2");
    assert!(ranged.validate(&spec(json!({"min": 1, "max": 1})), None).is_empty());
    let (old, new) = (spec(json!({"fixed": "a"})), spec(json!({"fixed": "b"})));
    assert!(schema.validate(&new, None).is_empty());
    insta::assert_snapshot!(lines(&schema.validate(&new, Some(&old))), @r#"spec.fixed: Invalid value: "string": fixed is immutable"#);
    let broken = crd(json!({"a": {"type": "string", "x-kubernetes-validations": [{"rule": "self +"}]}}));
    assert_eq!(broken.rule_errors()[0].field, "properties[spec].properties[a].x-kubernetes-validations[0].rule");
}

#[test]
fn cel_rules_that_would_take_too_long_are_not_run() {
    let schema = crd(json!({"names": {"type": "array", "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.all(x, self.exists_one(y, x == y))", "message": "names are not unique"}]}}));
    let names = |count: usize| spec(json!({"names": (0..count).map(|n| n.to_string()).collect::<Vec<_>>()}));
    assert!(schema.validate(&names(500), None).is_empty());
    insta::assert_snapshot!(
        lines(&schema.validate(&names(100_000), None)),
        @r#"spec.names: Invalid value: "array": validation failed due to running out of cost budget, no further validation rules will be run"#
    );
}

#[test]
fn list_semantics_of_built_in_kinds() {
    let schema = Schema::builtin("", "v1", "Pod").unwrap();
    let containers = schema.root().property("spec").unwrap().property("containers").unwrap();
    assert_eq!(containers.node.patch.merge_key.as_deref(), Some("name"));
    let ports = containers.items().unwrap().property("ports").unwrap();
    assert_eq!(ports.node.list_type, super::node::ListType::Map(vec!["containerPort".into(), "protocol".into()]));
    assert_eq!(ports.items().unwrap().property("protocol").unwrap().node.default, Some(json!("TCP")));
}

#[test]
fn no_schema_and_no_object_panic() {
    let odd = [
        json!(null),
        json!([]),
        json!({"type": ["a"]}),
        json!({"type": "object", "properties": [], "items": 1, "required": {}}),
        json!({"type": "object", "allOf": [1, {"not": []}], "enum": 1, "x-kubernetes-validations": {}}),
    ];
    for schema in &odd {
        if let Ok(schema) = Schema::from_crd(schema) {
            for object in &odd {
                schema.unknown_fields(object);
                schema.validate(object, Some(object));
                let mut object = object.clone();
                schema.apply_defaults(&mut object);
                schema.prune(&mut object);
            }
        }
    }
    let mut deep = json!({"type": "object"});
    for _ in 0..100 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    assert!(lines(&Schema::from_crd(&deep).unwrap_err()).contains("nest deeper"));
}
