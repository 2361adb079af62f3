//! One pod's life on its node, as one task: it owns all of the pod's state, and everybody else sends it messages.

mod container;
mod end;
mod launch;
mod report;
mod run;
mod runtime;
mod sandbox;
mod start;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use meshlab_controller_runtime::{EventType, now};
use meshlab_net::{PodNet, WallDeadline};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Node;
use crate::probe::{ProbeKind, ProbeReport};
use crate::volumes::{TokenKey, Volumes};
use container::{ContainerLife, RestartPolicy, Role, State};
pub(crate) use launch::{References, references};
pub(crate) use runtime::{ContainerHandle, PodRuntime};

/// How long to wait before a missing ConfigMap or Secret is looked for again; its arrival is noticed at once.
const CONFIG_RETRY: Duration = Duration::from_secs(10);
/// How long to wait before a failed call to the API server is made again.
const API_RETRY: Duration = Duration::from_millis(500);
/// A service account token is renewed when so much of its life is over.
const TOKEN_RENEWAL: f64 = 0.8;

/// What a pod's task is told.
pub(crate) enum Message {
    /// A container's first process has ended.
    Exited { index: usize, run: u64, exit_code: i32 },
    /// A probe has something to say.
    Probed { index: usize, run: u64, kind: ProbeKind, report: ProbeReport },
    /// A postStart hook is done.
    PostStart { index: usize, run: u64, result: Result<(), String> },
    /// A ConfigMap or Secret that the pod uses has changed.
    ObjectsChanged,
    /// Service account tokens were issued, or not.
    Tokens(Result<BTreeMap<TokenKey, String>, String>),
}

/// Runs a pod until `updates` is closed: the pod is gone.
pub(crate) async fn run(
    node: Arc<Node>,
    updates: watch::Receiver<Arc<Pod>>,
    runtime: Arc<PodRuntime>,
    channel: (mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>),
) {
    PodTask::new(node, updates, runtime, channel).run().await;
}

struct PodTask {
    node: Arc<Node>,
    pod: Arc<Pod>,
    updates: watch::Receiver<Arc<Pod>>,
    runtime: Arc<PodRuntime>,
    sender: mpsc::UnboundedSender<Message>,
    messages: mpsc::UnboundedReceiver<Message>,
    lives: Vec<ContainerLife>,
    policy: RestartPolicy,
    net: Option<PodNet>,
    /// The address to give back; none on the node's own network.
    address: Option<IpAddr>,
    hostname: String,
    volumes: Option<Volumes>,
    tokens: Option<BTreeMap<TokenKey, String>>,
    asking_tokens: bool,
    renew_tokens_at: Option<WallDeadline>,
    retry_volumes_at: Option<Instant>,
    volumes_missing_since: Option<Instant>,
    start_time: Time,
    /// When the pod's containers must have ended at the latest.
    ending: Option<Instant>,
    /// The node gave the pod up.
    failed: Option<(&'static str, String)>,
    runs: u64,
    writing: Option<BoxFuture<'static, Result<Option<Pod>, kube::Error>>>,
    retry_write_at: Option<Instant>,
    wake_at: Option<Instant>,
}

impl Drop for PodTask {
    fn drop(&mut self) {
        self.lives.iter_mut().for_each(|life| life.run = None);
        self.release();
    }
}

impl PodTask {
    fn new(
        node: Arc<Node>,
        mut updates: watch::Receiver<Arc<Pod>>,
        runtime: Arc<PodRuntime>,
        (sender, messages): (mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>),
    ) -> Self {
        let pod = updates.borrow_and_update().clone();
        let spec = pod.spec.clone().unwrap_or_default();
        let hostname = match spec.host_network {
            Some(true) => node.network.host().host_options().hostname.clone(),
            _ => spec.hostname.clone().unwrap_or_else(|| pod.name_any()),
        };
        let mut task = Self {
            node,
            updates,
            runtime,
            sender,
            messages,
            lives: Vec::new(),
            policy: RestartPolicy::of(spec.restart_policy.as_deref()),
            net: None,
            address: None,
            hostname: hostname.chars().take(63).collect::<String>().trim_end_matches('-').to_owned(),
            volumes: None,
            tokens: None,
            asking_tokens: false,
            renew_tokens_at: None,
            retry_volumes_at: None,
            volumes_missing_since: None,
            start_time: pod.status.as_ref().and_then(|status| status.start_time.clone()).unwrap_or_else(now),
            ending: None,
            failed: None,
            runs: 0,
            writing: None,
            retry_write_at: None,
            wake_at: None,
            pod: pod.clone(),
        };
        for init in spec.init_containers.into_iter().flatten() {
            let role = if init.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
            task.add(init, role);
        }
        for main in spec.containers {
            task.add(main, Role::Main);
        }
        task.add_ephemeral();
        task
    }

