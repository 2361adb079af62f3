//! Cron jobs: jobs at given times.

pub(crate) mod schedule;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use meshlab_controller_runtime::{
    EventRecorder, EventType, Informer, Key, Outcome, controller_of, controller_reference, is_not_found, is_terminating,
    object_reference,
};

use crate::replica_set::message_of;
use crate::{Context, owner};
use schedule::Schedule;

/// Cron jobs reconciled at a time.
const WORKERS: usize = 2;
/// Missed times that are walked through one by one; a laptop that slept for a year does not catch up.
const MISSED: usize = 100;

/// Starts every cron job's jobs, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let crons: Informer<CronJob> = Informer::start(Api::all(context.client.clone()), context.stop.clone());
    let queue = owner::queue(&crons, &context.informers.jobs);
    let recorder = context.recorder("cronjob-controller");
    let handle = |key| reconcile(context.clone(), crons.clone(), recorder.clone(), key);
    queue.run("cronjob", WORKERS, handle).await;
}

async fn reconcile(
    context: Arc<Context>,
    crons: Informer<CronJob>,
    recorder: EventRecorder,
    key: Key,
) -> Result<Outcome, kube::Error> {
    let Some(cron) = crons.at(&key).filter(|cron| !is_terminating(cron.as_ref())) else { return Ok(Outcome::default()) };
    let Some(spec) = &cron.spec else { return Ok(Outcome::default()) };
    let mut jobs = context.informers.jobs.in_namespace(&key.namespace);
    jobs.retain(|job| controller_of(job.as_ref()).is_some_and(|owner| Some(&owner.uid) == cron.metadata.uid.as_ref()));
    prune(&context, spec, &jobs).await?;
    let mut status = status(&cron, &jobs);
    let (schedule, zone) = match (Schedule::parse(&spec.schedule), zone(spec)) {
        (Ok(schedule), Ok(zone)) => (schedule, zone),
        (Err(error), _) | (_, Err(error)) => {
            recorder.record(cron.as_ref(), EventType::Warning, "UnparseableSchedule", format!("unparseable schedule: {error}"));
            return Ok(Outcome::default());
        }
    };
    let now = Timestamp::now();
    if spec.suspend != Some(true)
        && let Some(due) = due(&cron, &schedule, &zone, now)
        && start(&context, &recorder, &cron, spec, &jobs, due).await?
    {
        status.last_schedule_time = Some(Time(due));
    }
    owner::write_status(&context.client, &crons, cron.as_ref(), &cron.status, &status).await?;
    let next = schedule.next(now, &zone).filter(|_| spec.suspend != Some(true));
    let wait = next.map(|next| u64::try_from(next.as_second() - now.as_second()).unwrap_or(0));
    Ok(Outcome { again: wait.map(|wait| Duration::from_secs(wait.max(1))), ..Outcome::default() })
}

fn zone(spec: &CronJobSpec) -> Result<TimeZone, String> {
    match &spec.time_zone {
        Some(name) => TimeZone::get(name).map_err(|error| error.to_string()),
        None => Ok(TimeZone::UTC),
    }
}

/// The latest time that has come and was not served yet, unless it is too late for it.
fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let mut after = last.or(cron.metadata.creation_timestamp.as_ref())?.0;
    let deadline = cron.spec.as_ref().and_then(|spec| spec.starting_deadline_seconds);
    if let Some(seconds) = deadline {
        let earliest = now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok()?;
        after = after.max(earliest);
    }
    let mut latest = None;
    for _ in 0..MISSED {
        match schedule.next(after, zone).filter(|time| *time <= now) {
            Some(time) => (latest, after) = (Some(time), time),
            None => break,
        }
    }
    latest
}

