//! Defaults of the remaining kinds.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Fields, each, existing, object_in, set, set_text, text};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn namespace(fields: &mut Fields) {
    let name = fields
        .get("metadata")
        .map(|metadata| metadata["name"].clone())
        .filter(|name| name.as_str().is_some_and(|n| !n.is_empty()));
    if let Some(name) = name {
        let labels = object_in(object_in(fields, "metadata"), "labels");
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
}

pub(super) fn persistent_volume(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_text(spec, "volumeMode", "Filesystem");
    if let Some(path) = existing(spec, "hostPath") {
        set(path, "type", "");
    }
}

pub(super) fn persistent_volume_claim(fields: &mut Fields) {
    set_text(object_in(fields, "spec"), "volumeMode", "Filesystem");
    set_text(object_in(fields, "status"), "phase", "Pending");
}

pub(super) fn role_binding(fields: &mut Fields) {
    if let Some(role) = existing(fields, "roleRef") {
        set_text(role, "apiGroup", RBAC);
    }
    for subject in each(fields, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            set_text(subject, "apiGroup", RBAC);
        }
    }
}

pub(super) fn webhooks(fields: &mut Fields, mutating: bool) {
    for webhook in each(fields, "webhooks") {
        set(webhook, "failurePolicy", "Fail");
        set(webhook, "matchPolicy", "Equivalent");
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        set(webhook, "timeoutSeconds", 10);
        if mutating {
            set(webhook, "reinvocationPolicy", "Never");
        }
        for rule in each(webhook, "rules") {
            set(rule, "scope", "*");
        }
        if let Some(service) = existing(webhook, "clientConfig").and_then(|client| existing(client, "service")) {
            set(service, "port", 443);
        }
    }
}

pub(super) fn custom_resource_definition(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    let names = object_in(spec, "names");
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        set_text(names, "singular", &kind.to_lowercase());
        set_text(names, "listKind", &format!("{kind}List"));
    }
    let conversion = object_in(spec, "conversion");
    set_text(conversion, "strategy", "None");
    if let Some(service) = existing(conversion, "webhook")
        .and_then(|webhook| existing(webhook, "clientConfig"))
        .and_then(|client| existing(client, "service"))
    {
        set(service, "port", 443);
    }
}

pub(super) fn autoscaler(fields: &mut Fields) {
    let version_two = text(fields, "apiVersion") == "autoscaling/v2";
    let spec = object_in(fields, "spec");
    set(spec, "minReplicas", 1);
    if version_two {
        let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        set(spec, "metrics", cpu);
    }
}

/// `stringData` is for writing only: it is encoded into `data`, over what stands there, and never read back.
pub(super) fn secret(fields: &mut Fields) {
    set(fields, "type", "Opaque");
    let Some(Value::Object(texts)) = fields.get("stringData") else { return };
    // A value that is not a string stays where it is, for validation to name it.
    if !texts.values().all(Value::is_string) {
        return;
    }
    let encode = |(key, text): (&String, &Value)| (key.clone(), BASE64_STANDARD.encode(text.as_str().unwrap_or_default()).into());
    let encoded: Fields = texts.iter().map(encode).collect();
    fields.remove("stringData");
    object_in(fields, "data").extend(encoded);
}
