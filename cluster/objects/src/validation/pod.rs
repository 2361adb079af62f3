//! Pods and pod templates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Faults, Field,
    container::{self, Role},
    names,
};

const UPDATE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                      `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                      `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn check(pod: Field<'_>, faults: &mut Faults) {
    spec(&pod.at("spec"), faults);
}

/// The template of a workload; `policies` are the restart policies it may have.
pub(super) fn template(template: &Field<'_>, policies: &[&str], faults: &mut Faults) {
    if !template.is_set() {
        faults.required(&*template.path, "");
        return;
    }
    faults.labels(&template.at("metadata.labels"));
    let spec_field = template.at("spec");
    spec(&spec_field, faults);
    faults.one_of(&spec_field.at("restartPolicy"), policies);
    if spec_field.at("activeDeadlineSeconds").is_set() && policies == ["Always"] {
        faults.forbidden(&*spec_field.at("activeDeadlineSeconds").path, "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
    if !spec_field.at("ephemeralContainers").is_empty() {
        faults.forbidden(&*spec_field.at("ephemeralContainers").path, "ephemeral containers not allowed in pod template");
    }
}

pub(super) fn spec(spec: &Field<'_>, faults: &mut Faults) {
    let volumes = volumes(&spec.at("volumes"), faults);
    if spec.at("containers").is_empty() {
        faults.required(&*spec.at("containers").path, "");
    }
    let mut seen = BTreeSet::new();
    for (list, role) in [("initContainers", Role::Init), ("containers", Role::Main), ("ephemeralContainers", Role::Ephemeral)] {
        for container in spec.at(list).items() {
            container::check(&container, role, &volumes, faults);
            let name = container.at("name");
            if !name.text().is_empty() && !seen.insert(name.text()) {
                faults.duplicate(&*name.path, name.text());
            }
        }
    }
    faults.one_of(&spec.at("restartPolicy"), &["Always", "Never", "OnFailure"]);
    faults.one_of(&spec.at("dnsPolicy"), &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    faults.not_negative(&spec.at("terminationGracePeriodSeconds"));
    let deadline = spec.at("activeDeadlineSeconds");
    if deadline.number().is_some_and(|seconds| seconds < 1) {
        faults.invalid(&*deadline.path, deadline.value.clone(), "must be between 1 and 2147483647, inclusive");
    }
    faults.labels(&spec.at("nodeSelector"));
    for (name, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ] {
        if !spec.at(name).text().is_empty() {
            faults.named(&spec.at(name), rule);
        }
    }
    for alias in spec.at("hostAliases").items() {
        let ip = alias.at("ip");
        if ip.text().parse::<std::net::IpAddr>().is_err() {
            faults.invalid(&*ip.path, ip.text(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
    }
    for toleration in spec.at("tolerations").items() {
        faults.one_of(&toleration.at("operator"), &["Equal", "Exists"]);
        faults.one_of(&toleration.at("effect"), &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

/// Checks the volumes and answers their names.
fn volumes<'a>(list: &Field<'a>, faults: &mut Faults) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for volume in list.items() {
        let name = volume.at("name");
        faults.required_name(&name, names::dns_label);
        if !name.text().is_empty() && !seen.insert(name.text()) {
            faults.duplicate(&*name.path, name.text());
        }
        let sources = volume.value.as_object().into_iter().flatten().filter(|(key, source)| *key != "name" && !source.is_null());
        for (further, _) in sources.skip(1) {
            faults.forbidden(&*volume.at(further).path, "may not specify more than 1 volume type");
        }
        for (source, name) in
            [("configMap", "name"), ("secret", "secretName"), ("persistentVolumeClaim", "claimName"), ("hostPath", "path")]
        {
            let source = volume.at(source);
            if source.is_set() {
                if source.at(name).text().is_empty() {
                    faults.required(&*source.at(name).path, "");
                }
                files(&source, faults);
            }
        }
        for source in volume.at("projected.sources").items() {
            for (kind, name) in [("configMap", "name"), ("secret", "name"), ("serviceAccountToken", "path")] {
                let source = source.at(kind);
                if source.is_set() && source.at(name).text().is_empty() {
                    faults.required(&*source.at(name).path, "");
                }
                files(&source, faults);
            }
        }
    }
    seen
}

/// Items of a ConfigMap or Secret as files, and their mode.
fn files(source: &Field<'_>, faults: &mut Faults) {
    let mode = source.at("defaultMode");
    if mode.number().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        faults.invalid(&*mode.path, mode.value.clone(), "must be a number between 0 and 0777 (octal), both inclusive");
    }
    for item in source.at("items").items() {
        for name in ["key", "path"] {
            if item.at(name).text().is_empty() {
                faults.required(&*item.at(name).path, "");
            }
        }
        let path = item.at("path");
        if path.text().starts_with('/') {
            faults.invalid(&*path.path, path.text(), "must be a relative path");
        } else if path.text().split('/').any(|part| part == "..") {
            faults.invalid(&*path.path, path.text(), "must not contain '..'");
        }
    }
}

pub(super) fn update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let (spec, old_spec) = (new.at("spec"), old.at("spec"));
    let count = |field: &Field<'_>, list: &str| field.at(list).items().len();
    for list in ["containers", "initContainers"] {
        if count(&spec, list) != count(&old_spec, list) {
            faults.forbidden(&*spec.at(list).path, "pod updates may not add or remove containers");
            return;
        }
    }
    let deadline = (spec.at("activeDeadlineSeconds"), old_spec.at("activeDeadlineSeconds"));
    match (deadline.0.number(), deadline.1.number()) {
        (Some(new), Some(old)) if new > old => {
            let detail = "must be less than or equal to previous value";
            faults.invalid(&*deadline.0.path, new, detail);
        }
        (None, Some(_)) => faults.invalid(&*deadline.0.path, Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
    let tolerations = spec.at("tolerations");
    let kept = old_spec.at("tolerations").items().iter().all(|old| tolerations.items().iter().any(|new| new.value == old.value));
    if !kept {
        faults.forbidden(&*tolerations.path, "existing toleration can not be modified except its tolerationSeconds");
    }
    if comparable(spec.value, old_spec.value) != comparable(old_spec.value, old_spec.value) {
        faults.forbidden("spec", UPDATE);
    }
}

/// A spec in which all that may change is as it was. Resources change through the `resize` subresource, ephemeral containers
/// through theirs, and a gated pod may lose its gates.
fn comparable(spec: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(fields) = spec.as_object_mut() else { return spec };
    for name in
        ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "ephemeralContainers", "schedulingGates"]
    {
        fields.remove(name);
    }
    // The scheduler's binding, where it is written as an update.
    if old.get("nodeName").and_then(Value::as_str).is_none_or(str::is_empty) {
        fields.remove("nodeName");
    }
    for list in ["containers", "initContainers"] {
        for container in fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.insert("image".to_owned(), json!(""));
            }
        }
    }
    spec
}
