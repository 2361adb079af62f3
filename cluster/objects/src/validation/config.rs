//! ConfigMaps, Secrets and claims.

use serde_json::Value;

use super::{Faults, Field, IMMUTABLE, names};

const MAX_SIZE: usize = 1024 * 1024;
const KEPT: &str = "field is immutable when `immutable` is set";

fn keys(object: &Field<'_>, lists: &[&str], faults: &mut Faults) {
    let mut size = 0;
    for list in lists {
        let field = object.at(list);
        for (key, value) in field.value.as_object().into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            for fault in names::config_key(key) {
                faults.invalid(format!("{list}[{key}]"), key.as_str(), &fault);
            }
        }
    }
    if size > MAX_SIZE {
        faults.too_long("", MAX_SIZE as u64);
    }
}

pub(super) fn config_map(object: Field<'_>, faults: &mut Faults) {
    keys(&object, &["data", "binaryData"], faults);
    let binary = object.at("binaryData");
    for key in object.at("data").value.as_object().into_iter().flatten().map(|(key, _)| key) {
        if binary.value.get(key).is_some() {
            faults.invalid(format!("binaryData[{key}]"), key.as_str(), "duplicate of key present in data");
        }
    }
}

pub(super) fn secret(object: Field<'_>, faults: &mut Faults) {
    keys(&object, &["data"], faults);
    let data = object.at("data");
    let has = |key: &str| data.value.get(key).is_some();
    let wanted: &[&str] = match object.at("type").text() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username"],
        _ => &[],
    };
    for key in wanted.iter().filter(|key| !has(key)) {
        faults.required(format!("data[{key}]"), "");
    }
    if object.at("type").text() == "kubernetes.io/service-account-token" {
        let annotation = "kubernetes.io/service-account.name";
        let annotations = object.at("metadata.annotations");
        if annotations.value.get(annotation).and_then(Value::as_str).is_none_or(str::is_empty) {
            faults.required(format!("metadata.annotations[{annotation}]"), "");
        }
    }
}

pub(super) fn update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    if new.at("type").value != old.at("type").value {
        faults.invalid("type", new.at("type").value.clone(), IMMUTABLE);
    }
    if !old.at("immutable").is_true() {
        return;
    }
    if !new.at("immutable").is_true() {
        faults.forbidden("immutable", KEPT);
    }
    for list in ["data", "binaryData"] {
        let (new, old) = (new.at(list), old.at(list));
        if new.value != old.value && !(new.is_empty() && old.is_empty()) {
            faults.forbidden(list, KEPT);
        }
    }
}

pub(super) fn claim(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    if spec.at("accessModes").is_empty() {
        faults.required("spec.accessModes", "at least 1 access mode is required");
    }
    if spec.at("resources.requests").value.get("storage").is_none() {
        faults.required("spec.resources[storage]", "");
    }
}

pub(super) fn claim_update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let fixed = |object: &Field<'_>| {
        let mut spec = object.at("spec").value.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !matches!(name.as_str(), "resources" | "volumeName" | "volumeAttributesClassName"));
        }
        spec
    };
    if fixed(&new) != fixed(&old) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        faults.forbidden("spec", detail);
    }
}
