//! Bringing containers forward: starting, backing off, pulling images.

use std::time::Duration;

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use meshlab_controller_runtime::{EventType, epoch, now};
use tokio::time::Instant;

use super::container::{State, Step};
use super::launch::{Launch, LaunchError};
use super::run::Run;
use super::{CONFIG_RETRY, PodTask};
use crate::environment::{ConfigError, PodFacts};

/// How long `ErrImagePull` stands before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

impl PodTask {
    /// Brings one container forward.
    pub(super) fn advance(&mut self, index: usize, at: Instant) {
        let full_name = self.full_name();
        let step = self.lives[index].step(self.policy, &full_name, at);
        match step {
            Step::Start => self.start(index, at),
            Step::BackOff(until) => {
                let name = &self.lives[index].spec.name;
                let message = format!("Back-off restarting failed container {name} in pod {full_name}");
                self.event(Some(index), EventType::Warning, "BackOff", message);
                self.wake(until);
            }
            Step::Wait(until) => {
                self.wake(until);
                self.show_pull_back_off(index, at);
            }
            Step::Rest => {}
        }
    }

    /// After a while, `ErrImagePull` becomes `ImagePullBackOff`, as on a real node.
    pub(super) fn show_pull_back_off(&mut self, index: usize, at: Instant) {
        let life = &mut self.lives[index];
        let State::Waiting { reason: Some("ErrImagePull"), message } = &life.state else { return };
        let (Some(failed_at), Some(retry_at)) = (life.failed_at, life.retry_at) else { return };
        if at < failed_at + PULL_ERROR_SHOWN {
            return self.wake(failed_at + PULL_ERROR_SHOWN);
        }
        let image = life.spec.image.clone().unwrap_or_default();
        let text = format!("Back-off pulling image {image:?}: ErrImagePull: {}", message.as_deref().unwrap_or_default());
        life.set_waiting("ImagePullBackOff", text, retry_at);
        self.event(Some(index), EventType::Normal, "BackOff", format!("Back-off pulling image {image:?}"));
        self.event(Some(index), EventType::Warning, "Failed", "Error: ImagePullBackOff".to_owned());
    }

    pub(super) fn start(&mut self, index: usize, at: Instant) {
        match self.launch(index) {
            Ok(()) => {}
            Err(LaunchError::Image(error)) => self.image_missing(index, error.to_string(), at),
            Err(LaunchError::Config(error)) => {
                let message = error.to_string();
                self.event(Some(index), EventType::Warning, "Failed", format!("Error: {message}"));
                self.lives[index].set_waiting("CreateContainerConfigError", message, at + CONFIG_RETRY);
                self.wake(at + CONFIG_RETRY);
            }
            Err(LaunchError::Spawn(error)) => {
                let message = LaunchError::Spawn(error).to_string();
                self.event(Some(index), EventType::Warning, "Failed", format!("Error: {message}"));
                let life = &mut self.lives[index];
                life.begin_start(at);
                life.set_running(container_id(), now());
                let end = ContainerStateTerminated {
                    exit_code: 128,
                    reason: Some("StartError".to_owned()),
                    message: Some(message),
                    started_at: Some(epoch()),
                    finished_at: Some(now()),
                    ..Default::default()
                };
                life.set_terminated(end, at);
                self.wake(at);
            }
        }
    }

    pub(super) fn image_missing(&mut self, index: usize, why: String, at: Instant) {
        let life = &mut self.lives[index];
        let image = life.spec.image.clone().unwrap_or_default();
        let message =
            format!("failed to pull image {image:?}: {why}; for any other image use a cluster that pulls images, such as kind");
        life.pull.retried(at, at);
        let retry_at = life.pull.until(at, at).map_or(at + CONFIG_RETRY, |(_, until)| until);
        life.set_waiting("ErrImagePull", message.clone(), retry_at);
        life.failed_at = Some(at);
        self.event(Some(index), EventType::Warning, "Failed", format!("Failed to pull image {image:?}: {message}"));
        self.event(Some(index), EventType::Warning, "Failed", "Error: ErrImagePull".to_owned());
        self.wake(at + PULL_ERROR_SHOWN);
    }

    pub(super) fn launch(&mut self, index: usize) -> Result<(), LaunchError> {
        let at = Instant::now();
        let spec = self.lives[index].spec.clone();
        let image_name = spec.image.clone().unwrap_or_default();
        let always = spec.image_pull_policy.as_deref() == Some("Always");
        let never = spec.image_pull_policy.as_deref() == Some("Never");
        let present = never || self.node.pulled.lock().contains(&image_name);
        if always || !present {
            self.event(Some(index), EventType::Normal, "Pulling", format!("Pulling image {image_name:?}"));
        }
        let image = self.node.catalogue.find(&image_name)?;
        if always || !present {
            let took = at.elapsed().as_millis();
            let message = format!("Successfully pulled image {image_name:?} in {took}ms ({took}ms including waiting)");
            self.event(Some(index), EventType::Normal, "Pulled", message);
            self.node.pulled.lock().insert(image_name);
        } else {
            let message = format!("Container image {image_name:?} already present on machine");
            self.event(Some(index), EventType::Normal, "Pulled", message);
        }
        let (Some(net), Some(volumes)) = (&self.net, &self.volumes) else {
            // `sync` makes both before it starts anything.
            return Err(ConfigError::Field("the pod has no network or volumes yet".to_owned()).into());
        };
        let pod_ip = net.address().to_string();
        let launch = Launch {
            facts: PodFacts { pod: &self.pod, pod_ip: &pod_ip, host_ip: &self.node.address },
            container: &spec,
            image,
            informers: &self.node.informers,
            volumes,
            net,
            node: self.node.network.host(),
            hostname: &self.hostname,
        };
        let (launched, running) = launch.start()?;
        self.event(Some(index), EventType::Normal, "Created", format!("Created container: {}", spec.name));
        self.runtime.begin(&spec.name, launched.log.clone(), running);
        self.runs += 1;
        let run = Run::new(self.runs, index, &spec, launched, &self.sender);
        let life = &mut self.lives[index];
        life.begin_start(at);
        life.set_running(container_id(), now());
        life.run = Some(run);
        self.event(Some(index), EventType::Normal, "Started", format!("Started container {}", spec.name));
        self.start_if_due(index);
        Ok(())
    }
}

fn container_id() -> String {
    let bytes: [u8; 32] = rand::random();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("meshlab://{hex}")
}
