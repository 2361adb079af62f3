//! Starting executables: from the kubelet (a container's first process, `kubectl exec`) or from another process (a shell).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::{ExitCode, FileType, Process, Program, Signal};

/// Processes that one container may run at a time, so that a shell script cannot fork without end.
const MAX_PROCESSES: usize = 256;

/// How many interpreters may be chained by `#!` lines, as Linux has it.
const MAX_INTERPRETERS: usize = 4;

/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: ExitCode = 137;

/// Exit code of a process that panicked (128 + SIGABRT).
const ABORTED: ExitCode = 134;

/// Why an executable could not be started. The words are those of the container runtimes.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpawnError {
    /// The image has no such executable, and the container no such script.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotFound(String),
    /// A path was given, and there is nothing.
    #[error("exec: {0:?}: stat {0}: no such file or directory")]
    NoSuchFile(String),
    /// The file is a directory, or not marked executable (`chmod +x`, or the volume's `defaultMode`).
    #[error("exec: {0:?}: permission denied")]
    PermissionDenied(String),
    /// The file is neither a built-in program nor a script that starts with `#!`.
    #[error("exec {0}: exec format error")]
    Format(String),
    /// The container runs too many processes already.
    #[error("fork: Resource temporarily unavailable")]
    TooManyProcesses,
}

impl SpawnError {
    /// The exit code that a shell gives for it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotFound(_) | Self::NoSuchFile(_) => 127,
            Self::PermissionDenied(_) | Self::Format(_) => 126,
            Self::TooManyProcesses => 254,
        }
    }
}

/// The processes that run in a container. Cloning is cheap and yields the same table.
#[derive(Clone, Default)]
pub struct Processes(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    last_pid: u32,
    running: BTreeMap<u32, Entry>,
}

struct Entry {
    argv: Vec<String>,
    started: SystemTime,
    signals: watch::Sender<Signal>,
    abort: Option<AbortHandle>,
}

/// A process that runs, as `ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its number; the container's first process has 1.
    pub pid: u32,
    /// Its arguments.
    pub argv: Vec<String>,
    /// When it was started.
    pub started: SystemTime,
}

impl Processes {
    /// What runs now, by number.
    pub fn list(&self) -> Vec<Running> {
        let running = |(pid, entry): (&u32, &Entry)| Running { pid: *pid, argv: entry.argv.clone(), started: entry.started };
        self.0.lock().running.iter().map(running).collect()
    }

    /// Sends a signal; false if there is no such process.
    pub fn signal(&self, pid: u32, signal: Signal) -> bool {
        self.0.lock().running.get(&pid).is_some_and(|entry| entry.signals.send(signal).is_ok())
    }

    /// Ends a process at once; false if there is no such process.
    pub fn kill(&self, pid: u32) -> bool {
        let abort = self.0.lock().running.get(&pid).and_then(|entry| entry.abort.clone());
        abort.inspect(AbortHandle::abort).is_some()
    }

    /// Ends all processes at once, as when the container's first process has ended.
    pub fn kill_all(&self) {
        let all: Vec<AbortHandle> = self.0.lock().running.values().filter_map(|entry| entry.abort.clone()).collect();
        all.iter().for_each(AbortHandle::abort);
    }

    fn enter(&self, process: &Process) -> Option<Membership> {
        let mut table = self.0.lock();
        if table.running.len() >= MAX_PROCESSES {
            return None;
        }
        table.last_pid = table.last_pid.wrapping_add(1);
        let pid = table.last_pid;
        let entry =
            Entry { argv: process.argv.clone(), started: SystemTime::now(), signals: process.signals.sender(), abort: None };
        table.running.insert(pid, entry);
        Some(Membership { processes: self.clone(), pid })
    }
}

/// A place in the process table, given back when the process ends in whatever way.
struct Membership {
    processes: Processes,
    pid: u32,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.processes.0.lock().running.remove(&self.pid);
    }
}

/// A started process. Dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    /// Its number in the container's process table.
    pub pid: u32,
    task: JoinHandle<ExitCode>,
    signals: watch::Sender<Signal>,
    detached: bool,
}

impl Child {
    /// Waits for the end: the program's own exit code, 137 if it was killed.
    pub async fn wait(&mut self) -> ExitCode {
        match (&mut self.task).await {
            Ok(code) => code & 0xff,
            Err(err) if err.is_panic() => ABORTED,
            Err(_) => KILLED,
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = self.signals.send(signal);
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        self.task.abort();
    }

    /// Lets the process go on by itself. [`Processes::kill_all`] still reaches it.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.detached {
            self.task.abort();
        }
    }
}

impl Process {
    /// Starts the executable that `argv[0]` names: one of the image's, or a script of the container's file system that starts
    /// with `#!` and is marked executable.
    ///
    /// # Errors
    /// There is no such executable, or it cannot be started.
    pub fn spawn(mut self) -> Result<Child, SpawnError> {
        let program = self.resolve()?;
        self.spawn_program(program)
    }

    /// Starts `program` whatever `argv[0]` says: for a part of a program that runs as a process of its own (a subshell).
    ///
    /// # Errors
    /// [`SpawnError::TooManyProcesses`].
    pub fn spawn_program(self, program: Arc<dyn Program>) -> Result<Child, SpawnError> {
        let membership = self.container.processes.enter(&self).ok_or(SpawnError::TooManyProcesses)?;
        let (pid, processes, signals) = (membership.pid, self.container.processes.clone(), self.signals.sender());
        let task = tokio::spawn(async move {
            let _membership = membership;
            program.run(self).await
        });
        if let Some(entry) = processes.0.lock().running.get_mut(&pid) {
            entry.abort = Some(task.abort_handle());
        }
        Ok(Child { pid, task, signals, detached: false })
    }

    /// Finds the program to run, and puts a script's interpreter in front of `argv`.
    fn resolve(&mut self) -> Result<Arc<dyn Program>, SpawnError> {
        for _ in 0..MAX_INTERPRETERS {
            let name = self.argv.first().cloned().unwrap_or_default();
            if let Some(program) = self.container.image.executable(&name) {
                return Ok(program);
            }
            if !name.contains('/') {
                return Err(SpawnError::NotFound(name));
            }
            let path = self.path(&name);
            let fs = &self.container.fs;
            let metadata = fs.metadata(&path).map_err(|_| SpawnError::NoSuchFile(name.clone()))?;
            if metadata.file_type != FileType::File || metadata.mode & 0o111 == 0 {
                return Err(SpawnError::PermissionDenied(name));
            }
            let content = fs.read(&path).map_err(|_| SpawnError::NoSuchFile(name.clone()))?;
            let interpreter = interpreter(&content).ok_or(SpawnError::Format(name))?;
            self.argv.splice(0..1, interpreter.into_iter().chain([path]));
        }
        Err(SpawnError::Format(self.argv[0].clone()))
    }
}

/// What follows `#!` in a script's first line: the interpreter and at most one argument.
fn interpreter(script: &[u8]) -> Option<Vec<String>> {
    let line = script.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line).trim().to_owned();
    let mut words: Vec<String> = line.splitn(2, char::is_whitespace).map(|word| word.trim().to_owned()).collect();
    words.retain(|word| !word.is_empty());
    // `#!/usr/bin/env sh` is the usual way to name an interpreter without its directory.
    if words.first().is_some_and(|word| word.ends_with("/env")) && words.len() == 2 {
        words.remove(0);
    }
    (!words.is_empty()).then_some(words)
}
