//! Jobs: pods that run until enough of them have succeeded.

mod indexes;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use meshlab_controller_runtime::{
    EventRecorder, EventType, Key, Outcome, controller_reference, is_not_found, is_terminating, now,
};

use crate::replica_set::message_of;
use crate::{Context, owner, pods};
use plan::{Next, Plan};

/// Jobs reconciled at a time.
const WORKERS: usize = 4;
/// Says which index a pod of an indexed job has.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Runs every job to its end, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = owner::queue(&context.informers.jobs, &context.informers.pods);
    let recorder = context.recorder("job-controller");
    let handle = |key| reconcile(context.clone(), recorder.clone(), key);
    queue.run("job", WORKERS, handle).await;
}

async fn reconcile(context: Arc<Context>, recorder: EventRecorder, key: Key) -> Result<Outcome, kube::Error> {
    let Some(job) = context.informers.jobs.at(&key).filter(|job| !is_terminating(job.as_ref())) else {
        return Ok(Outcome::default());
    };
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let owned = pods::claimed(&context.client, &context.informers.pods, job.as_ref(), selector).await?;
    let time = Timestamp::now();
    if let Some(finished) = plan::finished_at(&job) {
        delete_active(&context, &recorder, &job, &owned).await?;
        return expire(&context, &job, finished, time).await;
    }
    let plan = plan::plan(&job, &owned, time);
    match &plan.next {
        Next::Complete => {
            recorder.record(job.as_ref(), EventType::Normal, "Completed", "Job completed".to_owned());
        }
        Next::Fail { reason, message } => {
            delete_active(&context, &recorder, &job, &owned).await?;
            recorder.record(job.as_ref(), EventType::Warning, reason, (*message).to_owned());
        }
        Next::Suspend => delete_active(&context, &recorder, &job, &owned).await?,
        Next::Delete(count) => delete_some(&context, &recorder, &job, &owned, *count).await?,
        Next::Create(count) => create(&context, &recorder, &job, &owned, *count).await?,
        Next::Wait => {}
    }
    let status = status(&job, &plan, &owned);
    owner::write_status(&context.client, &context.informers.jobs, job.as_ref(), &job.status, &status).await?;
    Ok(Outcome { again: plan.again, ..Outcome::default() })
}

async fn delete_active(context: &Context, recorder: &EventRecorder, job: &Job, owned: &[Arc<Pod>]) -> Result<(), kube::Error> {
    let active = owned.iter().filter(|pod| pods::is_active(pod)).count();
    delete_some(context, recorder, job, owned, active).await
}

async fn delete_some(
    context: &Context,
    recorder: &EventRecorder,
    job: &Job,
    owned: &[Arc<Pod>],
    count: usize,
) -> Result<(), kube::Error> {
    let mut active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    active.sort_by_cached_key(|pod| pods::deletion_rank(pod));
    for pod in active.into_iter().take(count) {
        pods::delete(&context.client, &context.informers.pods, pod).await?;
        recorder.record(job, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
    }
    Ok(())
}

async fn create(
    context: &Context,
    recorder: &EventRecorder,
    job: &Job,
    owned: &[Arc<Pod>],
    count: usize,
) -> Result<(), kube::Error> {
    let described: Vec<Pod> = match is_indexed(job) {
        true => indexes::missing(job, owned, count).into_iter().map(|index| describe(job, Some(index))).collect(),
        false => vec![describe(job, None); count],
    };
    let calls = described.iter().map(|pod| pods::create(&context.client, &context.informers.pods, pod));
    for result in futures::future::join_all(calls).await {
        match result {
            Ok(pod) => recorder.record(job, EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", pod.name_any())),
            Err(error) => {
                recorder.record(job, EventType::Warning, "FailedCreate", format!("Error creating: {}", message_of(&error)));
                return Err(error);
            }
        }
    }
    Ok(())
}

pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

fn describe(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pods::from_template(&template, &job.namespace().unwrap_or_default(), controller_reference(job));
    let uid = job.uid().unwrap_or_default();
    let labels = pod.metadata.labels.get_or_insert_default();
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &job.name_any()),
        ("job-name", &job.name_any()),
    ] {
        labels.insert(key.to_owned(), value.clone());
    }
    if let Some(index) = index {
        labels.insert(INDEX.to_owned(), index.to_string());
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.to_owned(), index.to_string());
        pod.metadata.generate_name = Some(format!("{}-{index}-", job.name_any()));
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{}-{index}", job.name_any()));
            let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
            containers.for_each(|container| container.env.get_or_insert_default().push(index_variable()));
        }
    }
    pod
}