    fn add(&mut self, spec: Container, role: Role) {
        self.runtime.declare(&spec.name);
        let mut life = ContainerLife::new(spec, role);
        if let Some(status) = self.known_status(&life.spec.name) {
            life.resume(status, &now());
            // Init containers run again in a new sandbox.
            if role == Role::Init
                && let State::Terminated(end) = &life.state
            {
                life.last = Some(end.clone());
                life.state = State::Waiting { reason: None, message: None };
            }
        }
        self.lives.push(life);
    }

    fn known_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        all.into_iter().flat_map(|statuses| statuses.iter().flatten()).find(|status| status.name == name)
    }

    /// Adds what `kubectl debug` has added to the pod since.
    fn add_ephemeral(&mut self) {
        let pod = self.pod.clone();
        for ephemeral in pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten()) {
            if !self.lives.iter().any(|life| life.spec.name == ephemeral.name) {
                // The fields of an ephemeral container are those of a container, and `targetContainerName`.
                let value = serde_json::to_value(ephemeral).unwrap_or_default();
                if let Ok(spec) = serde_json::from_value(value) {
                    self.add(spec, Role::Ephemeral);
                }
            }
        }
    }

    async fn run(mut self) {
        let ended = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(ended, Some("Succeeded" | "Failed")) {
            return self.wait_for_deletion().await;
        }
        loop {
            self.wake_at = None;
            self.sync(Instant::now());
            if self.is_done() {
                break;
            }
            self.write_status();
            if !self.next_event().await {
                return;
            }
        }
        self.finish().await;
    }

    /// Waits for whatever comes next, and takes it in; false if the pod is gone.
    async fn next_event(&mut self) -> bool {
        let wake_at = [self.wake_at, self.retry_volumes_at, self.retry_write_at].into_iter().flatten().min();
        let wake = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let renew_tokens = async {
            match &self.renew_tokens_at {
                Some(deadline) => deadline.wait().await,
                None => std::future::pending().await,
            }
        };
        let written = async {
            match &mut self.writing {
                Some(writing) => writing.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.updates.changed() => {
                if changed.is_err() {
                    return false;
                }
                self.update();
            }
            Some(message) = self.messages.recv() => {
                self.take_in(message);
                // More of the same moment makes one status, not many.
                while let Ok(message) = self.messages.try_recv() {
                    self.take_in(message);
                }
            }
            answer = written => {
                self.writing = None;
                self.status_written(answer);
            }
            () = renew_tokens => {}
            () = wake => {
                if self.retry_write_at.is_some_and(|at| at <= Instant::now()) {
                    self.retry_write_at = None;
                }
            }
        }
        true
    }

    /// Takes in a new version of the pod.
    fn update(&mut self) {
        let old = std::mem::replace(&mut self.pod, self.updates.borrow_and_update().clone());
        self.add_ephemeral();
        if let Some(since) = self.deletion_deadline() {
            let sooner = self.ending.is_none_or(|ending| since < ending);
            if self.pod.metadata.deletion_timestamp.is_some() && sooner {
                self.ending = Some(since);
                self.lives.iter_mut().filter_map(|life| Some((life.run.as_mut()?, &life.spec))).for_each(|(run, spec)| {
                    if run.is_stopping() {
                        run.stop(spec, since, |_| {});
                    }
                });
            }
        }
        if old.spec != self.pod.spec {
            self.restart_changed();
        }
        if old.metadata.labels != self.pod.metadata.labels || old.metadata.annotations != self.pod.metadata.annotations {
            self.refresh_volumes();
        }
    }

    fn deletion_deadline(&self) -> Option<Instant> {
        self.pod.metadata.deletion_timestamp.as_ref()?;
        let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
        Some(Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0)))
    }

    fn grace_period(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Restarts containers whose image was changed in place.
    fn restart_changed(&mut self) {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let containers = spec.containers.into_iter().chain(spec.init_containers.into_iter().flatten());
        for container in containers {
            let Some(index) = self.lives.iter().position(|life| life.spec.name == container.name) else { continue };
            let changed = self.lives[index].run.as_ref().is_some_and(|run| run.image != container.image);
            if self.lives[index].spec.image != container.image {
                self.lives[index].retry_at = None;
            }
            self.lives[index].spec = container;
            if changed {
                let name = &self.lives[index].spec.name;
                let message = format!("Container {name} definition changed, will be restarted");
                self.stop(index, Instant::now() + self.grace_period(), message);
            }
        }
    }

    fn take_in(&mut self, message: Message) {
        let now_instant = Instant::now();
        match message {
            Message::Exited { index, run, exit_code } => {
                if self.is_current(index, run) {
                    self.exited(index, exit_code, now_instant);
                }
            }
            Message::Probed { index, run, kind, report } => {
                if self.is_current(index, run) && self.ending.is_none() {
                    self.probed(index, kind, report);
                }
            }
            Message::PostStart { index, run, result } => {
                if self.is_current(index, run) {
                    self.hook_done(index, result);
                }
            }
            Message::ObjectsChanged => {
                self.retry_volumes_at = None;
                self.refresh_volumes();
                let waiting = |life: &&mut ContainerLife| {
                    matches!(&life.state, State::Waiting { reason: Some("CreateContainerConfigError"), .. })
                };
                self.lives.iter_mut().filter(waiting).for_each(|life| life.retry_at = None);
            }
            Message::Tokens(answer) => {
                self.asking_tokens = false;
                match answer {
                    Ok(tokens) => {
                        let shortest = tokens.keys().map(|key| key.expiration_seconds).min().unwrap_or(3600);
                        let shortest = Duration::from_secs(u64::try_from(shortest).unwrap_or(3600));
                        self.renew_tokens_at = Some(WallDeadline::after(shortest.mul_f64(TOKEN_RENEWAL)));
                        self.tokens = Some(tokens);
                        self.refresh_volumes();
                    }
                    Err(why) => {
                        if self.tokens.is_some() {
                            self.renew_tokens_at = Some(WallDeadline::after(API_RETRY));
                        } else {
                            let complaint = format!("MountVolume.SetUp failed for service account tokens : {why}");
                            self.complain_of_volumes(complaint, now_instant);
                        }
                    }
                }
            }
        }
    }

    fn is_current(&self, index: usize, run: u64) -> bool {
        self.lives.get(index).and_then(|life| life.run.as_ref()).is_some_and(|current| current.id == run)
    }

    fn probed(&mut self, index: usize, kind: ProbeKind, report: ProbeReport) {
        match (kind, report) {
            (_, ProbeReport::Unhealthy(message)) => self.event(Some(index), EventType::Warning, "Unhealthy", message),
            (ProbeKind::Startup, ProbeReport::Success) => {
                if let Some(run) = &mut self.lives[index].run {
                    run.startup_done = true;
                }
                self.start_if_due(index);
            }
            (ProbeKind::Readiness, ProbeReport::Success) => self.lives[index].ready = true,
            (ProbeKind::Readiness, ProbeReport::Failure) => self.lives[index].ready = false,
            (ProbeKind::Liveness, ProbeReport::Success) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, ProbeReport::Failure) => {
                let spec = &self.lives[index].spec;
                let probe = if kind == ProbeKind::Startup { &spec.startup_probe } else { &spec.liveness_probe };
                let own = probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
                let grace = own.and_then(|seconds| u64::try_from(seconds).ok()).map_or(self.grace_period(), Duration::from_secs);
                let message = format!("Container {} failed {} probe, will be restarted", spec.name, kind.name().to_lowercase());
                self.stop(index, Instant::now() + grace, message);
            }
        }
    }

    fn hook_done(&mut self, index: usize, result: Result<(), String>) {
        match result {
            Ok(()) => {
                if let Some(run) = &mut self.lives[index].run {
                    run.hook_done = true;
                }
                self.start_if_due(index);
            }
            Err(why) => {
                self.event(Some(index), EventType::Warning, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
                let message = "FailedPostStartHook".to_owned();
                self.stop(index, Instant::now() + self.grace_period(), message);
            }
        }
    }

    /// A container counts as started once its hook is done and its startup probe has succeeded.
    fn start_if_due(&mut self, index: usize) {
        let life = &mut self.lives[index];
        let Some(run) = life.run.as_ref().filter(|run| run.hook_done && run.startup_done) else { return };
        life.started = true;
        if life.spec.readiness_probe.is_none() {
            life.ready = true;
        }
        run.started.send_replace(true);
    }

    /// Does what is due: starts what should run, ends what should not.
    fn sync(&mut self, at: Instant) {
        if self.pod.metadata.deletion_timestamp.is_some() && self.ending.is_none() {
            self.ending = self.deletion_deadline();
        }
        if let Some(deadline) = self.ending {
            return self.end_containers(deadline);
        }
        self.check_active_deadline();
        if self.failed.is_some() || !self.ensure_network() || !self.ensure_volumes(at) {
            return;
        }
        if self.renew_tokens_at.is_some_and(|renew| renew.is_over()) {
            self.renew_tokens_at = None;
            self.ask_tokens();
        }
        let mut initialized = true;
        for index in 0..self.lives.len() {
            match self.lives[index].role {
                Role::Init if !initialized || self.lives[index].has_succeeded() => {}
                Role::Init => {
                    self.advance(index, at);
                    initialized = self.lives[index].has_succeeded();
                }
                Role::Sidecar if initialized => {
                    self.advance(index, at);
                    initialized = self.lives[index].started || self.main_has_run();
                }
                Role::Main if initialized => self.advance(index, at),
                Role::Ephemeral => self.advance(index, at),
                Role::Sidecar | Role::Main => {}
            }
        }
        let over = |life: &ContainerLife| life.is_over(self.policy);
        let init_failed = self.lives.iter().any(|life| life.role == Role::Init && !life.has_succeeded() && over(life));
        if init_failed || self.lives.iter().filter(|life| life.role == Role::Main).all(over) {
            // Only sidecars are left; they end with what they served.
            self.ending = Some(at + self.grace_period());
            self.end_containers(at + self.grace_period());
        }
    }

    fn main_has_run(&self) -> bool {
        self.lives.iter().any(|life| life.role == Role::Main && life.ran_before)
    }

    fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}
