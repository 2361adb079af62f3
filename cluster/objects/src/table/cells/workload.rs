//! Cells of the kinds that make pods.

use serde_json::Value;

use super::{NONE, Row, labels, or_none, selector, text};
use crate::table::duration;

const CONTAINERS: &str = "/spec/template/spec/containers";

/// Containers, images and selector, which end the wide output of most workloads.
fn wide(row: Row<'_>) -> Vec<Value> {
    let mut cells = row.containers(CONTAINERS).to_vec();
    cells.push(selector(row.at("/spec/selector")).into());
    cells
}

fn with_wide(row: Row<'_>, mut cells: Vec<Value>) -> Vec<Value> {
    cells.extend(wide(row));
    cells
}

pub(in crate::table) fn pod_template(row: Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("/template/spec/containers");
    vec![row.name(), names, images, labels(row.at("/template/metadata/labels")).into()]
}

pub(in crate::table) fn replica_set(row: Row<'_>) -> Vec<Value> {
    let mut cells = vec![
        row.name(),
        row.number("/spec/replicas").into(),
        row.number("/status/replicas").into(),
        row.number("/status/readyReplicas").into(),
        row.age(),
    ];
    cells.extend(row.containers(CONTAINERS));
    // A ReplicationController's selector is a plain map.
    let plain = row.at("/spec/selector").is_some_and(|map| map.as_object().is_some_and(|map| map.values().any(Value::is_string)));
    cells.push(if plain { labels(row.at("/spec/selector")) } else { selector(row.at("/spec/selector")) }.into());
    cells
}

fn ready(row: Row<'_>) -> Value {
    format!("{}/{}", row.number("/status/readyReplicas"), row.number("/spec/replicas")).into()
}

pub(in crate::table) fn deployment(row: Row<'_>) -> Vec<Value> {
    let cells = vec![
        row.name(),
        ready(row),
        row.number("/status/updatedReplicas").into(),
        row.number("/status/availableReplicas").into(),
        row.age(),
    ];
    with_wide(row, cells)
}

pub(in crate::table) fn stateful_set(row: Row<'_>) -> Vec<Value> {
    let mut cells = vec![row.name(), ready(row), row.age()];
    cells.extend(row.containers(CONTAINERS));
    cells
}

pub(in crate::table) fn daemon_set(row: Row<'_>) -> Vec<Value> {
    let cells = vec![
        row.name(),
        row.number("/status/desiredNumberScheduled").into(),
        row.number("/status/currentNumberScheduled").into(),
        row.number("/status/numberReady").into(),
        row.number("/status/updatedNumberScheduled").into(),
        row.number("/status/numberAvailable").into(),
        labels(row.at("/spec/template/spec/nodeSelector")).into(),
        row.age(),
    ];
    with_wide(row, cells)
}

pub(in crate::table) fn controller_revision(row: Row<'_>) -> Vec<Value> {
    let owners = row.list("/metadata/ownerReferences");
    let controller = owners.iter().find(|owner| owner.get("controller").is_some_and(|controller| controller == true));
    let controller = controller.map(|owner| {
        let group = text(owner, "apiVersion").split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
        format!("{}{group}/{}", text(owner, "kind").to_lowercase(), text(owner, "name"))
    });
    vec![row.name(), controller.unwrap_or_else(|| NONE.to_owned()).into(), row.number("/revision").into(), row.age()]
}

pub(in crate::table) fn job(row: Row<'_>) -> Vec<Value> {
    let succeeded = row.number("/status/succeeded");
    let parallelism = row.number("/spec/parallelism");
    let completions = match row.at("/spec/completions").and_then(Value::as_i64) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |pointer: &str| row.text(pointer).parse::<jiff::Timestamp>().ok();
    let duration = time("/status/startTime").map(|start| {
        let end = time("/status/completionTime").unwrap_or(row.now);
        duration::human(end.duration_since(start))
    });
    with_wide(row, vec![row.name(), job_status(row).into(), completions.into(), duration.unwrap_or_default().into(), row.age()])
}

fn job_status(row: Row<'_>) -> &'static str {
    let holds = |condition_type: &str| {
        let mut conditions = row.list("/status/conditions").iter();
        conditions.any(|condition| text(condition, "type") == condition_type && text(condition, "status") == "True")
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if row.at("/metadata/deletionTimestamp").is_some() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

pub(in crate::table) fn cron_job(row: Row<'_>) -> Vec<Value> {
    let last = row.at("/status/lastScheduleTime").map(|_| row.since("/status/lastScheduleTime"));
    let suspend = if row.at("/spec/suspend").is_some_and(|suspend| suspend == true) { "True" } else { "False" };
    let mut cells = vec![
        row.name(),
        row.text("/spec/schedule").into(),
        row.text_or_none("/spec/timeZone").into(),
        suspend.into(),
        row.list("/status/active").len().into(),
        or_none(last.unwrap_or_default()).into(),
        row.age(),
    ];
    cells.extend(row.containers("/spec/jobTemplate/spec/template/spec/containers"));
    cells.push(selector(row.at("/spec/jobTemplate/spec/selector")).into());
    cells
}
