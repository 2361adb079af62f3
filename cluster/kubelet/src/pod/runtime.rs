//! What of a pod can be reached from outside its own task: logs, processes, the network.

use std::collections::BTreeMap;

use meshlab_net::PodNet;
use meshlab_program::{PipeWriter, Shared};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::log::Log;
use crate::probe::ExecTarget;

/// A pod's runtime state, shared between its task and the API server's streams.
#[derive(Default)]
pub(crate) struct PodRuntime {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    net: Option<PodNet>,
    containers: BTreeMap<String, ContainerHandle>,
}

/// One container, from outside.
#[derive(Clone, Default)]
pub(crate) struct ContainerHandle {
    /// The log of its current or last run.
    pub(crate) log: Option<Log>,
    /// The log of the run before.
    pub(crate) previous: Option<Log>,
    /// Its processes, while it runs.
    pub(crate) running: Option<Running>,
}

/// A container that runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) target: ExecTarget,
    /// The main process's input, if the pod asked for one and nobody has closed it.
    pub(crate) stdin: Option<Shared<PipeWriter>>,
    /// Whether the input ends with the first client's.
    pub(crate) stdin_once: bool,
    /// The size of the main process's terminal, if it has one.
    pub(crate) terminal: Option<watch::Sender<(u16, u16)>>,
}

impl PodRuntime {
    /// Declares a container.
    pub(crate) fn declare(&self, name: &str) {
        self.state.lock().containers.entry(name.to_owned()).or_default();
    }

    /// A container by name.
    pub(crate) fn container(&self, name: &str) -> Option<ContainerHandle> {
        self.state.lock().containers.get(name).cloned()
    }

    /// A new run of a container begins.
    pub(crate) fn begin(&self, name: &str, log: Log, running: Running) {
        let mut state = self.state.lock();
        let handle = state.containers.entry(name.to_owned()).or_default();
        handle.previous = handle.log.replace(log);
        handle.running = Some(running);
    }

    /// A container's run is over.
    pub(crate) fn end(&self, name: &str) {
        if let Some(handle) = self.state.lock().containers.get_mut(name) {
            handle.running = None;
        }
    }

    /// Takes the main process's input away, so that it ends with the client that has it.
    pub(crate) fn take_stdin(&self, name: &str) -> Option<Shared<PipeWriter>> {
        self.state.lock().containers.get_mut(name)?.running.as_mut()?.stdin.take()
    }

    /// The pod's network.
    pub(crate) fn net(&self) -> Option<PodNet> {
        self.state.lock().net.clone()
    }

    /// Sets or takes away the pod's network.
    pub(crate) fn set_net(&self, net: Option<PodNet>) {
        self.state.lock().net = net;
    }
}
