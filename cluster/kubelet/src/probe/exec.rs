//! Exec probes: a command in the container succeeds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meshlab_program::{Container, Process, Signals, Stdio, pipe};
use tokio::io::AsyncReadExt;

/// Output that a failed command's event shows at most.
const SHOWN: usize = 10 << 10;

/// Where commands run.
#[derive(Clone)]
pub(crate) struct ExecTarget {
    pub(crate) container: Arc<Container>,
    pub(crate) env: Arc<BTreeMap<String, String>>,
    pub(crate) cwd: String,
}

impl ExecTarget {
    /// A process of the container, not started yet.
    pub(crate) fn process(&self, argv: Vec<String>, stdio: Stdio, signals: Signals) -> Process {
        let mut env = (*self.env).clone();
        if stdio.terminal.is_some() {
            env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        }
        Process { container: self.container.clone(), argv, env, cwd: self.cwd.clone(), stdio, signals }
    }
}

/// Runs a command; an exit code other than 0 is an error with the command's output.
///
/// # Errors
/// What the command said, or why it did not run.
pub(crate) async fn run(target: &ExecTarget, command: &[String], timeout: Duration) -> Result<(), String> {
    let (output, mut shown) = pipe();
    let output = meshlab_program::Shared::new(output);
    let stdio =
        Stdio { stdin: Box::new(tokio::io::empty()), stdout: Box::new(output.clone()), stderr: Box::new(output), terminal: None };
    let (_, signals) = Signals::channel();
    let mut child = target.process(command.to_vec(), stdio, signals).spawn().map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    let work = async {
        let read = async {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = shown.read(&mut buffer).await {
                let room = SHOWN.saturating_sub(text.len());
                text.extend_from_slice(&buffer[..count.min(room)]);
            }
        };
        let (code, ()) = tokio::join!(child.wait(), read);
        code
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(String::from_utf8_lossy(&text).into_owned()),
        Err(_) => Err(format!("command timed out: {command:?} timed out after {timeout:?}")),
    }
}
