//! Telling the API server how a pod is: its status and its events.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;
use kube::api::{Api, Patch};
use meshlab_controller_runtime::{EventType, is_not_found, merge_patch, now, object_reference};
use serde_json::json;
use tokio::time::Instant;

use super::container::Role;
use super::sandbox::COMPLAIN_AFTER;
use super::{API_RETRY, PodTask, status};

impl PodTask {
    pub(super) fn status(&self) -> PodStatus {
        let ip = self.net.as_ref().map(|net| net.address().to_string());
        let facts = status::Facts {
            pod_ip: ip.as_deref(),
            host_ip: &self.node.address,
            start_time: Some(self.start_time.clone()),
            ready_to_start: self.net.is_some() && self.volumes.is_some(),
            failed: self.failed.as_ref().map(|(reason, message)| (*reason, message.as_str())),
        };
        status::status(&self.pod, &self.lives, &facts, &now())
    }

    /// Begins to write the status, if it differs from what the API server has and no write is under way.
    pub(super) fn write_status(&mut self) {
        if self.writing.is_some() || self.retry_write_at.is_some() {
            return;
        }
        // What is about to be there is told of in one go with what follows.
        let preparing = self.volumes.is_none() && self.failed.is_none() && self.ending.is_none();
        if preparing && self.volumes_missing_since.is_none_or(|since| since.elapsed() < COMPLAIN_AFTER) {
            return;
        }
        self.writing = self.status_write(self.status());
    }

    pub(super) fn status_write(&self, status: PodStatus) -> Option<BoxFuture<'static, Result<Option<Pod>, kube::Error>>> {
        let patch = merge_patch(&self.pod.status.clone().unwrap_or_default(), &status)?;
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        let name = self.pod.name_any();
        let patch = json!({"metadata": {"uid": self.pod.uid()}, "status": patch});
        Some(
            async move {
                match api.patch_status(&name, &Default::default(), &Patch::Merge(patch)).await {
                    Ok(pod) => Ok(Some(pod)),
                    Err(error) if is_not_found(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            .boxed(),
        )
    }

    pub(super) fn status_written(&mut self, answer: Result<Option<Pod>, kube::Error>) {
        match answer {
            Ok(Some(pod)) => {
                self.node.informers.pods.observe(pod);
                if self.updates.has_changed().unwrap_or(false) {
                    self.update();
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(pod = self.full_name(), %error, "a pod's status was not written");
                self.retry_write_at = Some(Instant::now() + API_RETRY);
            }
        }
    }

    pub(super) fn full_name(&self) -> String {
        let namespace = self.pod.namespace().unwrap_or_default();
        format!("{}_{namespace}({})", self.pod.name_any(), self.pod.uid().unwrap_or_default())
    }

    pub(super) fn event(&self, container: Option<usize>, event_type: EventType, reason: &str, message: String) {
        let mut about = object_reference(self.pod.as_ref());
        about.field_path = container.and_then(|index| self.lives.get(index)).map(|life| {
            let list = match life.role {
                Role::Init | Role::Sidecar => "initContainers",
                Role::Main => "containers",
                Role::Ephemeral => "ephemeralContainers",
            };
            format!("spec.{list}{{{}}}", life.spec.name)
        });
        self.node.recorder.record_about(about, event_type, reason, message);
    }
}
