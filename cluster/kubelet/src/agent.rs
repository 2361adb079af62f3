//! What the API server asks of the node: logs, exec, attach and port-forward.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use meshlab_apiserver::{ExecOptions, ExecSession, LogOptions, NodeAgent, PodRef, Reader, Writer};
use meshlab_controller_runtime::Key;
use meshlab_net::Net;
use meshlab_objects::{Reason, Status};
use meshlab_program::{Child, Signals, Stdio, pipe};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot, watch};

use crate::Kubelet;
use crate::log::{Attached, Stream};
use crate::pod::{ContainerHandle, PodRuntime};

/// Sizes a client may send ahead of the terminal.
const RESIZES_AHEAD: usize = 8;
/// A terminal's size until its client says otherwise.
const TERMINAL: (u16, u16) = (80, 24);

#[async_trait]
impl NodeAgent for Kubelet {
    async fn logs(&self, pod: &PodRef, options: LogOptions) -> Result<Reader, Status> {
        let (object, runtime) = self.find(pod)?;
        let (name, handle) = container(&object, &runtime, &options.container)?;
        let log = match options.previous {
            true => handle.previous.ok_or_else(|| {
                Status::bad_request(format!("previous terminated container {name:?} in pod {:?} not found", pod.name))
            })?,
            false => handle.log.ok_or_else(|| {
                let why = waiting_reason(&object, &name);
                Status::bad_request(format!("container {name:?} in pod {:?} is waiting to start: {why}", pod.name))
            })?,
        };
        let (writer, reader) = pipe();
        tokio::spawn(async move {
            // The reader may go away at any time: that ends the copy.
            let _ = log.read(&options, writer).await;
        });
        Ok(Box::new(reader))
    }

    async fn exec(&self, pod: &PodRef, options: ExecOptions) -> Result<ExecSession, Status> {
        let (object, runtime) = self.find(pod)?;
        let (name, handle) = container(&object, &runtime, &options.container)?;
        let running = handle.running.ok_or_else(|| not_running(&name))?;
        let (sender, signals) = Signals::channel();
        let mut session = Session::default();
        let stdio = session.stdio(&options, sender);
        let child = running.target.process(options.command.clone(), stdio, signals).spawn();
        let child = child.map_err(|error| {
            Status::internal(format!("error executing command in container: failed to exec in container: {error}"))
        })?;
        let (exited, exit) = oneshot::channel();
        tokio::spawn(wait(child, exited));
        Ok(session.into_exec(exit))
    }

    async fn attach(&self, pod: &PodRef, options: ExecOptions) -> Result<ExecSession, Status> {
        let (object, runtime) = self.find(pod)?;
        let (name, handle) = container(&object, &runtime, &options.container)?;
        let (Some(running), Some(log)) = (handle.running, handle.log) else { return Err(not_running(&name)) };
        let tty = running.terminal.is_some();
        let stdin = match (options.stdin, running.stdin_once) {
            (false, _) => None,
            (true, false) => running.stdin,
            (true, true) => runtime.take_stdin(&name),
        };
        let (out, stdout) = pipe();
        let (err, stderr) = pipe();
        let (exited, exit) = oneshot::channel();
        tokio::spawn(relay(log.attach(tty), out, err, exited));
        let resize = running.terminal.map(forward_sizes);
        Ok(ExecSession {
            stdin: stdin.map(|stdin| Box::new(stdin) as Writer),
            stdout: options.stdout.then(|| Box::new(stdout) as Reader),
            stderr: (options.stderr && !tty).then(|| Box::new(stderr) as Reader),
            resize,
            exit,
        })
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<(Reader, Writer), Status> {
        let (_, runtime) = self.find(pod)?;
        let net = runtime.net().ok_or_else(|| Status::internal(format!("pod {} has no network", pod.name)))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = net.connect(address).await.map_err(|error| {
            let why = format!("failed to connect to localhost:{port}: {error}");
            Status::new(Reason::InternalError, format!("error forwarding port {port} to pod {}: {why}", pod.name))
        })?;
        let (reader, writer) = tokio::io::split(stream);
        Ok((Box::new(reader), Box::new(writer)))
    }
}

impl Kubelet {
    fn find(&self, pod: &PodRef) -> Result<(Arc<Pod>, Arc<PodRuntime>), Status> {
        let found = self.node.pods.get(&Key::new(&pod.namespace, &pod.name));
        found.ok_or_else(|| Status::not_found("", "pods", &pod.name))
    }
}

/// The container asked for; without a name, the only one.
fn container(pod: &Pod, runtime: &PodRuntime, name: &str) -> Result<(String, ContainerHandle), Status> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let names: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.as_str()).collect();
    let name = match (name, names.as_slice()) {
        ("", [only]) => only,
        ("", many) => {
            let message = format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", many.join(" "));
            return Err(Status::bad_request(message));
        }
        (name, _) => name,
    };
    let handle = runtime.container(name);
    let handle = handle.ok_or_else(|| Status::bad_request(format!("container {name} is not valid for pod {pod_name}")))?;
    Ok((name.to_owned(), handle))
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let Some(status) = &pod.status else { return "ContainerCreating".to_owned() };
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let mut all = all.into_iter().flat_map(|statuses| statuses.iter().flatten());
    let state = all.find(|status| status.name == container).and_then(|status| status.state.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref());
    match waiting.and_then(|waiting| waiting.reason.as_deref()) {
        Some("ErrImagePull" | "ImagePullBackOff") => "trying and failing to pull image".to_owned(),
        Some(reason) => reason.to_owned(),
        None => "ContainerCreating".to_owned(),
    }
}