/// Starts the job of a time; false if its policy forbids it for now.
async fn start(
    context: &Context,
    recorder: &EventRecorder,
    cron: &CronJob,
    spec: &CronJobSpec,
    jobs: &[Arc<Job>],
    due: Timestamp,
) -> Result<bool, kube::Error> {
    let api: Api<Job> = Api::namespaced(context.client.clone(), &cron.namespace().unwrap_or_default());
    let active: Vec<&Arc<Job>> = jobs.iter().filter(|job| ended(job).is_none()).collect();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            recorder.record(cron, EventType::Normal, "JobAlreadyActive", message.to_owned());
            return Ok(false);
        }
        Some("Replace") => {
            for job in active {
                api.delete(&job.name_any(), &DeleteParams::background()).await?;
            }
        }
        _ => {}
    }
    let job = describe(cron, spec, due);
    match api.create(&PostParams::default(), &job).await {
        Ok(created) => {
            recorder.record(cron, EventType::Normal, "SuccessfulCreate", format!("Created job {}", created.name_any()));
            context.informers.jobs.observe(created);
            Ok(true)
        }
        // It was started in an earlier life.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(true),
        Err(error) => {
            recorder.record(cron, EventType::Warning, "FailedCreate", format!("Error creating job: {}", message_of(&error)));
            Err(error)
        }
    }
}

fn describe(cron: &CronJob, spec: &CronJobSpec, due: Timestamp) -> Job {
    let template = spec.job_template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".to_owned(), due.to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), due.as_second() / 60)),
            namespace: cron.namespace(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..Default::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// How a job ended: true for well, `None` if it runs.
fn ended(job: &Job) -> Option<bool> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ends = conditions.filter(|condition| condition.status == "True");
    ends.find_map(|condition| match condition.type_.as_str() {
        "Complete" => Some(true),
        "Failed" => Some(false),
        _ => None,
    })
}

/// Deletes the oldest ended jobs beyond what the history keeps.
async fn prune(context: &Context, spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Result<(), kube::Error> {
    let limits = [(true, spec.successful_jobs_history_limit.unwrap_or(3)), (false, spec.failed_jobs_history_limit.unwrap_or(1))];
    for (well, limit) in limits {
        let mut of: Vec<&Arc<Job>> =
            jobs.iter().filter(|job| ended(job) == Some(well) && !is_terminating(job.as_ref())).collect();
        of.sort_by_key(|job| job.metadata.creation_timestamp.clone());
        let surplus = of.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for job in &of[..surplus] {
            let api: Api<Job> = Api::namespaced(context.client.clone(), &job.namespace().unwrap_or_default());
            match api.delete(&job.name_any(), &DeleteParams::background()).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn status(cron: &CronJob, jobs: &[Arc<Job>]) -> CronJobStatus {
    let mut status = cron.status.clone().unwrap_or_default();
    let active: Vec<_> = jobs.iter().filter(|job| ended(job).is_none()).map(|job| object_reference(job.as_ref())).collect();
    status.active = (!active.is_empty()).then_some(active);
    let succeeded = jobs.iter().filter_map(|job| job.status.as_ref()?.completion_time.clone()).max();
    status.last_successful_time = status.last_successful_time.max(succeeded);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cron(spec: serde_json::Value) -> CronJob {
        let mut spec = spec;
        spec["jobTemplate"] = json!({});
        let metadata = json!({"name": "tick", "creationTimestamp": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn the_latest_missed_time_is_due_unless_it_is_too_late() {
        let due_at = |spec: serde_json::Value, now: &str| {
            let schedule = Schedule::parse(spec["schedule"].as_str().unwrap()).unwrap();
            due(&cron(spec), &schedule, &TimeZone::UTC, now.parse().unwrap()).map(|time| time.to_string())
        };
        let hourly = json!({"schedule": "@hourly"});
        assert_eq!(due_at(hourly.clone(), "2026-01-01T00:59:00Z"), None);
        assert_eq!(due_at(hourly, "2026-01-01T03:10:00Z").as_deref(), Some("2026-01-01T03:00:00Z"));
        let strict = json!({"schedule": "@hourly", "startingDeadlineSeconds": 60});
        assert_eq!(due_at(strict, "2026-01-01T03:10:00Z"), None);
    }
}
