//! Discovery, in its legacy and its aggregated form.

use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use meshlab_objects::Status;
use meshlab_objects::resource::Verb;
use serde_json::{Value, json};

use crate::http::{DiscoveryVersion, Response, bytes_answer, json_answer};
use crate::registry::{Registry, Served};

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    let mut names: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
    names.sort_unstable();
    names
}

/// `/api`
pub(super) fn api_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
    })
}

fn group_value(name: &str, versions: &[String]) -> Value {
    let entry = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

fn named(registry: &Registry) -> impl Iterator<Item = &(String, Vec<String>)> {
    registry.groups().iter().filter(|(name, _)| !name.is_empty())
}

/// `/apis`
pub(super) fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = named(registry).map(|(name, versions)| group_value(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`
pub(super) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let (name, versions) = named(registry).find(|(known, _)| known == name)?;
    let mut value = group_value(name, versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn of_version<'a>(registry: &'a Registry, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Served> {
    let resources = registry.resources().iter().map(AsRef::as_ref);
    resources.filter(move |served: &&Served| {
        served.definition.group == group && served.definition.versions.iter().any(|v| v == version)
    })
}

/// The subresources of one version: of custom kinds each version has its own.
fn has_subresource(served: &Served, version: &str, name: &str) -> bool {
    served.custom.is_none() || served.version(version).is_some_and(|served| name != "scale" || served.scale.is_some())
}

/// `/apis/{group}/{version}`
pub(super) fn resource_list(registry: &Registry, group: &str, version: &str) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    for served in of_version(registry, group, version) {
        let definition = &served.definition;
        let mut resource = json!({
            "name": definition.plural, "singularName": definition.singular, "namespaced": definition.namespaced,
            "kind": definition.kind, "verbs": verbs(&definition.verbs),
        });
        if !definition.short_names.is_empty() {
            resource["shortNames"] = json!(definition.short_names);
        }
        if !definition.categories.is_empty() {
            resource["categories"] = json!(definition.categories);
        }
        resources.push(resource);
        for subresource in definition.subresources.iter().filter(|sub| has_subresource(served, version, &sub.name)) {
            let mut value = json!({
                "name": format!("{}/{}", definition.plural, subresource.name), "singularName": "",
                "namespaced": definition.namespaced, "kind": subresource.kind.kind, "verbs": verbs(&subresource.verbs),
            });
            if (subresource.kind.group.as_str(), subresource.kind.version.as_str()) != (group, version)
                && subresource.kind.kind != definition.kind
            {
                value["group"] = json!(subresource.kind.group);
                value["version"] = json!(subresource.kind.version);
            }
            resources.push(value);
        }
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

fn aggregated_resource(served: &Served, version: &str) -> Value {
    let definition = &served.definition;
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resource = json!({
        "resource": definition.plural, "responseKind": kind(&definition.group, version, &definition.kind),
        "scope": if definition.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": definition.singular, "verbs": verbs(&definition.verbs),
    });
    if !definition.short_names.is_empty() {
        resource["shortNames"] = json!(definition.short_names);
    }
    if !definition.categories.is_empty() {
        resource["categories"] = json!(definition.categories);
    }
    let subresources: Vec<Value> = definition
        .subresources
        .iter()
        .filter(|sub| has_subresource(served, version, &sub.name))
        .map(|sub| {
            let version = if sub.kind.kind == definition.kind { version } else { &sub.kind.version };
            json!({
                "subresource": sub.name, "responseKind": kind(&sub.kind.group, version, &sub.kind.kind),
                "verbs": verbs(&sub.verbs),
            })
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}

/// `/api` and `/apis` as `APIGroupDiscoveryList`.
pub(super) fn aggregated(
    registry: &Registry,
    core: bool,
    form: DiscoveryVersion,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    let groups: Vec<Value> = registry
        .groups()
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        of_version(registry, name, version).map(|served| aggregated_resource(served, version)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !name.is_empty() {
                metadata["name"] = json!(name);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let value = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{}", form.name()), "metadata": {}, "items": groups,
    });
    let json = value.to_string();
    let etag = format!("\"{}\"", meshlab_objects::openapi::hash(json.as_bytes()));
    let etag = HeaderValue::from_str(&etag).map_err(Status::internal)?;
    let mut response = if headers.get(IF_NONE_MATCH) == Some(&etag) {
        bytes_answer(StatusCode::NOT_MODIFIED, "application/json", "")
    } else {
        json_answer(StatusCode::OK, json)
    };
    let content_type = match form {
        DiscoveryVersion::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        DiscoveryVersion::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(ETAG, etag);
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}
