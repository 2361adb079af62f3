//! Ending containers and pods, asked for or not.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod, PodStatus};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use meshlab_controller_runtime::{EventType, now, object_reference};
use std::time::Duration;
use tokio::time::Instant;

use super::container::{ContainerLife, Role, State};
use super::run::Run;
use super::{API_RETRY, PodTask};

/// What a container's last words in its termination message file may be, in characters.
const TERMINATION_MESSAGE: usize = 4096;
/// What of the end of its log stands for a failed container's last words, if it wants that: lines and bytes.
const LAST_LOG_LINES: i64 = 80;
/// See [`LAST_LOG_LINES`].
const LAST_LOG_BYTES: usize = 2048;

impl PodTask {
    pub(super) fn exited(&mut self, index: usize, exit_code: i32, at: Instant) {
        let life = &mut self.lives[index];
        let started_at = if let State::Running(since) = &life.state { Some(since.clone()) } else { None };
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        let end = ContainerStateTerminated {
            exit_code,
            reason: Some(reason.to_owned()),
            message: life.run.as_ref().and_then(|run| last_words(&life.spec, run, exit_code)),
            started_at,
            finished_at: Some(now()),
            ..Default::default()
        };
        life.set_terminated(end, at);
        self.runtime.end(&life.spec.name);
    }

    pub(super) fn check_active_deadline(&mut self) {
        let Some(seconds) = self.pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds) else { return };
        let left = self.start_time.0.as_second() + seconds - now().0.as_second();
        match u64::try_from(left) {
            Ok(left @ 1..) => self.wake(Instant::now() + Duration::from_secs(left)),
            _ => {
                let message = "Pod was active on the node longer than the specified deadline".to_owned();
                self.event(None, EventType::Normal, "DeadlineExceeded", message.clone());
                self.failed = Some(("DeadlineExceeded", message));
                let deadline = Instant::now() + self.grace_period();
                self.ending = Some(deadline);
                self.end_containers(deadline);
            }
        }
    }

    /// Ends a container that may be started again.
    pub(super) fn stop(&mut self, index: usize, deadline: Instant, message: String) {
        let life = &mut self.lives[index];
        let Some(run) = life.run.as_mut().filter(|run| !run.is_stopping()) else { return };
        life.ready = false;
        let (recorder, about, name) = (self.node.recorder.clone(), object_reference(self.pod.as_ref()), life.spec.name.clone());
        run.stop(&life.spec, deadline, move |why| {
            let message = format!("PreStopHook failed for container {name}: {why}");
            recorder.record_about(about, EventType::Warning, "FailedPreStopHook", message);
        });
        self.event(Some(index), EventType::Normal, "Killing", message);
    }

    /// Ends all containers: first those that do the work, then the sidecars, last started first.
    pub(super) fn end_containers(&mut self, deadline: Instant) {
        let workers: Vec<usize> = self.running(|role| role != Role::Sidecar).collect();
        let next: Vec<usize> =
            if workers.is_empty() { self.running(|role| role == Role::Sidecar).last().into_iter().collect() } else { workers };
        for index in next {
            let message = format!("Stopping container {}", self.lives[index].spec.name);
            if deadline <= Instant::now()
                && let Some(run) = &self.lives[index].run
            {
                run.kill();
            }
            self.stop(index, deadline, message);
        }
    }

    pub(super) fn running(&self, of: impl Fn(Role) -> bool) -> impl Iterator<Item = usize> {
        let lives = self.lives.iter().enumerate();
        lives.filter(move |(_, life)| life.run.is_some() && of(life.role)).map(|(index, _)| index)
    }

    /// Whether nothing runs and nothing will.
    pub(super) fn is_done(&self) -> bool {
        self.ending.is_some() && self.lives.iter().all(|life| life.run.is_none())
    }

    /// The pod has ended: says so, gives back what it had, and waits for its deletion, which it completes.
    pub(super) async fn finish(mut self) {
        if let Some(writing) = self.writing.take() {
            let answer = writing.await;
            self.status_written(answer);
        }
        loop {
            let Some(write) = self.status_write(self.final_status()) else { break };
            let answer = write.await;
            let failed = answer.is_err();
            self.status_written(answer);
            if !failed {
                break;
            }
            tokio::time::sleep(API_RETRY).await;
        }
        self.release();
        self.wait_for_deletion().await;
    }

    /// As [`PodTask::status`]; a deleted pod's phase is a final one, whatever its restart policy.
    pub(super) fn final_status(&self) -> PodStatus {
        let mut status = self.status();
        if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            let main = self.lives.iter().filter(|life| life.role == Role::Main);
            let succeeded = main.clone().count() > 0 && main.clone().all(ContainerLife::has_succeeded);
            status.phase = Some(if succeeded { "Succeeded" } else { "Failed" }.to_owned());
        }
        status
    }

    pub(super) async fn wait_for_deletion(mut self) {
        loop {
            self.pod = self.updates.borrow_and_update().clone();
            if self.pod.metadata.deletion_timestamp.is_some() && !self.delete().await {
                tokio::time::sleep(API_RETRY).await;
                if self.updates.has_changed().is_err() {
                    return;
                }
                continue;
            }
            if self.updates.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes the pod out of the API server; false if that must be tried again.
    pub(super) async fn delete(&mut self) -> bool {
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        let same = Preconditions { uid: self.pod.uid(), resource_version: None };
        let now = DeleteParams::default().grace_period(0).preconditions(same);
        match api.delete(&self.pod.name_any(), &now).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
            Err(error) => {
                tracing::debug!(pod = self.full_name(), %error, "an ended pod was not deleted");
                false
            }
        }
    }
}

/// What a container wrote to its termination message file or, if it failed and wants that, the end of its log.
fn last_words(spec: &Container, run: &Run, exit_code: i32) -> Option<String> {
    let path = spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let text = run.target.exec.container.fs.read_text(path).unwrap_or_default();
    if !text.is_empty() {
        return Some(text.chars().take(TERMINATION_MESSAGE).collect());
    }
    let wants_log = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    (wants_log && exit_code != 0).then(|| run.log.tail(LAST_LOG_LINES, LAST_LOG_BYTES)).filter(|text| !text.is_empty())
}
