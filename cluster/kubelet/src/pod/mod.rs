//! One pod's life on its node, as one task: it owns all of the pod's state, and everybody else sends it messages.

mod container;
mod launch;
mod run;
mod runtime;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodStatus, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PostParams, Preconditions};
use meshlab_controller_runtime::{EventType, epoch, is_not_found, merge_patch, now, object_reference};
use meshlab_net::{HostOptions, PodNet};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Node;
use crate::environment::PodFacts;
use crate::probe::{ProbeKind, ProbeReport};
use crate::volumes::{TokenKey, Volumes, tokens};
use container::{ContainerLife, RestartPolicy, Role, State, Step};
use launch::{Launch, LaunchError, NamespaceObjects};
pub(crate) use launch::{References, references};
use run::Run;
pub(crate) use runtime::{ContainerHandle, PodRuntime};

/// What a container's last words in its termination message file may be, in bytes.
const TERMINATION_MESSAGE: usize = 4096;
/// How long `ErrImagePull` stands before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
/// How long to wait before a missing ConfigMap or Secret is looked for again; its arrival is noticed at once.
const CONFIG_RETRY: Duration = Duration::from_secs(10);
/// What is missing may be on its way, such as a new namespace's `kube-root-ca.crt`: nobody is told of it before so long.
const COMPLAIN_AFTER: Duration = Duration::from_millis(250);
/// What of the end of its log stands for a failed container's last words, if it wants that: lines and bytes.
const LAST_LOG_LINES: i64 = 80;
/// See [`LAST_LOG_LINES`].
const LAST_LOG_BYTES: usize = 2048;
/// How long to wait before a failed call to the API server is made again.
const API_RETRY: Duration = Duration::from_millis(500);
/// A service account token is renewed when so much of its life is over.
const TOKEN_RENEWAL: f64 = 0.8;
/// The domain of all cluster names.
const CLUSTER_DOMAIN: &str = "cluster.local";

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
    renew_tokens_at: Option<Instant>,
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
        let hostname = spec.hostname.clone().unwrap_or_else(|| pod.name_any());
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
        let wake_at =
            [self.wake_at, self.retry_volumes_at, self.renew_tokens_at, self.retry_write_at].into_iter().flatten().min();
        let wake = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
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
                        self.renew_tokens_at = Some(now_instant + shortest.mul_f64(TOKEN_RENEWAL));
                        self.tokens = Some(tokens);
                        self.refresh_volumes();
                    }
                    Err(why) => {
                        if self.tokens.is_some() {
                            self.renew_tokens_at = Some(now_instant + API_RETRY);
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

    fn exited(&mut self, index: usize, exit_code: i32, at: Instant) {
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
        if self.renew_tokens_at.is_some_and(|renew| renew <= at) {
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

    fn check_active_deadline(&mut self) {
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

    fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    fn ensure_network(&mut self) -> bool {
        if self.net.is_some() {
            return true;
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        if spec.host_network == Some(true) {
            self.net = Some(self.node.network.host());
        } else {
            let Some(address) = self.node.addresses.take() else {
                let message = "Failed to create pod sandbox: no free address in 10.244.0.0/16".to_owned();
                self.event(None, EventType::Warning, "FailedCreatePodSandBox", message);
                self.wake(Instant::now() + CONFIG_RETRY);
                return false;
            };
            match self.node.network.attach(address, self.host_options(&spec)) {
                Ok(net) => {
                    self.net = Some(net);
                    self.address = Some(address);
                }
                Err(error) => {
                    // The address stays taken: whoever has it on the network is not one of ours.
                    let message = format!("Failed to create pod sandbox: {address}: {error}");
                    self.event(None, EventType::Warning, "FailedCreatePodSandBox", message);
                    self.wake(Instant::now() + API_RETRY);
                    return false;
                }
            }
        }
        self.runtime.set_net(self.net.clone());
        true
    }

    fn host_options(&self, spec: &k8s_openapi::api::core::v1::PodSpec) -> HostOptions {
        let namespace = self.pod.namespace().unwrap_or_default();
        let mut options = match spec.dns_policy.as_deref() {
            Some("Default" | "None") => HostOptions::external(self.hostname.clone()),
            _ => HostOptions::pod(self.hostname.clone(), &namespace, CLUSTER_DOMAIN),
        };
        if let Some(config) = &spec.dns_config {
            options.search.extend(config.searches.iter().flatten().cloned());
            let ndots = config.options.iter().flatten().find(|option| option.name.as_deref() == Some("ndots"));
            if let Some(ndots) = ndots.and_then(|option| option.value.as_deref()?.parse().ok()) {
                options.ndots = ndots;
            }
        }
        for alias in spec.host_aliases.iter().flatten() {
            if let Ok(address) = alias.ip.parse() {
                options.aliases.extend(alias.hostnames.iter().flatten().map(|name| (name.clone(), address)));
            }
        }
        options
    }

    fn ensure_volumes(&mut self, at: Instant) -> bool {
        if self.volumes.is_some() {
            return true;
        }
        if self.retry_volumes_at.is_some_and(|retry| retry > at) {
            return false;
        }
        self.retry_volumes_at = None;
        if self.tokens.is_none() {
            if tokens(&self.pod).is_empty() {
                self.tokens = Some(BTreeMap::new());
            } else {
                self.ask_tokens();
                return false;
            }
        }
        let no_tokens = BTreeMap::new();
        let pod_ip = self.pod_ip();
        let facts = PodFacts { pod: &self.pod, pod_ip: &pod_ip, host_ip: &self.node.address };
        let objects = NamespaceObjects::of(&self.pod, &self.node.informers);
        match Volumes::prepare(&facts, &objects, self.tokens.as_ref().unwrap_or(&no_tokens)) {
            Ok(volumes) => {
                self.volumes = Some(volumes);
                true
            }
            Err(error) => {
                self.complain_of_volumes(error.to_string(), at);
                false
            }
        }
    }

    /// Waits for what volumes miss, and tells of it if that takes time.
    fn complain_of_volumes(&mut self, complaint: String, at: Instant) {
        let since = *self.volumes_missing_since.get_or_insert(at);
        if at < since + COMPLAIN_AFTER {
            self.retry_volumes_at = Some(since + COMPLAIN_AFTER);
        } else {
            self.event(None, EventType::Warning, "FailedMount", complaint);
            self.retry_volumes_at = Some(at + CONFIG_RETRY);
        }
    }

    fn refresh_volumes(&mut self) {
        let pod_ip = self.pod_ip();
        let Some(volumes) = &mut self.volumes else { return };
        let no_tokens = BTreeMap::new();
        let facts = PodFacts { pod: &self.pod, pod_ip: &pod_ip, host_ip: &self.node.address };
        let objects = NamespaceObjects::of(&self.pod, &self.node.informers);
        volumes.refresh(&facts, &objects, self.tokens.as_ref().unwrap_or(&no_tokens));
    }

    fn pod_ip(&self) -> String {
        self.net.as_ref().map(|net| net.address().to_string()).unwrap_or_default()
    }

    /// Has the API server issue the tokens that the pod's volumes ask for.
    fn ask_tokens(&mut self) {
        if std::mem::replace(&mut self.asking_tokens, true) {
            return;
        }
        let (pod, client, sender) = (self.pod.clone(), self.node.client.clone(), self.sender.clone());
        tokio::spawn(async move {
            let answer = issue_tokens(&pod, client).await.map_err(|error| error.to_string());
            let _ = sender.send(Message::Tokens(answer));
        });
    }

    /// Brings one container forward.
    fn advance(&mut self, index: usize, at: Instant) {
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

    fn full_name(&self) -> String {
        let namespace = self.pod.namespace().unwrap_or_default();
        format!("{}_{namespace}({})", self.pod.name_any(), self.pod.uid().unwrap_or_default())
    }

    /// After a while, `ErrImagePull` becomes `ImagePullBackOff`, as on a real node.
    fn show_pull_back_off(&mut self, index: usize, at: Instant) {
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

    fn start(&mut self, index: usize, at: Instant) {
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

    fn image_missing(&mut self, index: usize, why: String, at: Instant) {
        let life = &mut self.lives[index];
        let image = life.spec.image.clone().unwrap_or_default();
        let message = format!("failed to pull image {image:?}: {why}; for any other image use --cluster kind");
        life.pull.retried(at, at);
        let retry_at = life.pull.until(at, at).map_or(at + CONFIG_RETRY, |(_, until)| until);
        life.set_waiting("ErrImagePull", message.clone(), retry_at);
        life.failed_at = Some(at);
        self.event(Some(index), EventType::Warning, "Failed", format!("Failed to pull image {image:?}: {message}"));
        self.event(Some(index), EventType::Warning, "Failed", "Error: ErrImagePull".to_owned());
        self.wake(at + PULL_ERROR_SHOWN);
    }

    fn launch(&mut self, index: usize) -> Result<(), LaunchError> {
        let at = Instant::now();
        let spec = self.lives[index].spec.clone();
        let image_name = spec.image.clone().unwrap_or_default();
        let always = spec.image_pull_policy.as_deref() == Some("Always");
        let present = self.node.pulled.lock().contains(&image_name);
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
            return Err(crate::environment::ConfigError::Field("the pod has no network or volumes yet".to_owned()).into());
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

    /// Ends a container that may be started again.
    fn stop(&mut self, index: usize, deadline: Instant, message: String) {
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
    fn end_containers(&mut self, deadline: Instant) {
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

    fn running(&self, of: impl Fn(Role) -> bool) -> impl Iterator<Item = usize> {
        let lives = self.lives.iter().enumerate();
        lives.filter(move |(_, life)| life.run.is_some() && of(life.role)).map(|(index, _)| index)
    }

    /// Whether nothing runs and nothing will.
    fn is_done(&self) -> bool {
        self.ending.is_some() && self.lives.iter().all(|life| life.run.is_none())
    }

    fn status(&self) -> PodStatus {
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
    fn write_status(&mut self) {
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

    fn status_write(&self, status: PodStatus) -> Option<BoxFuture<'static, Result<Option<Pod>, kube::Error>>> {
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

    fn status_written(&mut self, answer: Result<Option<Pod>, kube::Error>) {
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

    /// The pod has ended: says so, gives back what it had, and waits for its deletion, which it completes.
    async fn finish(mut self) {
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
    fn final_status(&self) -> PodStatus {
        let mut status = self.status();
        if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            let main = self.lives.iter().filter(|life| life.role == Role::Main);
            let succeeded = main.clone().count() > 0 && main.clone().all(ContainerLife::has_succeeded);
            status.phase = Some(if succeeded { "Succeeded" } else { "Failed" }.to_owned());
        }
        status
    }

    fn release(&mut self) {
        self.runtime.set_net(None);
        self.net = None;
        if let Some(address) = self.address.take() {
            self.node.network.detach(address);
            self.node.addresses.give_back(address);
        }
    }

    async fn wait_for_deletion(mut self) {
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
    async fn delete(&mut self) -> bool {
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

    fn event(&self, container: Option<usize>, event_type: EventType, reason: &str, message: String) {
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

fn container_id() -> String {
    let bytes: [u8; 32] = rand::random();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("meshlab://{hex}")
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

async fn issue_tokens(pod: &Pod, client: kube::Client) -> Result<BTreeMap<TokenKey, String>, kube::Error> {
    let api: Api<ServiceAccount> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).filter(|name| !name.is_empty()).unwrap_or("default");
    let mut issued = BTreeMap::new();
    for key in tokens(pod) {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Some(key.audience.clone()).filter(|audience| !audience.is_empty()).into_iter().collect(),
                expiration_seconds: Some(key.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..Default::default()
        };
        let answer: TokenRequest = api.create_subresource("token", account, &PostParams::default(), &request).await?;
        issued.insert(key, answer.status.map(|status| status.token).unwrap_or_default());
    }
    Ok(issued)
}
