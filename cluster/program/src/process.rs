//! Processes: one running executable of a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use meshlab_net::PodNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::{FileSystem, Image, Processes};

/// What every process of one container shares.
#[derive(Clone)]
pub struct Container {
    /// The image, whose executables the container's processes can start.
    pub image: Arc<Image>,
    /// The container's files: the image's own, a writable layer, and the volumes mounted over them.
    pub fs: FileSystem,
    /// The pod's network, seen with this container's user id (which decides whether traffic is redirected to a sidecar).
    pub net: PodNet,
    /// The pod's host name.
    pub hostname: String,
    /// The numeric user the container runs as.
    pub uid: u32,
    /// What runs in the container; start with `Processes::default()`.
    pub processes: Processes,
}

/// One running executable.
pub struct Process {
    /// The container it runs in.
    pub container: Arc<Container>,
    /// Its arguments; `argv[0]` is the executable's name as it was called.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory, absolute.
    pub cwd: String,
    /// Its standard streams.
    pub stdio: Stdio,
    /// The signals sent to it.
    pub signals: Signals,
}

/// A process's three standard streams.
pub struct Stdio {
    /// Standard input; empty (immediate end of file) where none is attached.
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard output.
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    /// Standard error.
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
    /// The terminal's size in columns and rows, where the process was given a terminal (see [`Stdio::terminal`]).
    pub terminal: Option<watch::Receiver<(u16, u16)>>,
}

impl Stdio {
    /// No input, and output that is thrown away.
    pub fn null() -> Self {
        Self {
            stdin: Box::new(tokio::io::empty()),
            stdout: Box::new(tokio::io::sink()),
            stderr: Box::new(tokio::io::sink()),
            terminal: None,
        }
    }
}

impl Process {
    /// The absolute form of a path given to the process, which may be relative to its working directory.
    pub fn path(&self, path: &str) -> String {
        absolute(&self.cwd, path)
    }
}

/// The absolute form of `path`, seen from the working directory `cwd`. Nothing is resolved.
pub fn absolute(cwd: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", cwd.trim_end_matches('/')),
    }
}

/// A program's exit code, 0 to 255 as Unix has it.
pub type ExitCode = i32;

/// An executable, written in Rust.
#[async_trait]
pub trait Program: Send + Sync + 'static {
    /// Runs to completion. On [`Signal::Terminate`] a program should finish what it serves and return; one that does not is
    /// dropped (killed, exit code 137) when the pod's grace period ends, so no state may depend on a destructor that awaits.
    async fn run(&self, process: Process) -> ExitCode;
}

/// A signal, as far as programs here can tell them apart. Being killed is not a signal: the future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signal {
    /// Nothing was sent yet.
    #[default]
    None,
    /// `SIGINT`, as `Ctrl-C` in a terminal sends it.
    Interrupt,
    /// `SIGTERM`: the pod is being stopped.
    Terminate,
}

/// The receiving end of a process's signals; cheap to clone.
#[derive(Clone)]
pub struct Signals {
    sender: watch::Sender<Signal>,
    receiver: watch::Receiver<Signal>,
}

impl Signals {
    /// A sender and the receiver for a new process.
    pub fn channel() -> (watch::Sender<Signal>, Self) {
        let (sender, receiver) = watch::channel(Signal::None);
        (sender.clone(), Self { sender, receiver })
    }

    /// Another sender of signals to this process.
    pub fn sender(&self) -> watch::Sender<Signal> {
        self.sender.clone()
    }

    /// Waits for the next signal, for a program that goes on after one (a shell after `Ctrl-C`).
    pub async fn next(&mut self) -> Signal {
        // This value holds a sender, so the channel cannot be closed.
        let _ = self.receiver.changed().await;
        *self.receiver.borrow_and_update()
    }

    /// A signal that came since the last call of this or of [`Signals::next`].
    pub fn take(&mut self) -> Option<Signal> {
        let came = self.receiver.has_changed().unwrap_or(false);
        came.then(|| *self.receiver.borrow_and_update())
    }

    /// Waits until the process is asked to end, and says how.
    pub async fn requested(&mut self) -> Signal {
        loop {
            let signal = *self.receiver.borrow_and_update();
            if signal != Signal::None {
                return signal;
            }
            // This value holds a sender, so the channel cannot be closed.
            let _ = self.receiver.changed().await;
        }
    }
}