fn index_variable() -> EnvVar {
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..Default::default() }),
        ..Default::default()
    }
}

/// Deletes a finished job once its time to live is over.
async fn expire(context: &Context, job: &Job, finished: Timestamp, time: Timestamp) -> Result<Outcome, kube::Error> {
    let Some(ttl) = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished) else { return Ok(Outcome::default()) };
    let left = finished.as_second() + i64::from(ttl) - time.as_second();
    if let Ok(left @ 1..) = u64::try_from(left) {
        return Ok(Outcome::again(Duration::from_secs(left)));
    }
    let api: Api<Job> = Api::namespaced(context.client.clone(), &job.namespace().unwrap_or_default());
    match api.delete(&job.name_any(), &DeleteParams::foreground()).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(Outcome::default()),
    }
}

fn status(job: &Job, plan: &Plan, owned: &[Arc<Pod>]) -> JobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    let positive = |count: i32| (count > 0).then_some(count);
    status.active = positive(plan.active);
    status.succeeded = positive(plan.succeeded);
    status.failed = positive(plan.failed);
    let ready = owned.iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod)).count();
    status.ready = Some(i32::try_from(ready).unwrap_or(i32::MAX));
    let terminating = owned.iter().filter(|pod| is_terminating(pod.as_ref()) && !pods::is_finished(pod)).count();
    status.terminating = Some(i32::try_from(terminating).unwrap_or(i32::MAX));
    if is_indexed(job) {
        status.completed_indexes = Some(indexes::format(&indexes::succeeded(owned))).filter(|indexes| !indexes.is_empty());
    }
    let suspended = matches!(plan.next, Next::Suspend);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(now());
    }
    match &plan.next {
        Next::Complete => {
            status.completion_time = Some(now());
            let message = "Reached expected number of succeeded pods";
            for condition_type in ["SuccessCriteriaMet", "Complete"] {
                set_condition(&mut status, condition_type, "True", "CompletionsReached", message);
            }
        }
        Next::Fail { reason, message } => {
            status.active = None;
            status.ready = Some(0);
            for condition_type in ["FailureTarget", "Failed"] {
                set_condition(&mut status, condition_type, "True", reason, message);
            }
        }
        Next::Suspend => {
            status.start_time = None;
            set_condition(&mut status, "Suspended", "True", "JobSuspended", "Job suspended");
        }
        _ if status.conditions.iter().flatten().any(|condition| condition.type_ == "Suspended") => {
            set_condition(&mut status, "Suspended", "False", "JobResumed", "Job resumed");
        }
        _ => {}
    }
    status
}

fn set_condition(status: &mut JobStatus, condition_type: &str, value: &str, reason: &str, message: &str) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|known| known.type_ == condition_type && known.status == value) {
        return;
    }
    conditions.retain(|known| known.type_ != condition_type);
    conditions.push(JobCondition {
        type_: condition_type.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now()),
        last_transition_time: Some(now()),
    });
}

/// The index of a pod of an indexed job.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// How many pods each index has, by a property of the pods.
pub(super) fn indexes_where(owned: &[Arc<Pod>], holds: impl Fn(&Pod) -> bool) -> BTreeMap<i32, usize> {
    let mut counts = BTreeMap::new();
    for index in owned.iter().filter(|pod| holds(pod)).filter_map(|pod| index_of(pod)) {
        *counts.entry(index).or_default() += 1;
    }
    counts
}
