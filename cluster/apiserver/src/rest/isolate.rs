//! Which part of an object a write may touch: `status` belongs to `/status`, everything else to the object itself. Built-in
//! kinds begin with the status their strategies give them.

use meshlab_objects::schema::Schema;
use meshlab_objects::{Cause, CauseReason, Status};
use serde_json::{Value, json};

use super::meta;
use crate::api::Api;
use crate::registry::{self, Served};

/// The finalizer that keeps a CRD until its objects are gone.
pub(crate) const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

fn is(served: &Served, group: &str, plural: &str) -> bool {
    served.definition.group == group && served.definition.plural == plural
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}

/// Clears what a client cannot set when it creates an object.
pub(super) fn before_create(served: &Served, object: &mut Value) {
    let has_status = match served.custom {
        None => served.definition.subresource("status").is_some(),
        Some(_) => object["apiVersion"].as_str().is_some() && served.definition.subresource("status").is_some(),
    };
    if !has_status || is(served, "", "nodes") {
        return;
    }
    let status = match (served.definition.group.as_str(), served.definition.plural.as_str()) {
        ("", "namespaces") => Some(json!({"phase": "Active"})),
        ("", "pods") => Some(json!({"phase": "Pending", "qosClass": quality_of_service(&object["spec"])})),
        ("", "services") => Some(json!({"loadBalancer": {}})),
        _ => None,
    };
    set(object, "status", status);
    if is(served, "", "namespaces")
        && let Some(fields) = object.as_object_mut()
    {
        let spec = fields.entry("spec").or_insert_with(|| json!({}));
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("finalizers".into(), json!(["kubernetes"]));
        }
    }
}

/// `status.qosClass`, from the resources of a pod's containers.
fn quality_of_service(spec: &Value) -> &'static str {
    let containers = ["initContainers", "containers"].into_iter().filter_map(|field| spec[field].as_array()).flatten();
    let (mut any, mut all_guaranteed) = (false, true);
    for container in containers {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let (request, limit) = (&resources["requests"][name], &resources["limits"][name]);
            any |= !request.is_null() || !limit.is_null();
            all_guaranteed &= !limit.is_null() && (request.is_null() || request == limit);
        }
    }
    match (any, all_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Takes out of an apply configuration what it cannot change through this path, so that nobody owns it.
pub(super) fn before_apply(served: &Served, subresource: &str, config: &mut Value) {
    let Some(fields) = config.as_object_mut() else { return };
    match subresource {
        "" if served.definition.subresource("status").is_some() => drop(fields.remove("status")),
        "status" => {
            fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut).filter(|_| served.custom.is_some())
            {
                metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
            }
        }
        _ => {}
    }
}

/// Undoes what a client cannot change through this path.
pub(super) fn before_update(served: &Served, subresource: &str, new: &mut Value, old: &Value) {
    match subresource {
        "" => {
            if served.definition.subresource("status").is_some() {
                set(new, "status", old.get("status").cloned());
            }
            if is(served, "", "namespaces") {
                set(new, "spec", old.get("spec").cloned());
            }
        }
        "status" => {
            let mut written = std::mem::replace(new, old.clone());
            set(new, "status", written.as_object_mut().and_then(|fields| fields.remove("status")));
            if served.custom.is_none()
                && let (Some(kept), Some(metadata)) = (new["metadata"].as_object_mut(), written["metadata"].as_object())
            {
                meta::carry(kept, &Value::Object(metadata.clone()), &["labels", "annotations", "finalizers"]);
            }
        }
        "finalize" => {
            let finalizers = new["spec"].get("finalizers").cloned().unwrap_or_else(|| json!([]));
            new.clone_from(old);
            new["spec"]["finalizers"] = finalizers;
        }
        "resize" => {
            let wanted = std::mem::replace(new, old.clone());
            let containers = new.pointer_mut("/spec/containers").and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers.filter_map(Value::as_object_mut) {
                let mut others = wanted["spec"]["containers"].as_array().into_iter().flatten();
                let same = others.find(|other| other.get("name") == container.get("name"));
                if let Some(resources) = same.and_then(|same| same.get("resources")) {
                    container.insert("resources".into(), resources.clone());
                }
            }
        }
        "ephemeralcontainers" => {
            let containers = new["spec"].get("ephemeralContainers").cloned();
            new.clone_from(old);
            if let Some(containers) = containers {
                new["spec"]["ephemeralContainers"] = containers;
            }
        }
        _ => {}
    }
}

/// Sets what this server does in place of a controller.
pub(super) fn complete_update(api: &Api, served: &Served, new: &mut Value, old: &Value) {
    if is(served, "apiextensions.k8s.io", "customresourcedefinitions") {
        complete_crd(api, new, Some(old));
    }
}

/// The status and the finalizer of a CRD.
pub(crate) fn complete_crd(api: &Api, crd: &mut Value, old: Option<&Value>) {
    let conflict = registry::names_conflict(&api.registry(), crd);
    let mut status = registry::stored_status(conflict.as_deref(), crd, old, jiff::Timestamp::now());
    // A client can take versions out of `storedVersions` once it has migrated the objects.
    if let (Some(old), Some(asked)) = (old, crd["status"]["storedVersions"].as_array())
        && old["status"]["storedVersions"].as_array().is_some_and(|before| asked.iter().all(|version| before.contains(version)))
        && asked.iter().any(|version| {
            crd["spec"]["versions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|v| v["storage"] == true && v["name"] == *version))
        })
    {
        status["storedVersions"] = json!(asked);
    }
    set(crd, "status", Some(status));
    if old.is_none() {
        crd["metadata"]["finalizers"] = json!([CRD_CLEANUP]);
    }
}

/// What is wrong with a CRD beyond its shape: CEL rules that do not compile, and a conversion that this server cannot do.
pub(super) fn crd_causes(served: &Served, crd: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !is(served, "apiextensions.k8s.io", "customresourcedefinitions") {
        return causes;
    }
    if crd["spec"]["conversion"]["strategy"] == "Webhook" {
        causes.push(Cause {
            reason: CauseReason::FieldValueNotSupported,
            message: "Unsupported value: \"Webhook\": supported values: \"None\"".into(),
            field: "spec.conversion.strategy".into(),
        });
    }
    let versions = |crd: &Value| crd["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let before = old.map(versions).unwrap_or_default();
    for (index, version) in versions(crd).iter().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        if before.iter().any(|before| before["schema"]["openAPIV3Schema"] == *schema) {
            continue;
        }
        let Ok(compiled) = Schema::from_crd(schema) else { continue };
        let below = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let errors = compiled.rule_errors().into_iter();
        causes.extend(errors.map(|cause| Cause { field: format!("{below}.{}", cause.field), ..cause }));
    }
    causes
}

/// The last reason to keep an object that is being deleted is gone.
pub(super) fn is_finished(served: &Served, object: &Value) -> bool {
    let waits = is(served, "", "namespaces") && object["spec"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    meta::is_being_deleted(object)
        && meta::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or_default() == 0
        && !waits
}

/// A namespace that Kubernetes itself needs.
pub(super) fn check_deletable(served: &Served, name: &str) -> Result<(), Status> {
    if is(served, "", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(crate::auth::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}
