//! One run of a container: from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use meshlab_program::{Child, ExitCode, Signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Message;
use crate::hooks;
use crate::log::Log;
use crate::probe::{self, ProbeKind, Target};

/// However long a preStop hook took, a container has this long to end after its signal.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How long the last output of a terminal may take on its way.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A container that runs. Dropping it kills the container.
pub(crate) struct Run {
    /// Tells messages of this run from those of earlier ones.
    pub(crate) id: u64,
    /// The container's image, to notice when the pod asks for another one.
    pub(crate) image: Option<String>,
    /// The postStart hook is done.
    pub(crate) hook_done: bool,
    /// The startup probe has succeeded.
    pub(crate) startup_done: bool,
    /// Tells the other probes that the container is started.
    pub(crate) started: watch::Sender<bool>,
    pub(crate) target: Target,
    pub(crate) log: Log,
    signals: watch::Sender<Signal>,
    kill: CancellationToken,
    stopper: Option<AbortOnDropHandle<()>>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// What a new run is made of.
pub(crate) struct Launched {
    pub(crate) child: Child,
    pub(crate) log: Log,
    /// A terminal's last output is in the log.
    pub(crate) shown: Option<oneshot::Receiver<()>>,
    pub(crate) signals: watch::Sender<Signal>,
    pub(crate) target: Target,
}

impl Run {
    /// Watches over a process that was just started: waits for its end, runs its postStart hook and its probes.
    pub(crate) fn new(
        id: u64,
        index: usize,
        spec: &k8s_openapi::api::core::v1::Container,
        launched: Launched,
        messages: &mpsc::UnboundedSender<Message>,
    ) -> Self {
        let kill = CancellationToken::new();
        let container = launched.target.exec.container.clone();
        let messages_of_end = messages.clone();
        let exited = move |exit_code| drop(messages_of_end.send(Message::Exited { index, run: id, exit_code }));
        tokio::spawn(wait(launched.child, container, launched.log.clone(), launched.shown, kill.clone(), exited));
        let mut run = Self {
            id,
            image: spec.image.clone(),
            hook_done: true,
            startup_done: spec.startup_probe.is_none(),
            started: watch::Sender::new(false),
            target: launched.target,
            log: launched.log,
            signals: launched.signals,
            kill,
            stopper: None,
            tasks: Vec::new(),
        };
        if let Some(hook) = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone()) {
            run.hook_done = false;
            let (target, spec, messages) = (run.target.clone(), spec.clone(), messages.clone());
            run.spawn(async move {
                let result = hooks::run(&hook, &spec, &target).await;
                let _ = messages.send(Message::PostStart { index, run: id, result });
            });
        }
        for (kind, probe) in [
            (ProbeKind::Startup, &spec.startup_probe),
            (ProbeKind::Readiness, &spec.readiness_probe),
            (ProbeKind::Liveness, &spec.liveness_probe),
        ] {
            if let Some(probe) = probe {
                run.probe(kind, probe.clone(), spec, index, messages.clone());
            }
        }
        run
    }

    fn probe(
        &mut self,
        kind: ProbeKind,
        probe: Probe,
        spec: &k8s_openapi::api::core::v1::Container,
        index: usize,
        messages: mpsc::UnboundedSender<Message>,
    ) {
        let run = self.id;
        let report = move |report| drop(messages.send(Message::Probed { index, run, kind, report }));
        let (target, started) = (self.target.clone(), self.started.subscribe());
        self.spawn(probe::run(kind, probe, spec.clone(), target, started, report));
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(AbortOnDropHandle::new(tokio::spawn(task)));
    }

    /// Whether the container has been asked to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopper.is_some()
    }

    /// Ends the container: its preStop hook, `SIGTERM`, and once `deadline` is over, `SIGKILL`. A second call moves the deadline.
    pub(crate) fn stop(
        &mut self,
        spec: &k8s_openapi::api::core::v1::Container,
        deadline: Instant,
        failed: impl FnOnce(String) + Send + 'static,
    ) {
        let again = self.is_stopping();
        let hook = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone()).filter(|_| !again);
        let (target, spec) = (self.target.clone(), spec.clone());
        let (signals, kill) = (self.signals.clone(), self.kill.clone());
        // Whoever is being stopped need not be ready any more.
        self.tasks.clear();
        self.stopper = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut deadline = deadline;
            if let Some(hook) = hook {
                match tokio::time::timeout_at(deadline, hooks::run(&hook, &spec, &target)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => failed(why),
                    Err(_) => failed("context deadline exceeded".to_owned()),
                }
                deadline = deadline.max(Instant::now() + LEAST_GRACE);
            }
            let _ = signals.send(Signal::Terminate);
            tokio::time::sleep_until(deadline).await;
            kill.cancel();
        })));
    }

    /// Ends the container at once.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }
}

/// Waits for the first process; the others end with it.
async fn wait(
    mut child: Child,
    container: Arc<meshlab_program::Container>,
    log: Log,
    shown: Option<oneshot::Receiver<()>>,
    kill: CancellationToken,
    exited: impl FnOnce(ExitCode) + Send,
) {
    let code = tokio::select! {
        code = child.wait() => code,
        () = kill.cancelled() => {
            child.kill();
            child.wait().await
        }
    };
    container.processes.kill_all();
    if let Some(shown) = shown {
        // A client that is attached and does not read must not keep the container from ending.
        let _ = tokio::time::timeout(LAST_OUTPUT, shown).await;
    }
    log.end();
    exited(code);
}
