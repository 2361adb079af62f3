//! One container's life: waiting, running, ended, and again. No input or output here.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use super::run::Run;
use crate::back_off::BackOff;

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next container begins.
    Init,
    /// A restartable init container: runs beside the main containers.
    Sidecar,
    /// What the pod is for.
    Main,
    /// Added to a running pod by `kubectl debug`.
    Ephemeral,
}

/// A pod's restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// By its name; `Always` is the default.
    pub(crate) fn of(name: Option<&str>) -> Self {
        match name {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// Not started yet, or about to be started again. Without a reason it waits for the pod.
    Waiting { reason: Option<&'static str>, message: Option<String> },
    /// Running since then.
    Running(Time),
    /// Ended.
    Terminated(ContainerStateTerminated),
}

/// What to do about a container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start it now.
    Start,
    /// It failed too often: a wait has just begun.
    BackOff(Instant),
    /// Look again then.
    Wait(Instant),
    /// Nothing.
    Rest,
}

/// One container of a pod, over all its restarts.
pub(crate) struct ContainerLife {
    pub(crate) spec: Container,
    pub(crate) role: Role,
    pub(crate) state: State,
    /// How its previous run ended.
    pub(crate) last: Option<ContainerStateTerminated>,
    pub(crate) restarts: i32,
    pub(crate) ran_before: bool,
    pub(crate) container_id: Option<String>,
    /// The startup probe has succeeded, and the postStart hook is done.
    pub(crate) started: bool,
    pub(crate) ready: bool,
    pub(crate) crash: BackOff,
    pub(crate) pull: BackOff,
    pub(crate) failed_at: Option<Instant>,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) run: Option<Run>,
}

impl ContainerLife {
    /// A container that has not run yet.
    pub(crate) fn new(spec: Container, role: Role) -> Self {
        Self {
            spec,
            role,
            state: State::Waiting { reason: None, message: None },
            last: None,
            restarts: 0,
            ran_before: false,
            container_id: None,
            started: false,
            ready: false,
            crash: BackOff::default(),
            pull: BackOff::default(),
            failed_at: None,
            retry_at: None,
            run: None,
        }
    }

    /// Takes up the life that `status` tells of: its processes ended with the node's previous life.
    pub(crate) fn resume(&mut self, status: &ContainerStatus, now: &Time) {
        self.restarts = status.restart_count;
        self.container_id = status.container_id.clone();
        self.last = status.last_state.as_ref().and_then(|state| state.terminated.clone());
        let Some(state) = &status.state else { return };
        if let Some(running) = &state.running {
            self.ran_before = true;
            self.state = State::Terminated(ContainerStateTerminated {
                exit_code: 255,
                reason: Some("Unknown".to_owned()),
                started_at: running.started_at.clone(),
                finished_at: Some(now.clone()),
                container_id: status.container_id.clone(),
                ..Default::default()
            });
        } else if let Some(terminated) = &state.terminated {
            self.ran_before = true;
            self.state = State::Terminated(terminated.clone());
        } else {
            self.ran_before = self.last.is_some();
        }
    }

    /// Whether it has ended and will stay so.
    pub(crate) fn is_over(&self, policy: RestartPolicy) -> bool {
        matches!(&self.state, State::Terminated(end) if !self.restarts_after(end.exit_code, policy))
    }

    /// Whether it has ended well.
    pub(crate) fn has_succeeded(&self) -> bool {
        matches!(&self.state, State::Terminated(end) if end.exit_code == 0)
    }

    fn restarts_after(&self, exit_code: i32, policy: RestartPolicy) -> bool {
        match self.role {
            Role::Main => policy == RestartPolicy::Always || policy == RestartPolicy::OnFailure && exit_code != 0,
            Role::Init => policy != RestartPolicy::Never && exit_code != 0,
            Role::Sidecar => true,
            Role::Ephemeral => false,
        }
    }

    /// Decides what to do about a container that should run. `pod` is the pod's full name, for the message.
    pub(crate) fn step(&mut self, policy: RestartPolicy, pod: &str, now: Instant) -> Step {
        match &self.state {
            State::Running(_) => Step::Rest,
            State::Waiting { .. } => match self.retry_at {
                Some(at) if at > now => Step::Wait(at),
                _ => Step::Start,
            },
            State::Terminated(end) if !self.restarts_after(end.exit_code, policy) => Step::Rest,
            State::Terminated(end) => {
                let failed_at = self.failed_at.unwrap_or(now);
                let Some((wait, at)) = self.crash.until(failed_at, now) else { return Step::Start };
                let wait = go_duration(wait.as_secs());
                let message = format!("back-off {wait} restarting failed container={} pod={pod}", self.spec.name);
                self.last = Some(end.clone());
                self.state = State::Waiting { reason: Some("CrashLoopBackOff"), message: Some(message) };
                self.retry_at = Some(at);
                Step::BackOff(at)
            }
        }
    }

