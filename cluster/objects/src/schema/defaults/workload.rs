//! Defaults of the kinds that make pods.

use serde_json::{Value, json};

use super::{Fields, each, existing, object_in, pod::pod_spec, set, set_text, text};

/// `template` in these fields.
pub(super) fn template(fields: &mut Fields) {
    pod_spec(object_in(object_in(fields, "template"), "spec"));
}

pub(super) fn deployment(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    let strategy = object_in(spec, "strategy");
    set_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", "25%");
        set(rolling, "maxSurge", "25%");
    }
    template(spec);
}

pub(super) fn replica_set(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set(spec, "replicas", 1);
    template(spec);
}

pub(super) fn replication_controller(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set(spec, "replicas", 1);
    if spec.contains_key("template") {
        template(spec);
    }
}

pub(super) fn stateful_set(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object_in(spec, "updateStrategy");
    set_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        set(object_in(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = object_in(spec, "persistentVolumeClaimRetentionPolicy");
    set_text(retention, "whenDeleted", "Retain");
    set_text(retention, "whenScaled", "Retain");
    for claim in each(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        set_text(object_in(claim, "spec"), "volumeMode", "Filesystem");
        set(claim, "status", json!({"phase": "Pending"}));
    }
    template(spec);
}

pub(super) fn daemon_set(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set(spec, "revisionHistoryLimit", 10);
    let strategy = object_in(spec, "updateStrategy");
    set_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", 1);
        set(rolling, "maxSurge", 0);
    }
    template(spec);
}

pub(super) fn job(fields: &mut Fields) {
    job_spec(object_in(fields, "spec"));
}

fn job_spec(spec: &mut Fields) {
    // A job without both runs once; one with parallelism alone is a work queue.
    if spec.get("completions").is_none_or(Value::is_null) && spec.get("parallelism").is_none_or(Value::is_null) {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    set(spec, "backoffLimit", 6);
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", replacement);
    template(spec);
}

pub(super) fn cron_job(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = existing(spec, "jobTemplate") {
        // Unlike a job's own, the counts of a template are left open until the job is made.
        template(object_in(job, "spec"));
    }
}
