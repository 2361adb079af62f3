//! What a job needs next. No input or output here.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::{indexes, is_indexed};
use crate::pods;

/// The wait before a failed pod is replaced: this long after the first failure, then twice as long after each.
const FIRST_BACK_OFF: u64 = 10;
/// The longest such wait.
const LAST_BACK_OFF: u64 = 360;

/// Where a job stands, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) active: i32,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    pub(super) next: Next,
    /// When to look again although nothing has changed.
    pub(super) again: Option<Duration>,
}

/// The next step of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Complete,
    Fail { reason: &'static str, message: &'static str },
    Suspend,
    Delete(usize),
    Create(usize),
    Wait,
}

/// When the job came to its end, if it has.
pub(super) fn finished_at(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ends =
        conditions.filter(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True");
    ends.next().map(|end| end.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Plans the next step of an unfinished job.
pub(super) fn plan(job: &Job, owned: &[Arc<Pod>], now: Timestamp) -> Plan {
    let count = |phase: &str| owned.iter().filter(|pod| pods::phase(pod) == phase).count();
    let active = owned.iter().filter(|pod| pods::is_active(pod)).count();
    let known = job.status.as_ref();
    let succeeded = match is_indexed(job) {
        true => indexes::succeeded(owned).len(),
        false => count("Succeeded"),
    };
    // Pods that somebody deleted after they had ended still count.
    let succeeded = number(succeeded).max(known.and_then(|status| status.succeeded).unwrap_or(0));
    let failed = number(count("Failed")).max(known.and_then(|status| status.failed).unwrap_or(0));
    let (next, again) = next(job, owned, number(active), succeeded, failed, now);
    let created = if let Next::Create(count) = next { number(count) } else { 0 };
    let deleted = if let Next::Delete(count) = next { number(count) } else { 0 };
    let active = if next == Next::Suspend { 0 } else { number(active) + created - deleted };
    Plan { active, succeeded, failed, next, again }
}

fn next(job: &Job, owned: &[Arc<Pod>], active: i32, succeeded: i32, failed: i32, now: Timestamp) -> (Next, Option<Duration>) {
    let Some(spec) = &job.spec else { return (Next::Wait, None) };
    let complete = match spec.completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && active == 0,
    };
    if complete {
        return (Next::Complete, None);
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    if failed > limit || restarts(job, owned) > limit {
        let message = "Job has reached the specified backoff limit";
        return (Next::Fail { reason: "BackoffLimitExceeded", message }, None);
    }
    let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0);
    let until_deadline = spec.active_deadline_seconds.map(|seconds| started.as_second() + seconds - now.as_second());
    if spec.suspend == Some(true) {
        return (Next::Suspend, None);
    }
    if until_deadline.is_some_and(|left| left <= 0) {
        let message = "Job was active longer than specified deadline";
        return (Next::Fail { reason: "DeadlineExceeded", message }, None);
    }
    let deadline = until_deadline.and_then(|left| u64::try_from(left).ok()).map(Duration::from_secs);
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        Some(completions) => (completions - succeeded).min(parallelism),
        None if succeeded > 0 => active.min(parallelism),
        None => parallelism,
    };
    if active > wanted {
        return (Next::Delete(usize::try_from(active - wanted).unwrap_or(0)), deadline);
    }
    if active == wanted {
        return (Next::Wait, deadline);
    }
    match back_off(owned, failed, now) {
        Some(wait) => (Next::Wait, Some(deadline.map_or(wait, |deadline| deadline.min(wait)))),
        None => (Next::Create(usize::try_from(wanted - active).unwrap_or(0)), deadline),
    }
}

/// How often the containers of the job's pods were restarted in place.
fn restarts(job: &Job, owned: &[Arc<Pod>]) -> i32 {
    let policy = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return 0;
    }
    let statuses = owned.iter().filter_map(|pod| pod.status.as_ref());
    let containers = statuses
        .flat_map(|status| status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten()));
    containers.map(|container| container.restart_count).sum()
}

/// How long to wait, after the latest failure, before the next pod.
fn back_off(owned: &[Arc<Pod>], failed: i32, now: Timestamp) -> Option<Duration> {
    let last = owned.iter().filter(|pod| pods::phase(pod) == "Failed").filter_map(|pod| finished(pod)).max()?;
    let doublings = u32::try_from(failed - 1).unwrap_or(0).min(10);
    let wait = (FIRST_BACK_OFF << doublings).min(LAST_BACK_OFF);
    let left = last.as_second() + i64::try_from(wait).unwrap_or(i64::MAX) - now.as_second();
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
}

fn finished(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0).max().or(pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(spec: Value) -> Job {
        let mut spec = spec;
        spec["template"] = json!({"spec": {"containers": [], "restartPolicy": "Never"}});
        serde_json::from_value(json!({"metadata": {"name": "pi"}, "spec": spec})).unwrap()
    }

    fn pod(phase: &str, ended: i64) -> Arc<Pod> {
        let finished = Timestamp::from_second(ended).unwrap();
        let state = json!({"terminated": {"exitCode": 1, "finishedAt": finished.to_string()}});
        let status = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": [status]}}))
                .unwrap(),
        )
    }

    fn next(spec: Value, owned: &[Arc<Pod>], now: i64) -> (Next, Option<u64>) {
        let plan = plan(&job(spec), owned, Timestamp::from_second(now).unwrap());
        (plan.next, plan.again.map(|again| again.as_secs()))
    }

    #[test]
    fn pods_come_in_parallel_until_enough_have_succeeded() {
        let spec = json!({"completions": 3, "parallelism": 2});
        assert_eq!(next(spec.clone(), &[], 0).0, Next::Create(2));
        assert_eq!(next(spec.clone(), &[pod("Succeeded", 0), pod("Running", 0)], 0).0, Next::Create(1));
        assert_eq!(next(spec.clone(), &[pod("Succeeded", 0), pod("Succeeded", 0), pod("Running", 0)], 0).0, Next::Wait);
        assert_eq!(next(spec, &[pod("Succeeded", 0), pod("Succeeded", 0), pod("Succeeded", 0)], 0).0, Next::Complete);
    }

    #[test]
    fn failures_back_off_and_then_end_the_job() {
        let spec = json!({"completions": 1, "backoffLimit": 1});
        assert_eq!(next(spec.clone(), &[pod("Failed", 100)], 103), (Next::Wait, Some(7)));
        assert_eq!(next(spec.clone(), &[pod("Failed", 100)], 110).0, Next::Create(1));
        let (end, _) = next(spec, &[pod("Failed", 100), pod("Failed", 120)], 121);
        assert!(matches!(end, Next::Fail { reason: "BackoffLimitExceeded", .. }));
    }

    #[test]
    fn a_work_queue_ends_when_one_pod_succeeded_and_none_runs() {
        assert_eq!(next(json!({"parallelism": 2}), &[pod("Succeeded", 0), pod("Running", 0)], 0).0, Next::Wait);
        assert_eq!(next(json!({"parallelism": 2}), &[pod("Succeeded", 0)], 0).0, Next::Complete);
    }
}
