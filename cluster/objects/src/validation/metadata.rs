//! `metadata` of every kind.

use serde_json::Value;

use super::{Faults, Field, IMMUTABLE, names};
use crate::resource::ResourceDefinition;

const MAX_ANNOTATIONS: usize = 256 * 1024;
/// CronJobs add eleven characters to name their Jobs.
const MAX_CRON_JOB_NAME: usize = 52;

pub(super) fn check(definition: &ResourceDefinition, object: &Value, faults: &mut Faults) {
    let metadata = Field::root(object).at("metadata");
    let rule = name_rule(definition);
    let (name, generate_name) = (metadata.at("name"), metadata.at("generateName"));
    if !generate_name.text().is_empty() {
        // What is generated goes on with letters, so it may end as a name may not.
        let stem = generate_name.text().trim_end_matches('-').to_owned() + "a";
        for fault in rule(&stem) {
            faults.invalid(&*generate_name.path, generate_name.text(), &fault);
        }
    }
    if name.text().is_empty() {
        faults.required(&*name.path, "name or generateName is required");
    } else {
        faults.named(&name, rule);
        if definition.kind == "CronJob" && name.text().len() > MAX_CRON_JOB_NAME {
            faults.invalid(&*name.path, name.text(), "must be no more than 52 characters");
        }
    }
    let namespace = metadata.at("namespace");
    if definition.namespaced {
        faults.required_name(&namespace, names::dns_label);
    } else if !namespace.text().is_empty() {
        faults.forbidden(&*namespace.path, "not allowed on this type");
    }
    faults.labels(&metadata.at("labels"));
    annotations(&metadata.at("annotations"), faults);
    owner_references(&metadata.at("ownerReferences"), faults);
    for finalizer in metadata.at("finalizers").items() {
        faults.named(&finalizer, names::qualified_name);
    }
}

/// The rule for names of a kind.
fn name_rule(definition: &ResourceDefinition) -> fn(&str) -> Vec<String> {
    match (definition.group.as_str(), definition.kind.as_str()) {
        ("", "Namespace") => names::dns_label,
        ("", "Service") => names::dns_1035_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        _ => names::dns_subdomain,
    }
}

fn annotations(annotations: &Field<'_>, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in annotations.value.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        for fault in names::qualified_name(&key.to_lowercase()) {
            faults.invalid(&*annotations.path, key.as_str(), &fault);
        }
    }
    if size > MAX_ANNOTATIONS {
        faults.too_long(&*annotations.path, MAX_ANNOTATIONS as u64);
    }
}

fn owner_references(owners: &Field<'_>, faults: &mut Faults) {
    let mut controller = None;
    for owner in owners.items() {
        for name in ["apiVersion", "kind", "name", "uid"] {
            let field = owner.at(name);
            if field.text().is_empty() {
                faults.invalid(
                    &*field.path,
                    field.text(),
                    &format!("{} must not be empty", if name == "apiVersion" { "version" } else { name }),
                );
            }
        }
        if owner.at("controller").is_true() {
            match controller {
                None => controller = Some(owner.at("name").text()),
                Some(first) => {
                    let second = owner.at("name").text();
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
                    );
                    faults.invalid(&*owners.path, owners.value.clone(), &detail);
                }
            }
        }
    }
}

pub(super) fn check_update(new: &Value, old: &Value, faults: &mut Faults) {
    let (new, old) = (Field::root(new).at("metadata"), Field::root(old).at("metadata"));
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (new, old) = (new.at(name), old.at(name));
        if new.value != old.value && !(new.is_empty() && old.is_empty()) {
            faults.invalid(&*new.path, new.value.clone(), IMMUTABLE);
        }
    }
    if old.at("deletionTimestamp").is_set() {
        let before = old.at("finalizers");
        let before = before.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let finalizers = new.at("finalizers");
        let added: Vec<String> = finalizers
            .items()
            .iter()
            .filter(|item| !before.contains(item.value))
            .map(|item| format!("{:?}", item.text()))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            faults.forbidden(&*finalizers.path, &detail);
        }
    }
}
