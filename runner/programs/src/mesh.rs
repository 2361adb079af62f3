//! istiod and the proxy, as containers and as processes of the machine.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use meshlab_agent::redirect::{Iptables, RedirectError, Redirector};
use meshlab_control::ControlError;
use meshlab_net::{AnyNet, OsNet, PodNet, Redirect};
use meshlab_program::{Container, ExitCode, Image, Process, Program};
use meshlab_proxy_config::{Log, OsFiles};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::files::AnyFiles;
use super::terminated;

/// Lines that wait to be written. The proxy must not wait for its log, so what does not fit is counted and left out.
const PENDING_LINES: usize = 8192;

/// `ghcr.io/meshlab/pilot`: istiod.
pub(super) fn pilot() -> Arc<Image> {
    Image::builder().executable("pilot-discovery", Arc::new(Discovery)).entrypoint(["/usr/local/bin/pilot-discovery"]).build()
}

/// `ghcr.io/meshlab/proxyv2`: the proxy and its agent, with a shell and curl to look around.
pub(super) fn proxy() -> Arc<Image> {
    Image::builder()
        .executable("pilot-agent", Arc::new(Agent))
        .base(&meshlab_images::busybox())
        .entrypoint(["/usr/local/bin/pilot-agent"])
        .uid(1337)
        .build()
}

/// Where a program of the mesh runs: its network and its files, and how traffic is redirected there.
#[derive(Clone)]
pub struct Place {
    net: AnyNet,
    files: AnyFiles,
    redirector: AnyRedirector,
}

impl Place {
    /// The machine that this process runs on.
    pub fn machine() -> Self {
        Self { net: AnyNet::Os(OsNet), files: AnyFiles::Os(OsFiles), redirector: AnyRedirector::Iptables(Iptables) }
    }

    fn container(container: &Container) -> Self {
        let net = container.net.clone();
        let files = AnyFiles::Container(container.fs.clone());
        Self { net: AnyNet::Pod(net.clone()), files, redirector: AnyRedirector::Pod(net) }
    }
}

#[derive(Clone)]
enum AnyRedirector {
    Iptables(Iptables),
    Pod(PodNet),
}

impl Redirector for AnyRedirector {
    async fn redirect(&self, rules: Redirect) -> Result<(), RedirectError> {
        match self {
            Self::Iptables(iptables) => iptables.redirect(rules).await,
            Self::Pod(pod) => Redirector::redirect(pod, rules).await,
        }
    }
}

/// A task of this crate. An `async fn` would be compiled in the crates that call it.
type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// `pilot-agent`, until it ends or is told to; what it prints goes to `stdout`. Its exit code.
pub fn agent<'a>(
    place: Place,
    env: &'a BTreeMap<String, String>,
    args: &'a [String],
    stdout: Sink,
    shutdown: CancellationToken,
) -> Running<'a, i32> {
    let Place { net, files, redirector } = place;
    Box::pin(meshlab_agent::run(meshlab_agent::Host { net, files, redirector, stdout }, env, args, shutdown))
}

/// `pilot-discovery`, until it is told to end.
///
/// # Errors
/// It cannot start.
pub fn discovery<'a>(
    place: Place,
    env: &'a BTreeMap<String, String>,
    args: &'a [String],
    log: Log,
    shutdown: CancellationToken,
) -> Running<'a, Result<(), ControlError>> {
    Box::pin(meshlab_control::run(place.net, place.files, env, args, log, shutdown))
}

struct Discovery;

#[async_trait]
impl Program for Discovery {
    async fn run(&self, process: Process) -> ExitCode {
        let (shutdown, place) = (terminated(&process), Place::container(&process.container));
        let (sink, writer) = lines(process.stdio.stdout);
        let log = Log::new(move |line| sink(line));
        let result = discovery(place, &process.env, &process.argv[1..], log, shutdown).await;
        let code = match result {
            Ok(()) => 0,
            Err(error) => {
                let mut stderr = process.stdio.stderr;
                let _ = stderr.write_all(format!("Error: {error}\n").as_bytes()).await;
                1
            }
        };
        let _ = writer.await;
        code
    }
}

struct Agent;

#[async_trait]
impl Program for Agent {
    async fn run(&self, process: Process) -> ExitCode {
        let (shutdown, place) = (terminated(&process), Place::container(&process.container));
        let (sink, writer) = lines(process.stdio.stdout);
        let code = agent(place, &process.env, &process.argv[1..], sink, shutdown).await;
        let _ = writer.await;
        code
    }
}

/// Takes lines, and never blocks.
type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// A sink for lines that never blocks, and the task that writes them. The task ends when every copy of the sink is gone.
fn lines(mut output: Box<dyn AsyncWrite + Send + Unpin>) -> (Sink, tokio::task::JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel::<String>(PENDING_LINES);
    let left_out = Arc::new(AtomicU64::new(0));
    let counted = left_out.clone();
    let sink = Arc::new(move |line: &str| {
        if sender.try_send(line.to_owned()).is_err() {
            left_out.fetch_add(1, Ordering::Relaxed);
        }
    });
    let writer = tokio::spawn(async move {
        while let Some(line) = receiver.recv().await {
            let missing = counted.swap(0, Ordering::Relaxed);
            if missing > 0 {
                let _ = output.write_all(format!("{missing} lines of log were left out\n").as_bytes()).await;
            }
            if output.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
        let _ = output.flush().await;
    });
    (sink, writer)
}
