//! `kubectl exec`.

use std::io::IsTerminal;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cli::Exec;
use super::rest::Failure;
use super::{Session, Step, pod_of};
use crate::output::complain;

/// What a command in a container printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) code: u8,
}

/// Runs a command in a container and gathers what it prints.
pub(crate) async fn capture(
    client: kube::Client,
    (namespace, pod, container): (&str, &str, &str),
    command: &[String],
) -> Result<Captured, Failure> {
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let params = AttachParams::default().container(container);
    let mut process = api.exec(pod, command, &params).await?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (process.stdout(), process.stderr());
    let read_out = async {
        if let Some(mut out) = out {
            let _ = out.read_to_end(&mut stdout).await;
        }
    };
    let read_err = async {
        if let Some(mut err) = err {
            let _ = err.read_to_end(&mut stderr).await;
        }
    };
    tokio::join!(read_out, read_err);
    let code = outcome(&mut process).await?;
    Ok(Captured { stdout, stderr: String::from_utf8_lossy(&stderr).into_owned(), code })
}

pub(super) async fn run(session: &Session, args: &Exec) -> Result<Step, Failure> {
    let pod = pod_of(session, &args.target).await?;
    let container = pod.container(args.container.as_deref(), |note| complain(&note))?;
    let tty = args.tty && std::io::stdin().is_terminal();
    if args.tty && !tty {
        complain("Unable to use a TTY - input is not a terminal or the right kind of file\n");
    }
    let params = AttachParams::default().container(container).stdin(args.stdin).stdout(true).stderr(!tty).tty(tty);
    let api: Api<Pod> = Api::namespaced(session.client(), &pod.namespace);
    let mut process = api.exec(&pod.name, &args.command, &params).await?;
    let _raw = tty.then(RawTerminal::enter);
    if tty {
        follow_size(&mut process);
    }
    if let Some(mut stdin) = process.stdin() {
        // Reading the terminal cannot be interrupted; the task ends with the program.
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    let (out, err) = (process.stdout(), process.stderr());
    let pass_out = async {
        if let Some(mut out) = out {
            pass(&mut out, &mut tokio::io::stdout()).await;
        }
    };
    let pass_err = async {
        if let Some(mut err) = err {
            pass(&mut err, &mut tokio::io::stderr()).await;
        }
    };
    tokio::join!(pass_out, pass_err);
    match outcome(&mut process).await? {
        0 => Ok(Step::Done),
        code => {
            complain(&format!("command terminated with exit code {code}\n"));
            Ok(Step::Exited(code))
        }
    }
}

/// Passes on what comes as it comes.
async fn pass(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// The exit code, once the process has ended.
async fn outcome(process: &mut AttachedProcess) -> Result<u8, Failure> {
    let status = match process.take_status() {
        Some(status) => status.await,
        None => None,
    };
    let status = status.ok_or_else(|| Failure::new("the connection was lost before the command ended"))?;
    exit_code(&status)
}

fn exit_code(status: &Status) -> Result<u8, Failure> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let code = causes.into_iter().flatten().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message.as_deref()?.parse().ok());
    code.ok_or_else(|| Failure::new(status.message.clone().unwrap_or_else(|| "the command did not run".to_owned())))
}

/// Tells the container how large the terminal is, now and whenever that changes.
fn follow_size(process: &mut AttachedProcess) {
    let Some(mut sizes) = process.terminal_size() else { return };
    tokio::spawn(async move {
        let mut changes = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()).ok()?;
        loop {
            let (width, height) = crossterm::terminal::size().ok()?;
            futures::SinkExt::send(&mut sizes, TerminalSize { width, height }).await.ok()?;
            changes.recv().await?;
        }
        #[expect(unreachable_code, reason = "names the type of the block")]
        Some(())
    });
}

/// Keys go to the container as they are pressed, until this is dropped.
struct RawTerminal;

impl RawTerminal {
    fn enter() -> Self {
        let _ = crossterm::terminal::enable_raw_mode();
        Self
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = crossterm::terminal::disable_raw_mode();
    }
}
