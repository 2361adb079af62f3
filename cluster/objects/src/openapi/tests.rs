use serde_json::{Value, json};

use super::{Published, document, fingerprint, root};
use crate::resource::{ResourceDefinition, find};

fn read(group: &str, version: &str, kinds: &[Published<'_>]) -> Value {
    serde_json::from_slice(&document(group, version, kinds)).unwrap()
}

#[test]
fn deployments_are_explained() {
    let deployments = Published { definition: find("apps", "deployments").unwrap(), crd_schema: None };
    let document = read("apps", "v1", &[deployments]);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert!(patch["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert_eq!(deployment["properties"]["spec"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(containers["description"].as_str().unwrap().contains("List of containers"));
}

#[test]
fn every_reference_is_resolved() {
    let kinds: Vec<Published<'_>> =
        crate::resource::builtin().iter().map(|definition| Published { definition, crd_schema: None }).collect();
    for kind in &kinds {
        let definition = kind.definition;
        let document = read(&definition.group, &definition.versions[0], &[*kind]);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"").skip(1) {
            let name = reference.split('"').next().unwrap().strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.contains_key(name), "{name} of {} is missing", definition.qualified_name());
        }
    }
}

#[test]
fn custom_resources() {
    let definition = ResourceDefinition {
        group: "example.com".into(),
        versions: vec!["v1".into()],
        storage_version: "v1".into(),
        kind: "Foo".into(),
        list_kind: "FooList".into(),
        plural: "foos".into(),
        singular: "foo".into(),
        short_names: Vec::new(),
        namespaced: true,
        categories: Vec::new(),
        verbs: find("", "pods").unwrap().verbs.clone(),
        subresources: Vec::new(),
    };
    let schema = json!({"type": "object", "description": "A Foo.", "properties": {"spec": {"type": "object", "description": "Its spec."}}});
    let foos = Published { definition: &definition, crd_schema: Some(&schema) };
    let document = read("example.com", "v1", &[foos]);
    let foo = &document["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!(foo["description"], "A Foo.");
    assert_eq!(foo["properties"]["spec"]["description"], "Its spec.");
    assert!(document["components"]["schemas"].get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").is_some());
    assert_ne!(fingerprint("example.com", "v1", &[foos]), fingerprint("example.com", "v2", &[foos]));
}

#[test]
fn the_root() {
    assert_eq!(
        root([("", "v1", "A"), ("apps", "v1", "B")]),
        json!({"paths": {
            "api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=A"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=B"}}})
    );
}