    /// Notes that a start is being made.
    pub(crate) fn begin_start(&mut self, now: Instant) {
        if let Some(failed_at) = self.failed_at.take() {
            self.crash.retried(failed_at, now);
        }
        self.retry_at = None;
    }

    /// It runs.
    pub(crate) fn set_running(&mut self, container_id: String, now: Time) {
        if let State::Terminated(end) = &self.state {
            self.last = Some(end.clone());
        }
        if self.ran_before {
            self.restarts += 1;
        }
        self.ran_before = true;
        self.container_id = Some(container_id);
        self.state = State::Running(now);
    }

    /// It has ended.
    pub(crate) fn set_terminated(&mut self, mut end: ContainerStateTerminated, now: Instant) {
        end.container_id = self.container_id.clone();
        self.state = State::Terminated(end);
        self.failed_at = Some(now);
        self.started = false;
        self.ready = false;
        self.run = None;
    }

    /// It cannot be started for now.
    pub(crate) fn set_waiting(&mut self, reason: &'static str, message: String, retry_at: Instant) {
        if let State::Terminated(end) = &self.state {
            self.last = Some(end.clone());
        }
        self.state = State::Waiting { reason: Some(reason), message: Some(message) };
        self.retry_at = Some(retry_at);
    }

    /// Its status; `waiting_for` is the reason of one that waits for the pod.
    pub(crate) fn status(&self, waiting_for: &str) -> ContainerStatus {
        let mut state = ContainerState::default();
        match &self.state {
            State::Waiting { reason, message } => {
                let reason = Some(reason.unwrap_or(waiting_for).to_owned());
                state.waiting = Some(ContainerStateWaiting { reason, message: message.clone() });
            }
            State::Running(since) => state.running = Some(ContainerStateRunning { started_at: Some(since.clone()) }),
            State::Terminated(end) => state.terminated = Some(end.clone()),
        }
        let image = self.spec.image.clone().unwrap_or_default();
        ContainerStatus {
            name: self.spec.name.clone(),
            image_id: self.container_id.as_ref().map(|_| image.clone()).unwrap_or_default(),
            image,
            container_id: self.container_id.clone(),
            state: Some(state),
            last_state: Some(ContainerState { terminated: self.last.clone(), ..Default::default() }),
            ready: if self.role == Role::Init { self.has_succeeded() } else { self.ready },
            started: Some(self.started),
            restart_count: self.restarts,
            ..Default::default()
        }
    }
}

/// A number of seconds as Go prints it: `10s`, `2m40s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn life(role: Role) -> ContainerLife {
        ContainerLife::new(Container { name: "web".into(), ..Default::default() }, role)
    }

    fn exited(life: &mut ContainerLife, exit_code: i32, now: Instant) {
        life.set_terminated(ContainerStateTerminated { exit_code, ..Default::default() }, now);
    }

    fn second() -> Time {
        meshlab_controller_runtime::now()
    }

    #[test]
    fn a_crashing_container_is_restarted_at_once_then_backs_off() {
        let mut life = life(Role::Main);
        let mut now = Instant::now();
        assert_eq!(life.step(RestartPolicy::Always, "p", now), Step::Start);
        life.begin_start(now);
        life.set_running("1".into(), second());
        exited(&mut life, 1, now);
        assert_eq!(life.step(RestartPolicy::Always, "p", now), Step::Start);
        life.begin_start(now);
        life.set_running("2".into(), second());
        exited(&mut life, 1, now);
        let end = now + Duration::from_secs(10);
        assert_eq!(life.step(RestartPolicy::Always, "web_default(uid)", now), Step::BackOff(end));
        assert_eq!(life.step(RestartPolicy::Always, "web_default(uid)", now), Step::Wait(end));
        let status = life.status("ContainerCreating");
        let waiting = status.state.unwrap().waiting.unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=web pod=web_default(uid)"));
        assert_eq!((status.restart_count, status.last_state.unwrap().terminated.unwrap().exit_code), (1, 1));
        now = end;
        assert_eq!(life.step(RestartPolicy::Always, "p", now), Step::Start);
    }

    #[test]
    fn restart_policies() {
        for (role, policy, code, over) in [
            (Role::Main, RestartPolicy::Always, 0, false),
            (Role::Main, RestartPolicy::OnFailure, 0, true),
            (Role::Main, RestartPolicy::OnFailure, 1, false),
            (Role::Main, RestartPolicy::Never, 1, true),
            (Role::Init, RestartPolicy::Always, 0, true),
            (Role::Init, RestartPolicy::Always, 1, false),
            (Role::Init, RestartPolicy::Never, 1, true),
            (Role::Sidecar, RestartPolicy::Never, 0, false),
            (Role::Ephemeral, RestartPolicy::Always, 1, true),
        ] {
            let mut life = life(role);
            exited(&mut life, code, Instant::now());
            assert_eq!(life.is_over(policy), over, "{role:?} {policy:?} {code}");
        }
    }

    #[test]
    fn durations_read_as_in_go() {
        assert_eq!([10, 160, 300].map(go_duration), ["10s", "2m40s", "5m0s"]);
    }
}
