//! CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::schema::structural;
use crate::*;

/// Every CustomResourceDefinition, in order of name.
#[expect(clippy::expect_used, reason = "the definitions are built from types here and covered by a test")]
pub fn crds() -> Vec<CustomResourceDefinition> {
    definitions().into_iter().map(|value| serde_json::from_value(value).expect("a definition fits its own type")).collect()
}

/// The same, as one YAML document stream. JSON is YAML; it is written indented so that changes can be reviewed.
pub fn crds_yaml() -> String {
    let mut text =
        String::from("# Generated from the types in mesh/api; `BLESS=1 cargo test -p meshlab-istio-api` writes it anew.\n");
    for definition in definitions() {
        text.push_str("---\n");
        yaml(&definition, 0, &mut text);
    }
    text
}

fn definitions() -> Vec<Value> {
    let mut definitions: Vec<Value> = Kind::ALL.into_iter().map(definition).collect();
    definitions.sort_by_key(|definition| definition["metadata"]["name"].to_string());
    definitions
}

fn definition(kind: Kind) -> Value {
    let schema = json!({
        "type": "object",
        "properties": { "spec": spec_schema(kind), "status": status_schema() },
    });
    let mut schema = schema;
    if matches!(kind, Kind::ServiceEntry | Kind::WorkloadGroup | Kind::WorkloadEntry) {
        schema["required"] = json!(["spec"]);
    }
    let versions: Vec<Value> = kind
        .versions()
        .iter()
        .map(|version| {
            let mut version = json!({
                "name": version,
                "served": true,
                "storage": *version == kind.storage_version(),
                "schema": { "openAPIV3Schema": schema },
                "subresources": { "status": {} },
            });
            let columns = printer_columns(kind);
            if !columns.is_empty() {
                version["additionalPrinterColumns"] = columns.into();
            }
            version
        })
        .collect();
    let group = kind.group();
    let mut names = json!({
        "kind": kind.name(),
        "listKind": format!("{}List", kind.name()),
        "plural": kind.plural(),
        "singular": kind.name().to_lowercase(),
        "categories": ["istio-io", group.category()],
    });
    if let Some(short) = kind.short_name() {
        names["shortNames"] = json!([short]);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural(), group.name()),
            "annotations": { "helm.sh/resource-policy": "keep" },
            "labels": { "app": "istio-pilot", "chart": "istio", "heritage": "Tiller", "release": "istio" },
        },
        "spec": { "group": group.name(), "names": names, "scope": "Namespaced", "versions": versions },
    })
}

fn spec_schema(kind: Kind) -> Value {
    match kind {
        Kind::AuthorizationPolicy => structural::<AuthorizationPolicy>(),
        Kind::DestinationRule => structural::<DestinationRule>(),
        Kind::EnvoyFilter => structural::<EnvoyFilter>(),
        Kind::Gateway => structural::<Gateway>(),
        Kind::PeerAuthentication => structural::<PeerAuthentication>(),
        Kind::ProxyConfig => structural::<ProxyConfig>(),
        Kind::RequestAuthentication => structural::<RequestAuthentication>(),
        Kind::ServiceEntry => structural::<ServiceEntry>(),
        Kind::Sidecar => structural::<Sidecar>(),
        Kind::Telemetry => structural::<Telemetry>(),
        Kind::VirtualService => structural::<VirtualService>(),
        Kind::WasmPlugin => structural::<WasmPlugin>(),
        Kind::WorkloadEntry => structural::<WorkloadEntry>(),
        Kind::WorkloadGroup => structural::<WorkloadGroup>(),
    }
}

fn status_schema() -> Value {
    let generation = json!({ "anyOf": [{ "type": "integer" }, { "type": "string" }], "x-kubernetes-int-or-string": true });
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "observedGeneration": generation,
            "conditions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "type": { "type": "string", "description": "What is told." },
                        "status": { "type": "string", "description": "True, False or Unknown." },
                        "reason": { "type": "string", "description": "A word for the reason." },
                        "message": { "type": "string", "description": "The reason in full." },
                        "lastProbeTime": { "type": "string", "format": "date-time" },
                        "lastTransitionTime": { "type": "string", "format": "date-time" },
                        "observedGeneration": generation,
                    },
                },
            },
            "validationMessages": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "type": {
                            "type": "object",
                            "properties": {
                                "name": { "type": "string", "description": "Name of the message." },
                                "code": { "type": "string", "description": "Its code, IST0101 and so on." },
                            },
                        },
                        "level": { "type": "string", "enum": ["UNKNOWN", "ERROR", "WARNING", "INFO"] },
                        "documentationUrl": { "type": "string", "description": "Where it is explained." },
                    },
                },
            },
        },
    })
}

fn printer_columns(kind: Kind) -> Vec<Value> {
    let column = |name: &str, path: &str, kind: &str| json!({ "name": name, "jsonPath": path, "type": kind });
    let age = || column("Age", ".metadata.creationTimestamp", "date");
    let text = |name: &str, path: &str| column(name, path, "string");
    match kind {
        Kind::VirtualService => vec![text("Gateways", ".spec.gateways"), text("Hosts", ".spec.hosts"), age()],
        Kind::DestinationRule => vec![text("Host", ".spec.host"), age()],
        Kind::ServiceEntry => {
            vec![text("Hosts", ".spec.hosts"), text("Location", ".spec.location"), text("Resolution", ".spec.resolution"), age()]
        }
        Kind::WorkloadEntry => vec![age(), text("Address", ".spec.address")],
        Kind::AuthorizationPolicy => vec![text("Action", ".spec.action"), age()],
        Kind::PeerAuthentication => vec![text("Mode", ".spec.mtls.mode"), age()],
        Kind::WorkloadGroup | Kind::Telemetry | Kind::WasmPlugin => vec![age()],
        Kind::EnvoyFilter | Kind::Gateway | Kind::ProxyConfig | Kind::Sidecar | Kind::RequestAuthentication => Vec::new(),
    }
}

/// Writes block YAML; scalars and empty collections as JSON, which YAML includes.
fn yaml(value: &Value, indent: usize, out: &mut String) {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if key.chars().all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c)) {
                    key.clone()
                } else {
                    Value::from(key.as_str()).to_string()
                };
                out.push_str(&format!("{pad}{key}:"));
                entry(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&format!("{pad}-"));
                entry(item, indent, out);
            }
        }
        scalar => out.push_str(&format!("{pad}{scalar}\n")),
    }
}

fn entry(value: &Value, indent: usize, out: &mut String) {
    let nested = value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|items| !items.is_empty());
    if nested {
        out.push('\n');
        yaml(value, indent + 1, out);
    } else {
        out.push_str(&format!(" {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_definition() {
        assert_eq!(crds().len(), Kind::ALL.len());
    }

    /// The manifest in the repository is what the types say. `BLESS=1` writes it.
    #[test]
    fn manifest_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kind-config/mesh/crds.yaml");
        let wanted = crds_yaml();
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == wanted, "kind-config/mesh/crds.yaml is not what the types say; BLESS=1 writes it anew");
    }
}
