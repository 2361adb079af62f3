//! Kinds that make pods.

use serde_json::Value;

use super::{Faults, Field, IMMUTABLE, go_map, go_selector, pod};
use crate::selector::LabelSelector;

/// A selector that has to be there and to match the template.
fn selector_and_template(spec: &Field<'_>, kind: &str, policies: &[&str], faults: &mut Faults) {
    let selector = spec.at("selector");
    let template = spec.at("template");
    if !selector.is_set() {
        faults.required(&*selector.path, "");
    } else if selector.is_empty() || (selector.at("matchLabels").is_empty() && selector.at("matchExpressions").is_empty()) {
        faults.invalid_shown(&*selector.path, &go_selector(selector.value), &format!("empty selector is invalid for {kind}"));
    } else {
        matches(&selector, &template, faults);
    }
    pod::template(&template, policies, faults);
}

fn matches(selector: &Field<'_>, template: &Field<'_>, faults: &mut Faults) {
    let labels = template.at("metadata.labels");
    match LabelSelector::from_value(selector.value) {
        Err(error) => faults.invalid_shown(&*selector.path, &go_selector(selector.value), &error.message),
        Ok(parsed) if !parsed.matches(Some(labels.value)) => {
            faults.invalid_shown(&*labels.path, &go_map(labels.value), "`selector` does not match template `labels`");
        }
        Ok(_) => {}
    }
}

pub(super) fn deployment(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    selector_and_template(&spec, "deployment", &["Always"], faults);
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        faults.not_negative(&spec.at(name));
    }
    let deadline = spec.at("progressDeadlineSeconds");
    if let (Some(seconds), ready) = (deadline.number(), spec.at("minReadySeconds").number().unwrap_or_default())
        && seconds <= ready
    {
        faults.invalid(&*deadline.path, seconds, "must be greater than minReadySeconds");
    }
    let strategy = spec.at("strategy");
    faults.one_of(&strategy.at("type"), &["Recreate", "RollingUpdate"]);
    let rolling = strategy.at("rollingUpdate");
    if strategy.at("type").text() == "Recreate" && rolling.is_set() {
        faults.forbidden(&*rolling.path, "may not be specified when strategy `type` is 'Recreate'");
    } else if rolling.is_set() {
        let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
        for field in [&unavailable, &surge] {
            int_or_percent(field, faults);
        }
        if is_zero(&unavailable) && is_zero(&surge) {
            faults.invalid(&*unavailable.path, unavailable.value.clone(), "may not be 0 when `maxSurge` is 0");
        }
        if percentage(&unavailable).is_some_and(|percent| percent > 100) {
            faults.invalid(&*unavailable.path, unavailable.value.clone(), "must not be greater than 100%");
        }
    }
}

fn percentage(field: &Field<'_>) -> Option<u32> {
    field.text().strip_suffix('%')?.parse().ok()
}

fn is_zero(field: &Field<'_>) -> bool {
    field.number() == Some(0) || percentage(field) == Some(0)
}

fn int_or_percent(field: &Field<'_>, faults: &mut Faults) {
    if field.value.is_string() && percentage(field).is_none() {
        let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%', regex used for \
                      validation is '[0-9]+%')";
        faults.invalid(&*field.path, field.text(), detail);
    }
    faults.not_negative(field);
}

pub(super) fn replica_set(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    selector_and_template(&spec, "deployment", &["Always"], faults);
    faults.not_negative(&spec.at("replicas"));
    faults.not_negative(&spec.at("minReadySeconds"));
}

pub(super) fn stateful_set(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    selector_and_template(&spec, "statefulset", &["Always"], faults);
    faults.not_negative(&spec.at("replicas"));
    faults.one_of(&spec.at("podManagementPolicy"), &["OrderedReady", "Parallel"]);
    faults.one_of(&spec.at("updateStrategy.type"), &["OnDelete", "RollingUpdate"]);
}

pub(super) fn daemon_set(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    selector_and_template(&spec, "daemonset", &["Always"], faults);
    faults.one_of(&spec.at("updateStrategy.type"), &["OnDelete", "RollingUpdate"]);
}

pub(super) fn job(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    job_spec(&spec, faults);
    // The selector is generated from the job's own identity; only then must the template carry it.
    if !spec.at("selector").is_empty() {
        matches(&spec.at("selector"), &spec.at("template"), faults);
    }
}

fn job_spec(spec: &Field<'_>, faults: &mut Faults) {
    for name in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        faults.not_negative(&spec.at(name));
    }
    faults.one_of(&spec.at("completionMode"), &["Indexed", "NonIndexed"]);
    pod::template(&spec.at("template"), &["OnFailure", "Never"], faults);
}

pub(super) fn cron_job(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    let schedule = spec.at("schedule");
    if schedule.text().is_empty() {
        faults.required(&*schedule.path, "");
    } else if schedule.text().split_whitespace().count() != 5 && !schedule.text().starts_with('@') {
        let count = schedule.text().split_whitespace().count();
        faults.invalid(
            &*schedule.path,
            schedule.text(),
            &format!("expected exactly 5 fields, found {count}: {}", schedule.text()),
        );
    }
    faults.one_of(&spec.at("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    job_spec(&spec.at("jobTemplate.spec"), faults);
}

pub(super) fn selector_update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let (new, old) = (new.at("spec.selector"), old.at("spec.selector"));
    if new.value != old.value {
        faults.invalid_shown(&*new.path, &go_selector(new.value), IMMUTABLE);
    }
}

pub(super) fn stateful_set_update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let changeable = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |object: &Field<'_>| {
        let mut spec = object.at("spec").value.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !changeable.contains(&name.as_str()));
        }
        spec
    };
    if fixed(&new) != fixed(&old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                      'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        faults.forbidden("spec", detail);
    }
}

pub(super) fn job_update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let (spec, old_spec) = (new.at("spec"), old.at("spec"));
    for name in ["completions", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"] {
        let elastic = name == "completions" && spec.at("completionMode").text() == "Indexed";
        if !elastic {
            faults.immutable(&spec.at(name), &old_spec.at(name));
        }
    }
    let (selector, old_selector) = (spec.at("selector"), old_spec.at("selector"));
    if selector.value != old_selector.value {
        faults.invalid_shown(&*selector.path, &go_selector(selector.value), IMMUTABLE);
    }
    let (template, old_template) = (spec.at("template"), old_spec.at("template"));
    // A suspended job that never started may still be told where to run.
    let free = old_spec.at("suspend").is_true() && !old.at("status.startTime").is_set();
    if template.value != old_template.value && !(free && scheduling_apart(template.value) == scheduling_apart(old_template.value))
    {
        faults.immutable(&template, &old_template);
    }
}

/// A template without its directives for the scheduler.
fn scheduling_apart(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(spec) = template.pointer_mut("/spec").and_then(Value::as_object_mut) {
        for name in ["affinity", "nodeSelector", "tolerations", "schedulingGates"] {
            spec.remove(name);
        }
    }
    if let Some(fields) = template.as_object_mut() {
        fields.remove("metadata");
    }
    template
}
