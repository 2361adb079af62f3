//! istiod and the proxy as containers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use meshlab_program::{ExitCode, Image, Process, Program};
use meshlab_proxy_config::Log;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::files::ContainerFiles;
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

struct Discovery;

#[async_trait]
impl Program for Discovery {
    async fn run(&self, process: Process) -> ExitCode {
        let (shutdown, container) = (terminated(&process), process.container.clone());
        let (sink, writer) = lines(process.stdio.stdout);
        let log = Log::new(move |line| sink(line));
        let files = ContainerFiles(container.fs.clone());
        let result = meshlab_control::run(container.net.clone(), files, &process.env, &process.argv[1..], log, shutdown).await;
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
        let (shutdown, container) = (terminated(&process), process.container.clone());
        let (sink, writer) = lines(process.stdio.stdout);
        let host = meshlab_agent::Host {
            net: container.net.clone(),
            files: ContainerFiles(container.fs.clone()),
            redirector: container.net.clone(),
            stdout: sink,
        };
        let code = meshlab_agent::run(host, &process.env, &process.argv[1..], shutdown).await;
        let _ = writer.await;
        code
    }
}

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
