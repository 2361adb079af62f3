//! `proxy` and `control-plane`: the mesh's programs as processes of this machine, outside of any lab, on its own sockets and files. In
//! a container image, links to this program by the names `pilot-agent` and `pilot-discovery` are what the mesh's manifests start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::stdout;
use std::sync::Arc;

use meshlab_agent::BufferedLog;
use meshlab_programs::Place;
use meshlab_proxy_config::Log;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{CommandError, Exit};
use crate::output::complain;

/// `pilot-agent`: a proxy and what is beside it.
pub(crate) async fn agent(arguments: impl Iterator<Item = OsString>) -> Result<Exit, CommandError> {
    let arguments = texts(arguments)?;
    let log = log()?;
    let (environment, stdout) = (environment(), Arc::new(log.sink()));
    let code = meshlab_programs::agent(Place::machine(), &environment, &arguments, stdout, terminated()?).await;
    Ok(if code == 0 { Exit::Ok } else { Exit::Failed })
}

/// `pilot-discovery`: istiod.
pub(crate) async fn discovery(arguments: impl Iterator<Item = OsString>) -> Result<Exit, CommandError> {
    let arguments = texts(arguments)?;
    let log = log()?;
    let (environment, sink) = (environment(), Log::new(log.sink()));
    let running = meshlab_programs::discovery(Place::machine(), &environment, &arguments, sink, terminated()?).await;
    drop(log);
    if let Err(error) = running {
        complain(&format!("Error: {error}\n"));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Ok)
}

/// Standard output. What is left of it is written when this is dropped.
fn log() -> Result<BufferedLog, CommandError> {
    BufferedLog::start(stdout()).map_err(|error| CommandError::failed(format!("no thread can be started: {error}")))
}

fn texts(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, CommandError> {
    let text =
        |argument: OsString| argument.into_string().map_err(|argument| CommandError::usage(format!("{argument:?} is not UTF-8")));
    arguments.map(text).collect()
}

/// Variables that are not text mean nothing to the mesh.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// A token that is cancelled by SIGTERM and Ctrl-C.
fn terminated() -> Result<CancellationToken, CommandError> {
    let listen = |kind| signal(kind).map_err(|error| CommandError::failed(format!("signals cannot be received: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}
