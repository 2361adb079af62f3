//! Hearing of saved files.

use std::path::Path;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::error::CommandError;

/// An editor writes a file in several steps (truncate, write, rename); what comes within this time is one save.
const QUIET: Duration = Duration::from_millis(100);

/// Yields a unit for each save below `folder`, until the receiver is dropped.
///
/// # Errors
/// The folder cannot be watched.
pub(crate) fn saves(folder: &Path) -> Result<mpsc::Receiver<()>, CommandError> {
    let unwatchable = |error: notify::Error| CommandError::failed(format!("{} cannot be watched: {error}", folder.display()));
    let (raw_sender, mut raw) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_))) {
            // The receiver is gone when nobody wants to hear any more.
            let _ = raw_sender.send(());
        }
    })
    .map_err(unwatchable)?;
    watcher.watch(folder, RecursiveMode::Recursive).map_err(unwatchable)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _watcher = watcher;
        while raw.recv().await.is_some() {
            while tokio::time::timeout(QUIET, raw.recv()).await.is_ok_and(|event| event.is_some()) {}
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