fn not_running(container: &str) -> Status {
    Status::internal(format!("unable to upgrade connection: container not found (\"{container}\")"))
}

/// The client's side of a command's streams.
#[derive(Default)]
struct Session {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    resize: Option<mpsc::Sender<(u16, u16)>>,
}

impl Session {
    /// Connects the process's side, keeping the client's.
    fn stdio(&mut self, options: &ExecOptions, signals: watch::Sender<meshlab_program::Signal>) -> Stdio {
        let (screen, stdout) = pipe();
        self.stdout = Some(Box::new(stdout));
        let typed = options.stdin.then(|| {
            let (keys, typed) = pipe();
            self.stdin = Some(Box::new(keys));
            typed
        });
        if options.tty {
            let size = watch::Sender::new(TERMINAL);
            let receiver = size.subscribe();
            self.resize = Some(forward_sizes(size));
            return match typed {
                Some(typed) => Stdio::terminal(typed, screen, receiver, signals),
                None => Stdio::terminal(tokio::io::empty(), screen, receiver, signals),
            };
        }
        let (errors, stderr) = pipe();
        self.stderr = Some(Box::new(stderr));
        Stdio {
            stdin: typed.map_or_else(|| Box::new(tokio::io::empty()) as Box<_>, |typed| Box::new(typed) as Box<_>),
            stdout: Box::new(screen),
            stderr: Box::new(errors),
            terminal: None,
        }
    }

    fn into_exec(self, exit: oneshot::Receiver<i32>) -> ExecSession {
        ExecSession { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr, resize: self.resize, exit }
    }
}

/// Waits for a command's end. A command whose client has gone is killed.
async fn wait(mut child: Child, mut exited: oneshot::Sender<i32>) {
    tokio::select! {
        code = child.wait() => drop(exited.send(code)),
        () = exited.closed() => child.kill(),
    }
}

fn forward_sizes(terminal: watch::Sender<(u16, u16)>) -> mpsc::Sender<(u16, u16)> {
    let (sender, mut sizes) = mpsc::channel(RESIZES_AHEAD);
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            terminal.send_replace(size);
        }
    });
    sender
}

/// Copies what a container writes to an attached client, until the container ends or the client goes.
async fn relay(
    mut attached: Attached,
    mut out: impl tokio::io::AsyncWrite + Unpin,
    mut err: impl tokio::io::AsyncWrite + Unpin,
    mut exited: oneshot::Sender<i32>,
) {
    loop {
        let piece = tokio::select! {
            piece = attached.next() => piece,
            () = exited.closed() => return,
        };
        // A client that wants only one of the streams has dropped its end of the other; that is no reason to stop.
        let _ = match piece {
            Some((Stream::Out, bytes)) => out.write_all(&bytes).await,
            Some((Stream::Error, bytes)) => err.write_all(&bytes).await,
            None => break,
        };
    }
    let _ = out.shutdown().await;
    let _ = err.shutdown().await;
    let _ = exited.send(0);
}
