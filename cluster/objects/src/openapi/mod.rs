//! OpenAPI v3 documents: what `kubectl explain`, `apply` and field validation read.

mod schemas;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::resource::{ResourceDefinition, Verb};

/// A kind to publish in a group version's document.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// How it is served.
    pub definition: &'a ResourceDefinition,
    /// A CRD's `openAPIV3Schema` of this version; `None` for a built-in kind.
    pub crd_schema: Option<&'a Value>,
}

/// The document of one group version, as JSON.
pub fn document(group: &str, version: &str, kinds: &[Published<'_>]) -> Vec<u8> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in kinds {
        add_paths(group, version, kind.definition, &mut paths);
        schemas::add(group, version, kind, &mut schemas);
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": crate::KUBERNETES_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    });
    document.to_string().into_bytes()
}

/// The hash of a document, as it stands in the root's URLs and in the ETag: upper-case SHA-512 in hexadecimal.
pub fn hash(document: &[u8]) -> String {
    hex(&Sha512::digest(document))
}

/// A hash of what a document is made from. It changes with the document and costs no making of it.
pub fn fingerprint(group: &str, version: &str, kinds: &[Published<'_>]) -> String {
    let mut hasher = Sha512::new();
    for part in [env!("CARGO_PKG_VERSION"), crate::KUBERNETES_VERSION, group, version] {
        hasher.update(part);
        hasher.update([0]);
    }
    for kind in kinds {
        hasher.update(format!("{:?}", kind.definition));
        if let Some(schema) = kind.crd_schema {
            hasher.update(schema.to_string());
        }
    }
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The root, `/openapi/v3`: a path per group version (`api/v1`, `apis/apps/v1`) with its hashed URL. Items are group, version, hash.
pub fn root<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Value {
    let entry = |(group, version, hash): (&str, &str, &str)| {
        let path = prefix(group, version);
        let url = format!("/openapi/v3/{path}?hash={hash}");
        (path, json!({"serverRelativeURL": url}))
    };
    json!({"paths": documents.into_iter().map(entry).collect::<Map<_, _>>()})
}

/// `api/v1`, `apis/apps/v1`
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn add_paths(group: &str, version: &str, definition: &ResourceDefinition, paths: &mut Map<String, Value>) {
    let scope = if definition.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{}{scope}/{}", prefix(group, version), definition.plural);
    let operation = |verb: Verb| operation(verb, group, version, definition);
    let operations = |verbs: &[(Verb, &str)]| {
        let served = verbs.iter().filter(|(verb, _)| definition.can(*verb));
        served.map(|(verb, method)| ((*method).to_owned(), operation(*verb))).collect::<Map<_, _>>()
    };
    let of_collection = operations(&[(Verb::List, "get"), (Verb::Create, "post"), (Verb::DeleteCollection, "delete")]);
    let of_object = operations(&[(Verb::Get, "get"), (Verb::Update, "put"), (Verb::Patch, "patch"), (Verb::Delete, "delete")]);
    for (path, operations, has_name) in
        [(collection.clone(), of_collection, false), (format!("{collection}/{{name}}"), of_object, true)]
    {
        if operations.is_empty() {
            continue;
        }
        let mut item = operations;
        let named = has_name.then_some("name");
        let parameters = named.into_iter().chain(definition.namespaced.then_some("namespace"));
        let parameter =
            |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
        item.insert("parameters".to_owned(), parameters.map(parameter).collect());
        paths.insert(path, Value::Object(item));
    }
}

fn operation(verb: Verb, group: &str, version: &str, definition: &ResourceDefinition) -> Value {
    let action = match verb {
        Verb::Create => "post",
        Verb::Update => "put",
        other => other.as_str(),
    };
    let mut query: Vec<&str> = match verb {
        Verb::Get | Verb::List => vec!["pretty"],
        Verb::Create | Verb::Update => vec!["pretty", "dryRun", "fieldManager", "fieldValidation"],
        Verb::Patch => vec!["pretty", "dryRun", "fieldManager", "fieldValidation", "force"],
        Verb::Delete | Verb::DeleteCollection | Verb::Watch => {
            vec!["pretty", "dryRun", "gracePeriodSeconds", "propagationPolicy"]
        }
    };
    if matches!(verb, Verb::List | Verb::DeleteCollection) {
        query.extend(["fieldSelector", "labelSelector", "limit", "continue", "resourceVersion", "timeoutSeconds"]);
    }
    if verb == Verb::List {
        query.extend(["watch", "allowWatchBookmarks", "resourceVersionMatch", "sendInitialEvents"]);
    }
    let parameter = |name: &str| {
        let parameter_type = match name {
            "force" | "watch" | "allowWatchBookmarks" | "sendInitialEvents" => "boolean",
            "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
            _ => "string",
        };
        json!({"name": name, "in": "query", "schema": {"type": parameter_type, "uniqueItems": true}})
    };
    let scope = if definition.namespaced { "Namespaced" } else { "" };
    let mut operation = json!({
        "operationId": format!("{}{}{}{scope}{}", verb.as_str(), capitalized(group), capitalized(version), definition.kind),
        "description": format!("{} {}", verb.as_str(), definition.plural),
        "parameters": query.into_iter().map(parameter).collect::<Vec<_>>(),
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": definition.kind},
    });
    let body_types: &[&str] = match verb {
        Verb::Create | Verb::Update => &["application/json", "application/yaml"],
        Verb::Patch => &["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"],
        _ => &[],
    };
    if !body_types.is_empty() {
        let schema = if verb == Verb::Patch {
            json!({"type": "object"})
        } else {
            json!({"$ref": format!("#/components/schemas/{}", schemas::name(group, version, definition))})
        };
        let content: Map<String, Value> =
            body_types.iter().map(|media_type| ((*media_type).to_owned(), json!({"schema": schema.clone()}))).collect();
        operation["requestBody"] = json!({"content": content, "required": true});
    }
    operation
}

/// `Apps` of `apps`, `RbacAuthorization…` of dotted groups.
fn capitalized(text: &str) -> String {
    text.split('.')
        .map(|part| {
            let mut chars = part.chars();
            chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests;
