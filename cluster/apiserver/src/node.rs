//! What the API server asks of the node that runs a pod: logs, exec, attach and port-forward.

use std::sync::Arc;

use async_trait::async_trait;
use meshlab_objects::Status;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// A boxed reading end.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// A boxed writing end.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The node's side of a pod's streaming subresources; the kubelet implements it.
#[async_trait]
pub trait NodeAgent: Send + Sync + 'static {
    /// A container's log. Ends where the log ends, or with the container if `follow` is set.
    async fn logs(&self, pod: &PodRef, options: LogOptions) -> Result<Reader, Status>;

    /// Starts a command in a container.
    async fn exec(&self, pod: &PodRef, options: ExecOptions) -> Result<ExecSession, Status>;

    /// Joins the streams of a container's main process; `options.command` is empty.
    async fn attach(&self, pod: &PodRef, options: ExecOptions) -> Result<ExecSession, Status>;

    /// Connects to a port of the pod, on its loopback address as Kubernetes does.
    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<(Reader, Writer), Status>;
}

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Container; empty where the pod has one only.
    pub container: String,
    /// Go on until the container ends.
    pub follow: bool,
    /// The log of the container's previous life.
    pub previous: bool,
    /// Begin every line with its time, RFC 3339 with nanoseconds.
    pub timestamps: bool,
    /// Only lines younger than this.
    pub since_seconds: Option<i64>,
    /// Only lines written at or after this time, RFC 3339.
    pub since_time: Option<String>,
    /// Only so many lines from the end.
    pub tail_lines: Option<i64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<i64>,
}

/// `PodExecOptions` and `PodAttachOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Container; empty takes the default one.
    pub container: String,
    /// Command and arguments.
    pub command: Vec<String>,
    /// Standard input is wanted.
    pub stdin: bool,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted; always false with `tty`.
    pub stderr: bool,
    /// Give the process a terminal.
    pub tty: bool,
}

/// A running command, from the outside.
pub struct ExecSession {
    /// Feeds its standard input; dropped or shut down for end of file. `None` if not wanted.
    pub stdin: Option<Writer>,
    /// Its standard output; ends when the process does.
    pub stdout: Option<Reader>,
    /// Its standard error.
    pub stderr: Option<Reader>,
    /// Terminal sizes, columns and rows.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// Its exit code. The sender is dropped without a value if the node lost the process.
    pub exit: oneshot::Receiver<i32>,
}

/// A node agent as the server holds it.
pub type SharedNodeAgent = Arc<dyn NodeAgent>;
